import Synchronization
import Testing

/// Streams without a pause in many places, until told to stop.
private final class SteadyLoad: Sendable {
    let isOver = Atomic(false)
    let answered = Atomic(0)
    let lost = Mutex<[String]>([])

    func run(_ cluster: TestCluster, streams: Int = 4) async throws {
        let body = #"{"prompt":"Hello there","max_tokens":24,"stream":true}"#
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<streams {
                group.addTask {
                    while !self.isOver.load(ordering: .relaxed) {
                        let events = try await cluster.stream("/v1/completions", body)
                        if events.last == "[DONE]" {
                            self.answered.add(1, ordering: .relaxed)
                        } else {
                            self.lost.withLock { $0.append("\(events.suffix(2))") }
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    func stop() { isOver.store(true, ordering: .relaxed) }
}

extension TestCluster {
    /// Does something while requests are served, none of which may fail.
    func underLoad(_ body: @escaping @Sendable () async throws -> Void) async throws {
        let load = SteadyLoad()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await load.run(self) }
            group.addTask {
                defer { load.stop() }
                try await body()
            }
            try await group.waitForAll()
        }
        #expect(load.answered.load(ordering: .relaxed) > 3)
        #expect(load.lost.withLock { $0 } == [])
    }
}
