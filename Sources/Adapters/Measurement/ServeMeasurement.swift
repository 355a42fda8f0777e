import InferenceEngine
package import LocalCluster
import LlamaEngine
package import Reports
import ServingTypes
import Synchronization

/// Compares requests through a running cluster with the engine called directly in this process.
///
/// Within a round each case is run in every way with the same prompt, so that what else happens on
/// the host hits all ways alike.
package final class ServeMeasurement: Sendable {
    private static let roundTripsPerRound = 20

    /// What a request goes through.
    private enum Way: CaseIterable { case direct, exporting, streamed, complete }

    private let settings: ServeSettings
    private let cluster: LocalCluster
    private let progress: @Sendable (String) -> Void
    private let results: Mutex<ServeResults>

    /// - Parameters:
    ///   - cluster: has one prefill-worker and one decode-worker and serves.
    ///   - progress: takes sentences for people.
    package init(
        settings: ServeSettings, cluster: LocalCluster,
        progress: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.cluster = cluster
        self.progress = progress
        results = Mutex(ServeResults(settings: settings))
    }

    /// What was measured so far.
    package var report: Report { results.withLock { $0.report } }

    package func run() async throws {
        guard let address = cluster.httpAddress,
            let prefill = cluster.processes(of: .prefillWorker).first,
            let decode = cluster.processes(of: .decodeWorker).first
        else { throw MeasurementError.unexpectedAnswer(status: 0, body: "no cluster") }
        progress("loading the model in this process")
        var engineSettings = LlamaEngine.Settings(modelPath: settings.modelPath)
        engineSettings.threads = ServeSettings.threads
        engineSettings.kvCapacityTokens = settings.kvTokens
        engineSettings.maximumSequences = settings.sequences
        let engine = try DirectEngine(settings: engineSettings)
        let tokenizer = try LlamaTokenizer(modelPath: settings.modelPath)
        let source = PromptSource {
            tokenizer.tokenize($0, addsSpecial: false, parsesSpecial: false)
        }
        let bench = Bench(
            engine: engine, source: source, address: address,
            client: CompletionClient(connection: try await TimedConnection(to: address)),
            prefill: prefill, echo: try ControlEcho(to: decode, of: cluster), tokenizer: tokenizer)
        do {
            try checkLengths(contextTokens: engine.description.contextTokens)
            noteEngine(engine)
            try await measure(bench)
        } catch {
            await engine.shutdown()
            throw error
        }
        await engine.shutdown()
        results.withLock { $0.isComplete = true }
    }

    /// The parts that take part in a run.
    private struct Bench: Sendable {
        let engine: DirectEngine
        let source: PromptSource
        let address: NetworkAddress
        let client: CompletionClient
        let prefill: ManagedProcess
        let echo: ControlEcho
        let tokenizer: LlamaTokenizer

        /// Whether each token is text that is shown at once.
        func showsEach(_ tokens: [TokenID]) -> Bool {
            tokens.allSatisfy { token in
                let bytes = tokenizer.bytes(of: token)
                return !bytes.isEmpty && bytes.allSatisfy { $0 < 0x80 }
            }
        }
    }

    private func checkLengths(contextTokens: Int) throws {
        let longest = (settings.promptTokens.max() ?? 0) + (settings.newTokens.max() ?? 0)
        let needed = max(
            longest, ServeSettings.streamPromptTokens + ServeSettings.streamNewTokens)
        guard needed <= contextTokens else {
            throw MeasurementError.promptTooLong(tokens: needed, contextTokens: contextTokens)
        }
    }

    private func noteEngine(_ engine: DirectEngine) {
        let memory = residentBytes()
        results.withLock {
            $0.device = engine.description.device
            $0.parameterCount = engine.parameterCount
            $0.memoryBefore = memory
        }
    }

    private func residentBytes() -> [String: Int] {
        Dictionary(
            cluster.all.compactMap { process in process.residentBytes.map { (process.name, $0) } },
            uniquingKeysWith: { $1 })
    }

    private func noteMemory() {
        let after = residentBytes()
        let peak = Dictionary(
            cluster.all.compactMap { process in
                ProcessReadings.peakResidentBytes(process.processIdentifier)
                    .map { (process.name, $0) }
            }, uniquingKeysWith: { $1 })
        results.withLock {
            $0.memoryAfter = after
            $0.memoryPeak = peak
        }
    }

    // MARK: One after the other

    private func measure(_ bench: Bench) async throws {
        let cases = settings.promptTokens.flatMap { prompt in
            settings.newTokens.map { ServeCase(promptTokens: prompt, newTokens: $0) }
        }
        for round in 0...settings.rounds {
            // Round 0 warms up: connections, pools, pages.
            progress(round == 0 ? "warming up" : "round \(round) of \(settings.rounds)")
            for offset in cases.indices {
                let one = cases[(offset + round) % cases.count]
                let prompt = bench.source.prompt(tokens: one.promptTokens, number: round)
                let observation = try await observe(one, prompt, bench, round: round)
                if round > 0 { results.withLock { $0.add(observation, to: one) } }
            }
            let health = try await healthRoundTrips(bench)
            let echoes = try await bench.echo.roundTrips(Self.roundTripsPerRound)
            guard round > 0 else { continue }
            results.withLock {
                $0.health.add(health)
                $0.echo.add(echoes)
            }
            for promptTokens in settings.promptTokens {
                let prompt = bench.source.prompt(tokens: promptTokens, number: round)
                try results.withLock { try $0.addCosts(prompt) }
            }
            noteMemory()
        }
        try await measureStreams(bench)
        noteMemory()
    }

    /// Runs one case in every way.
    ///
    /// In an order by chance: whoever follows itself or a like finds warm caches.
    private func observe(
        _ one: ServeCase, _ prompt: [TokenID], _ bench: Bench, round: Int
    ) async throws -> ServeObservation {
        var observation = ServeObservation()
        let seed = round << 32 | one.promptTokens + one.newTokens
        var generator = SeededGenerator(seed: UInt64(seed))
        for way in Way.allCases.shuffled(using: &generator) {
            switch way {
            case .direct:
                observation.direct = try await bench.engine.generate(
                    prompt, newTokens: one.newTokens)
            case .exporting:
                observation.exporting = try await bench.engine.generate(
                    prompt, newTokens: 1, exportsKV: true
                ).first
            case .streamed:
                let before = try await MetricsReading(of: bench.prefill)
                observation.streamed = try await bench.client.stream(
                    prompt, newTokens: one.newTokens)
                let after = try await MetricsReading(of: bench.prefill)
                observation.transfer = TransferReading(before: before, after: after)
            case .complete:
                observation.complete = try await bench.client.complete(
                    prompt, newTokens: one.newTokens)
            }
        }
        if !bench.showsEach(observation.direct.beginning) { observation.streamed.second = nil }
        return observation
    }

    private func healthRoundTrips(_ bench: Bench) async throws -> Samples {
        var times = Samples()
        for _ in 0..<Self.roundTripsPerRound {
            times.add(try await bench.client.connection.call("GET", "/health").total)
        }
        return times
    }

    // MARK: Side by side

    private func measureStreams(_ bench: Bench) async throws {
        for round in 1...max(1, min(settings.rounds, ServeSettings.streamRounds)) {
            for streams in settings.streams {
                progress("\(streams) streams at once, round \(round)")
                let prompts = (0..<streams).map {
                    bench.source.prompt(
                        tokens: ServeSettings.streamPromptTokens, number: round * streams + $0)
                }
                let clients = try await connect(streams, to: bench.address)
                let served = try await together(prompts) { index, prompt in
                    try await clients[index].stream(
                        prompt, newTokens: ServeSettings.streamNewTokens)
                }
                for client in clients { await client.connection.close() }
                let direct = try await together(prompts) { _, prompt in
                    try await bench.engine.generate(
                        prompt, newTokens: ServeSettings.streamNewTokens)
                }
                results.withLock { $0.add(served, direct, streams: streams) }
            }
        }
    }

    private func connect(
        _ count: Int, to address: NetworkAddress
    ) async throws -> [CompletionClient] {
        var clients: [CompletionClient] = []
        for _ in 0..<count {
            clients.append(CompletionClient(connection: try await TimedConnection(to: address)))
        }
        return clients
    }

    /// Runs all at once.
    private func together(
        _ prompts: [[TokenID]],
        _ request: @escaping @Sendable (Int, [TokenID]) async throws -> TokenTimes
    ) async throws -> StreamsRun {
        let start = ContinuousClock.now
        let times = try await withThrowingTaskGroup(of: TokenTimes.self) { group in
            for (index, prompt) in prompts.enumerated() {
                group.addTask { try await request(index, prompt) }
            }
            return try await group.reduce(into: [TokenTimes]()) { $0.append($1) }
        }
        return StreamsRun(times: times, wall: ContinuousClock.now - start)
    }
}
