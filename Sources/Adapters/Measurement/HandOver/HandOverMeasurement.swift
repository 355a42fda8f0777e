import LlamaEngine
package import Reports
import ServiceRuntime
import ServingTypes
import Synchronization

/// Measures the way of KV from a prefill-worker to a decode-worker, prompt by prompt.
///
/// Each request is alone; what the workers count from before it to after it is its own.
package final class HandOverMeasurement: Sendable {
    /// Workers count what their engines did ten times a second.
    private static let countingPause = Duration.milliseconds(250)
    /// Time the workers may take to count a transfer after its answer.
    private static let countingDeadline = Duration.seconds(10)

    private let settings: HandOverSettings
    private let progress: @Sendable (String) -> Void
    private let results: Mutex<HandOverResults>

    /// - Parameter progress: takes sentences for people.
    package init(
        settings: HandOverSettings, progress: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.progress = progress
        results = Mutex(HandOverResults(settings: settings))
    }

    /// What was measured so far.
    package var report: Report { results.withLock { $0.report } }

    /// - Parameter seed: of the prompts; fresh ones need a fresh seed.
    package func run(on target: HandOverTarget, seed: UInt64) async throws {
        let tokenizer = try LlamaTokenizer(modelPath: settings.modelPath)
        let longest = (settings.promptTokens.max() ?? 0) + HandOverSettings.newTokens
        guard longest <= tokenizer.contextTokens else {
            throw MeasurementError.promptTooLong(
                tokens: longest, contextTokens: tokenizer.contextTokens)
        }
        var prompts = try HandOverPrompts(tokenizer, seed: seed)
        let client = CompletionClient(connection: try await TimedConnection(to: target.gateway))
        let lengths = settings.promptTokens.sorted()
        // What the first request makes stays: connections, buffers, the engine's own memory.
        progress("warming up")
        _ = try await client.tokenTimes(
            prompts.next(lengths.first ?? 1), answer: prompts.answer,
            newTokens: HandOverSettings.newTokens)
        try await Task.sleep(for: Self.countingPause)
        let idle = Self.residentBytes(target)
        results.withLock { $0.idleBytes = idle }
        for round in 0...settings.rounds {
            // Round 0 warms up, with the shortest first: its peaks of memory are each prompt's own.
            progress(round == 0 ? "shortest first" : "round \(round) of \(settings.rounds)")
            for offset in lengths.indices {
                let length = lengths[(offset + round) % lengths.count]
                try await measure(
                    length, prompts.next(length), prompts.answer, client, target,
                    counts: round > 0)
            }
        }
        await client.connection.close()
        results.withLock { $0.isComplete = true }
    }

    private func measure(
        _ length: Int, _ prompt: [TokenID], _ answer: TokenID, _ client: CompletionClient,
        _ target: HandOverTarget, counts: Bool
    ) async throws {
        let prefill = try await MetricsReading(at: target.prefillMetrics)
        let decode = try await MetricsReading(at: target.decodeMetrics)
        let memory = Self.residentBytes(target)
        let hasPeaks = Self.forgetPeaks(target)
        let tokens = try await client.tokenTimes(
            prompt, answer: answer, newTokens: HandOverSettings.newTokens)
        let (prefillAfter, decodeAfter) = try await readings(after: prefill, of: target)
        let observation = try HandOverObservation(
            tokens: tokens, prefill: MetricsRise(before: prefill, after: prefillAfter),
            decode: MetricsRise(before: decode, after: decodeAfter))
        let peaks = hasPeaks ? Self.peakBytes(target) : [:]
        results.withLock { results in
            if counts {
                results.observations[length, default: []].append(observation)
            } else {
                results.memory[length] = memory.reduce(into: [:]) { found, entry in
                    guard let peak = peaks[entry.key] else { return }
                    found[entry.key] = HandOverMemory(before: entry.value, peak: peak)
                }
            }
        }
    }

    /// The readings in which the transfer is counted.
    private func readings(
        after before: MetricsReading, of target: HandOverTarget
    ) async throws -> (prefill: MetricsReading, decode: MetricsReading) {
        let end = ContinuousClock.now + Self.countingDeadline
        let series = "prefill_kv_transfer_seconds_count"
        while ContinuousClock.now < end {
            let reading = try await MetricsReading(at: target.prefillMetrics)
            if reading[series] > before[series] { break }
            try await Task.sleep(for: .milliseconds(20))
        }
        try await Task.sleep(for: Self.countingPause)
        return (
            try await MetricsReading(at: target.prefillMetrics),
            try await MetricsReading(at: target.decodeMetrics)
        )
    }

    // MARK: Memory

    private static func residentBytes(_ target: HandOverTarget) -> [Role: Int] {
        target.processes.compactMapValues { ProcessReadings.residentBytes($0) }
    }

    private static func peakBytes(_ target: HandOverTarget) -> [Role: Int] {
        target.processes.compactMapValues { ProcessReadings.peakResidentBytes($0) }
    }

    /// False if the kernel keeps the old peaks.
    private static func forgetPeaks(_ target: HandOverTarget) -> Bool {
        target.processes.values.allSatisfy { ProcessReadings.forgetPeak($0) }
    }
}

extension HandOverTarget {
    fileprivate var processes: [Role: Int32] {
        var processes: [Role: Int32] = [:]
        processes[.prefillWorker] = prefillProcess
        processes[.decodeWorker] = decodeProcess
        return processes
    }
}
