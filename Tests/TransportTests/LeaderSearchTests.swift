import Logging
import NIOCore
import NIOPosix
import ServingTypes
import Synchronization
import Testing
import WireProtocol

@testable import Transport

/// Several schedulers of which one leads, as those see it who are connected with them.
@Suite(.timeLimit(.minutes(1))) struct LeaderSearchTests {
    private struct Events {
        var reached: [String] = []
        var answered = 0
        var isSilent = false
    }

    private final class Story: Sendable {
        private let events = Mutex(Events())

        var now: Events { events.withLock { $0 } }

        func note(_ change: (inout Events) -> Void) { events.withLock { change(&$0) } }
    }

    let certificates: TestCertificates
    let log = LogLines()

    init() throws { certificates = try TestCertificates() }

    private func listener(_ name: String, at address: NetworkAddress) throws -> ControlListener {
        try ControlListener(
            address: address, context: certificates.context(.scheduler, name),
            hello: .test(.scheduler, name), allowedRoles: [.gateway], limits: .init(),
            connectionLimit: 10, logger: log.logger)
    }

    /// An address at which nobody listens yet.
    private func freeAddress() async throws -> NetworkAddress {
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(channel.localAddress?.port)
        try await channel.close()
        return NetworkAddress(host: "127.0.0.1", port: port)
    }

    private func eventually(_ isTrue: () -> Bool) async throws {
        let end = ContinuousClock.now + .seconds(30)
        while !isTrue() {
            try #require(ContinuousClock.now < end, "it does not come")
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    @Test func `a silent leader is left for another one, and one that answers is not`()
        async throws
    {
        let story = Story()
        let (old, new) = try await (freeAddress(), freeAddress())
        let first = try listener("a", at: old)
        let second = try listener("b", at: new)
        let client = try ControlClient(
            addresses: [new, old], context: certificates.context(.gateway), hello: .test(.gateway),
            expects: PeerExpectation(.scheduler), logger: log.logger)
        _ = try await first.start()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await first.run { session in
                    for try await frame in session.inbound {
                        guard case .ping(let ping) = frame.message,
                            !story.now.isSilent
                        else { continue }
                        try session.send(.pong(Pong(number: ping.number)))
                        story.note { $0.answered += 1 }
                    }
                }
            }
            group.addTask {
                await client.run { session in
                    story.note { $0.reached.append(session.peer.instance.name) }
                    for try await _ in session.inbound {}
                }
            }
            try await eventually { story.now.reached == ["a"] }
            // Who keeps its connections and answers is asked, and kept.
            _ = try await second.start()
            group.addTask { try await second.run { for try await _ in $0.inbound {} } }
            try await eventually { story.now.answered >= 3 }
            #expect(story.now.reached == ["a"])
            story.note { $0.isSilent = true }
            let silent = ContinuousClock.now
            try await eventually { story.now.reached.count > 1 }
            print("another leader was found after \(ContinuousClock.now - silent)")
            #expect(story.now.reached == ["a", "b"])
            // Long before an idle connection ends by itself.
            #expect(ContinuousClock.now - silent < TransportLimits.idleOfSeveral)
            group.cancelAll()
        }
    }
}
