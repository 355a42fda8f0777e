import KVTransfer
import ServingTypes
import Testing

@Suite struct LinkMeterTests {
    private static let piece = 1 << 20

    /// Sends pieces one after the other; each takes so long, of which it waits so long.
    private struct Sender {
        var meter = LinkMeter()
        var now = MonotonicTime.start + .seconds(1)

        mutating func send(
            bytes: Int = piece, milliseconds: Int, waiting: Int, pause: Duration = .zero
        ) -> LinkSpan? {
            let start = now + pause
            now = start + .milliseconds(milliseconds)
            return meter.sent(
                SentPiece(
                    rawBytes: bytes, wireBytes: bytes, start: start, end: now,
                    sending: .milliseconds(milliseconds), waiting: .milliseconds(waiting)))
        }
    }

    @Test func `what the kernel buffers is not counted`() throws {
        var sender = Sender()
        // Three pieces at memory speed, then 100 MiB a second.
        for _ in 0..<3 { #expect(sender.send(milliseconds: 1, waiting: 0) == nil) }
        #expect(sender.send(milliseconds: 10, waiting: 9) == nil)
        for _ in 0..<3 { #expect(sender.send(milliseconds: 10, waiting: 9) == nil) }
        let last = sender.send(milliseconds: 10, waiting: 9)
        let span = try #require(last)
        #expect(span.isSocketLimited)
        #expect(span.wireBytes == 4 << 20)
        #expect(span.elapsed == .milliseconds(40))
        #expect(span.waiting == .milliseconds(36))
    }

    @Test func `a pause begins anew`() {
        var sender = Sender()
        for round in 0..<20 {
            let pause = Duration.milliseconds(round.isMultiple(of: 3) ? 2 : 0)
            #expect(sender.send(milliseconds: 10, waiting: 9, pause: pause) == nil)
        }
    }

    @Test func `short pauses count as time in which the link worked`() throws {
        var sender = Sender()
        _ = sender.send(milliseconds: 10, waiting: 9)
        for _ in 0..<3 {
            _ = sender.send(milliseconds: 10, waiting: 9, pause: .microseconds(500))
        }
        let last = sender.send(milliseconds: 10, waiting: 9, pause: .microseconds(500))
        let span = try #require(last)
        #expect(span.elapsed == .milliseconds(42))
    }

    @Test func `pieces that never wait make a span of 16 MiB without a limit`() throws {
        var sender = Sender()
        for _ in 0..<15 { #expect(sender.send(milliseconds: 1, waiting: 0) == nil) }
        let last = sender.send(milliseconds: 1, waiting: 0)
        let span = try #require(last)
        #expect(!span.isSocketLimited)
        #expect(span.wireBytes == 16 << 20)
    }

    @Test func `little waiting is no limit`() throws {
        var sender = Sender()
        _ = sender.send(milliseconds: 100, waiting: 5)
        for _ in 0..<3 { _ = sender.send(milliseconds: 100, waiting: 5) }
        let last = sender.send(milliseconds: 100, waiting: 5)
        let span = try #require(last)
        #expect(!span.isSocketLimited)
    }

    @Test func `small pieces add up`() throws {
        var sender = Sender()
        var spans: [LinkSpan] = []
        for _ in 0..<200 {
            if let span = sender.send(bytes: 100_000, milliseconds: 1, waiting: 1) {
                spans.append(span)
            }
        }
        #expect(spans.count == 4)
        let first = try #require(spans.first)
        #expect(Double(first.wireBytes) / first.elapsed.seconds == 1e8)
    }
}
