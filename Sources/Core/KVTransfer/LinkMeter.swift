package import ServingTypes

/// What the sending of one piece took.
package struct SentPiece: Hashable, Sendable {
    package var rawBytes: Int
    package var wireBytes: Int
    /// When the codec began, and when the last byte had been handed to the socket.
    package var start: MonotonicTime
    package var end: MonotonicTime
    /// Time in calls of the connection; the rest was the codec's.
    package var sending: Duration
    /// Part of `sending` in which the socket took nothing.
    package var waiting: Duration

    package init(
        rawBytes: Int, wireBytes: Int, start: MonotonicTime, end: MonotonicTime,
        sending: Duration, waiting: Duration
    ) {
        self.rawBytes = rawBytes
        self.wireBytes = wireBytes
        self.start = start
        self.end = end
        self.sending = sending
        self.waiting = waiting
    }
}

/// A stretch of sending without a pause, long enough to say something about the link.
package struct LinkSpan: Hashable, Sendable {
    /// From this part of waiting on, the socket was the limit.
    private static let limitedPart = 0.1

    package var rawBytes = 0
    package var wireBytes = 0
    package var elapsed = Duration.zero
    package var sending = Duration.zero
    package var waiting = Duration.zero

    package init(
        rawBytes: Int = 0, wireBytes: Int = 0, elapsed: Duration = .zero,
        sending: Duration = .zero, waiting: Duration = .zero
    ) {
        self.rawBytes = rawBytes
        self.wireBytes = wireBytes
        self.elapsed = elapsed
        self.sending = sending
        self.waiting = waiting
    }

    /// Whether the link, or the receiver, was slower than the sender.
    package var isSocketLimited: Bool {
        waiting.seconds > Self.limitedPart * elapsed.seconds
    }
}

/// Cuts the pieces that one connection sends into spans whose rate is the link's.
///
/// The kernel takes some megabytes at memory speed before a link is felt. So a span begins where a
/// piece had to wait, when the kernel's buffer is full, and ends where another one had to: what
/// went in between has left this host. A pause in which the buffer may have run empty begins anew.
package struct LinkMeter: Hashable, Sendable {
    /// Wire bytes of a span between two full buffers; several times what the fill may differ by.
    package static let fullSpanBytes = 4 << 20
    /// Wire bytes of a span that never waited: more than kernels buffer.
    package static let freeSpanBytes = 16 << 20
    /// A longer pause between two pieces ends the span.
    package static let longestPause = Duration.milliseconds(1)

    private var span = LinkSpan()
    private var spanStart: MonotonicTime?
    private var beganFull = false
    private var lastEnd: MonotonicTime?

    package init() {}

    /// Takes a piece in; gives a span if one has ended with it.
    package mutating func sent(_ piece: SentPiece) -> LinkSpan? {
        if let lastEnd, piece.start - lastEnd > Self.longestPause { reset() }
        lastEnd = piece.end
        let start = spanStart ?? piece.start
        spanStart = start
        span.rawBytes += piece.rawBytes
        span.wireBytes += piece.wireBytes
        span.sending += piece.sending
        span.waiting += piece.waiting
        span.elapsed = piece.end - start
        let isFull = piece.waiting > .zero
        let ended = span
        if isFull && !beganFull {
            begin(at: piece.end, isFull: true)
            return nil
        }
        let enough = isFull ? Self.fullSpanBytes : Self.freeSpanBytes
        guard span.wireBytes >= enough else { return nil }
        begin(at: piece.end, isFull: isFull)
        return ended
    }

    /// Forgets the span that has begun, for example because the codec changes.
    package mutating func reset() {
        span = LinkSpan()
        spanStart = nil
        beganFull = false
    }

    private mutating func begin(at start: MonotonicTime, isFull: Bool) {
        span = LinkSpan()
        spanStart = start
        beganFull = isFull
    }
}
