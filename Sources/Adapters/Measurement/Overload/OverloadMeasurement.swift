import Foundation
import HTTPClient
package import LocalCluster
package import Reports
import ServingTypes
import Synchronization

/// What a cluster does that is asked for several times what it can do, and what that costs.
package final class OverloadMeasurement: Sendable {
    /// Memory and files of one process, in bytes.
    struct Usage: Sendable {
        var resident = 0
        var peak = 0
        var files = 0
    }

    private enum Limits {
        /// Until everything that the load needed is given back.
        static let rest = Duration.seconds(60)
        static let poll = Duration.milliseconds(50)
        /// Requests of an open loop that are under way at once; more are not sent.
        static let open = 4000
    }

    private let settings: OverloadSettings
    private let cluster: LocalCluster
    private let progress: @Sendable (String) -> Void
    private let state: Mutex<OverloadResults>

    /// - Parameter cluster: with the settings' arguments and cluster file, and simulated engines.
    package init(
        settings: OverloadSettings, cluster: LocalCluster,
        progress: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.cluster = cluster
        self.progress = progress
        state = Mutex(OverloadResults(settings: settings))
    }

    /// What was measured so far.
    package var report: Report { state.withLock { $0.report } }

    /// Whether nothing was lost, nobody was left without an answer, and all was given back.
    package var complaints: [String] { state.withLock { $0.complaints } }

    package func run() async throws {
        guard let address = cluster.httpAddress else {
            throw MeasurementError.unexpectedAnswer(status: 0, body: "no cluster")
        }
        // Pools and allocators warm up.
        _ = try await closedLoop("warming up", settings.sequences, address, part: 0.25)
        note { $0.before = $1 }
        let usual = try await closedLoop("capacity", settings.sequences, address)
        let clients = settings.factor * settings.sequences
        _ = try await closedLoop("closed loop", clients, address)
        let rate = usual.servedPerSecond * Double(settings.factor)
        try await openLoop(perSecond: rate, address)
        try await rest(address)
        note { $0.after = $1 }
        try await connectionCosts(address)
        try await waitingCosts(address)
        try await rest(address)
        state.withLock { $0.isComplete = true }
    }

    private func note(_ body: (inout OverloadResults, [String: Usage]) -> Void) {
        let usage = usage()
        state.withLock { body(&$0, usage) }
    }

    private func usage() -> [String: Usage] {
        Dictionary(
            uniqueKeysWithValues: cluster.all.map { process in
                let number = process.processIdentifier
                let files = try? FileManager.default.contentsOfDirectory(
                    atPath: "/proc/\(number)/fd")
                return (
                    process.name,
                    Usage(
                        resident: ProcessReadings.residentBytes(number) ?? 0,
                        peak: ProcessReadings.peakResidentBytes(number) ?? 0,
                        files: files?.count ?? 0)
                )
            })
    }

    // MARK: Loads

    /// Clients that send the next request when the last one is answered.
    private func closedLoop(
        _ name: String, _ clients: Int, _ address: NetworkAddress, part: Double = 1
    ) async throws -> OverloadPhase {
        progress("\(name): \(clients) clients")
        let start = ContinuousClock.now
        let end = start + settings.time * part
        var phase = OverloadPhase(name: name)
        phase.answers = await withTaskGroup(of: [OverloadAnswer].self) { group in
            for client in 0..<clients {
                group.addTask {
                    var answers: [OverloadAnswer] = []
                    while ContinuousClock.now < end, !Task.isCancelled {
                        let answer = await self.ask("\(name) \(client) \(answers.count)", address)
                        answers.append(answer)
                        // Who is refused waits a little, as clients do, if less than it is told.
                        if answer.isRefused { try? await Task.sleep(for: .milliseconds(200)) }
                    }
                    return answers
                }
            }
            return await group.reduce(into: []) { $0 += $1 }
        }
        phase.time = ContinuousClock.now - start
        if part == 1 { note { [phase] in $0.add(phase, $1) } }
        return phase
    }

    /// Requests that come whether or not others are answered.
    private func openLoop(perSecond rate: Double, _ address: NetworkAddress) async throws {
        progress("open loop: \(Int(rate)) requests a second")
        let start = ContinuousClock.now
        var phase = OverloadPhase(name: "open loop")
        let count = Int(rate * settings.time.seconds)
        phase.answers = try await withThrowingTaskGroup(of: OverloadAnswer.self) { group in
            var answers: [OverloadAnswer] = []
            for number in 0..<count {
                let due = start + .seconds(Double(number) / max(rate, 1))
                try await Task.sleep(until: due)
                if number - answers.count >= Limits.open, let answer = try await group.next() {
                    answers.append(answer)
                }
                group.addTask { await self.ask("open \(number)", address) }
            }
            return try await group.reduce(into: answers) { $0.append($1) }
        }
        phase.time = ContinuousClock.now - start
        note { [phase] in $0.add(phase, $1) }
    }

    /// Sends one request and follows its stream.
    private func ask(_ prompt: String, _ address: NetworkAddress) async -> OverloadAnswer {
        let body = """
            {"prompt":"\(prompt)","max_tokens":\(settings.newTokens),"ignore_eos":true,\
            "stream":true}
            """
        var answer = OverloadAnswer()
        var end: [UInt8] = []
        let start = ContinuousClock.now
        do {
            let head = try await HTTPCall(
                "POST", address, CompletionClient.path,
                headers: ["content-type": "application/json"], body: Array(body.utf8)
            ).stream { head, chunk in
                if head.status == 200, answer.first == nil {
                    answer.first = ContinuousClock.now - start
                }
                end = (end + chunk).suffix(400)
            }
            answer.status = head.status
            answer.saysWhenToRetry = head.headers["retry-after"] != nil
            let text = String(decoding: end, as: UTF8.self)
            answer.isWhole =
                text.hasSuffix("data: [DONE]\n\n") && text.contains(#""finish_reason":"length""#)
        } catch {
            state.withLock { $0.problem = "\(error)" }
        }
        answer.total = ContinuousClock.now - start
        return answer
    }

    // MARK: Costs

    private func rest(_ address: NetworkAddress) async throws {
        let end = ContinuousClock.now + Limits.rest
        while true {
            if let gateway = cluster.processes(of: .gateway).first,
                let reading = try? await MetricsReading(of: gateway),
                reading["gateway_requests_open"] == 0
            {
                break
            }
            guard ContinuousClock.now < end else { break }
            try await Task.sleep(for: Limits.poll)
        }
        // Closed connections are forgotten.
        try await Task.sleep(for: .seconds(1))
    }

    private var gatewayBytes: Int {
        let gateway = cluster.processes(of: .gateway).first
        return gateway.flatMap { ProcessReadings.residentBytes($0.processIdentifier) } ?? 0
    }

    private func connectionCosts(_ address: NetworkAddress) async throws {
        progress("\(settings.connections) connections that rest")
        let before = gatewayBytes
        var connections: [TimedConnection] = []
        for _ in 0..<settings.connections {
            connections.append(try await TimedConnection(to: address))
        }
        let bytes = max(0, gatewayBytes - before) / max(1, connections.count)
        for connection in connections { await connection.close() }
        state.withLock { $0.bytesPerConnection = bytes }
    }

    private func waitingCosts(_ address: NetworkAddress) async throws {
        progress("\(settings.waiting) requests that wait")
        let before = gatewayBytes
        let prompt = String(repeating: "w", count: OverloadSettings.patientPromptBytes)
        let all = Task {
            await withTaskGroup(of: Void.self) { group in
                for number in 0..<settings.waiting {
                    group.addTask { _ = await self.ask("\(number) \(prompt)", address) }
                }
            }
        }
        let gateway = cluster.processes(of: .gateway).first
        let end = ContinuousClock.now + Limits.rest
        var most = 0.0
        while let gateway, ContinuousClock.now < end {
            guard let reading = try? await MetricsReading(of: gateway) else { break }
            let waiting = reading["gateway_requests_waiting"]
            most = max(most, waiting)
            if waiting < most || most >= Double(settings.waiting - settings.sequences) { break }
            try await Task.sleep(for: Limits.poll)
        }
        let bytes = max(0, gatewayBytes - before)
        let count = Int(most)
        all.cancel()
        await all.value
        state.withLock { results in
            results.waiting = count
            results.bytesPerWaiting = bytes / max(1, count)
        }
    }
}
