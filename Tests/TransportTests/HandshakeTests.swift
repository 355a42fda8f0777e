import Foundation
import ServingTypes
import Testing
import WireProtocol

@testable import Transport

/// Many connections at once, with real TLS.
@Suite(.timeLimit(.minutes(2))) struct HandshakeTests {
    let certificates: TestCertificates
    let log = LogLines()

    init() throws { certificates = try TestCertificates() }

    private func listener(_ limits: ControlHandler.Limits) throws -> ControlListener {
        try ControlListener(
            address: loopback, context: certificates.context(.decodeWorker, "decode"),
            hello: .test(.decodeWorker, "decode"), allowedRoles: [.gateway], limits: limits,
            connectionLimit: 1000, logger: log.logger)
    }

    private func client(
        _ address: NetworkAddress, _ context: TLSContext, _ limits: ControlHandler.Limits = .init()
    ) throws -> ControlClient {
        try ControlClient(
            address: address, context: context, hello: .test(.gateway),
            expects: PeerExpectation(.decodeWorker), limits: limits, logger: log.logger)
    }

    private func serve(
        _ listener: ControlListener, test: (NetworkAddress) async throws -> Void
    ) async throws {
        let address = try await listener.start()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await listener.run { session in
                    for try await _ in session.inbound {
                        try session.send(.pong(Pong(number: 1)))
                    }
                }
            }
            try await test(address)
            group.cancelAll()
        }
    }

    private static func ping(_ client: ControlClient) async throws {
        try await client.connectOnce { session in
            try session.send(.ping(Ping(number: 1)))
            for try await _ in session.inbound { return }
            Issue.record("no answer")
        }
    }

    /// Opens a TCP connection, sends these bytes and keeps it while the closure runs.
    private func withSocket(
        _ bytes: [UInt8], to address: NetworkAddress, _ body: () async throws -> Void
    ) async throws {
        let file = try Sockets.connect(to: address, deadline: Deadline(after: .seconds(5)))
        defer { close(file) }
        _ = unsafe bytes.withUnsafeBytes { unsafe Platform.write(file, $0) }
        try await body()
    }

    private func eventually(_ condition: () -> Bool) async throws {
        while !condition() { try await Task.sleep(for: .milliseconds(2)) }
    }

    /// The beginning of a TLS record that never ends.
    private static let halfRecord: [UInt8] = [0x16, 3, 1, 1, 0, 1, 0]

    @Test func `hundreds at once get in through a few places`() async throws {
        let count = 300
        let listener = try listener(.init(handshakes: 4))
        let context = try certificates.context(.gateway)
        try await serve(listener) { address in
            let client = try client(address, context)
            let watch = Task { await Self.peak(of: listener) }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<count { group.addTask { try await Self.ping(client) } }
                try await group.waitForAll()
            }
            watch.cancel()
            let seen = await watch.value
            #expect((1...4).contains(seen.inProgress) && seen.waiting > 0, "\(seen)")
            try await eventually { listener.handshakes == (inProgress: 0, waiting: 0) }
        }
    }

    /// The most it had at once, until the task is cancelled.
    private static func peak(
        of listener: ControlListener
    ) async -> (inProgress: Int, waiting: Int) {
        var peak = listener.handshakes
        while !Task.isCancelled {
            let now = listener.handshakes
            peak = (max(peak.inProgress, now.inProgress), max(peak.waiting, now.waiting))
            try? await Task.sleep(for: .milliseconds(1))
        }
        return peak
    }

    @Test func `who says nothing holds no place`() async throws {
        let listener = try listener(
            .init(handshake: .seconds(30), firstBytes: .seconds(30), handshakes: 1))
        let context = try certificates.context(.gateway)
        try await serve(listener) { address in
            try await withSocket([], to: address) {
                let start = ContinuousClock.now
                try await Self.ping(client(address, context))
                #expect(ContinuousClock.now - start < .seconds(15))
            }
        }
    }

    @Test func `who stops in the middle holds a place until the handshake deadline`() async throws {
        let deadline = Duration.seconds(3)
        let listener = try listener(.init(handshake: deadline, handshakes: 1))
        let context = try certificates.context(.gateway)
        try await serve(listener) { address in
            let start = ContinuousClock.now
            try await withSocket(Self.halfRecord, to: address) {
                try await eventually { listener.handshakes.inProgress == 1 }
                // This client gives up after a shorter time without progress, but not before the
                // listener has begun with it.
                let limits = ControlHandler.Limits(handshake: .seconds(2))
                try await Self.ping(client(address, context, limits))
            }
            #expect(ContinuousClock.now - start >= deadline)
            #expect(await log.line(containing: "handshake did not end in time") != nil)
        }
    }

    @Test func `who goes while it waits costs no handshake`() async throws {
        let listener = try listener(.init(handshake: .seconds(30), handshakes: 1))
        try await serve(listener) { address in
            try await withSocket(Self.halfRecord, to: address) {
                try await eventually { listener.handshakes.inProgress == 1 }
                try await withSocket(Self.halfRecord, to: address) {
                    try await eventually { listener.handshakes.waiting == 1 }
                }
                // The first one is still there.
                try await eventually { listener.handshakes == (inProgress: 1, waiting: 0) }
            }
            try await eventually { listener.handshakes == (inProgress: 0, waiting: 0) }
        }
    }

    @Test func `who waits too long is closed`() async throws {
        let listener = try listener(
            .init(handshake: .seconds(30), handshakeWait: .milliseconds(200), handshakes: 1))
        let context = try certificates.context(.gateway)
        try await serve(listener) { address in
            try await withSocket(Self.halfRecord, to: address) {
                try await eventually { listener.handshakes.inProgress == 1 }
                await #expect(throws: TransportError.self) {
                    try await Self.ping(client(address, context))
                }
                #expect(listener.handshakes == (inProgress: 1, waiting: 0))
            }
        }
    }

    @Test func `places go to those that came first, and the queue has a bound`() {
        var queue = HandshakeQueue<String>(limit: 2, waitingLimit: 3)
        let names = ["a", "b", "c", "d", "e"]
        var tickets: [UInt64] = []
        for name in names.prefix(2) {
            tickets.append(queue.enter(name) ?? .max)
            #expect(queue.admitted() == [name])
        }
        for name in names.dropFirst(2) {
            tickets.append(queue.enter(name) ?? .max)
            #expect(queue.admitted().isEmpty)
        }
        #expect(queue.enter("f") == nil && queue.waitingCount == 3)
        queue.leave(tickets[2])
        queue.leave(tickets[0])
        #expect(queue.admitted() == ["d"], "c has gone")
        queue.leave(tickets[1])
        queue.leave(tickets[3])
        #expect(queue.admitted() == ["e"] && queue.inProgress.count == 1)
        #expect(queue.waitingCount == 0)
    }

    @Test func `pauses grow to their bound and differ by chance`() {
        var backoff = Backoff()
        var longest = TransportLimits.firstBackoff
        for _ in 0..<20 {
            let pause = backoff.next(afterPermanentRefusal: false)
            #expect(pause <= longest && pause >= longest * (1 - TransportLimits.backoffJitter))
            longest = min(
                longest * TransportLimits.backoffGrowth, TransportLimits.longestBackoff)
        }
        let pauses = Set((0..<50).map { _ in backoff.next(afterPermanentRefusal: false) })
        #expect(pauses.count > 40, "they are spread")
    }
}
