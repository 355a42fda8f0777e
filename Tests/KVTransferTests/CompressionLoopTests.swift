import KVTransfer
import ServingTypes
import Testing

/// Rule and meter at a sender in virtual time: over any link, what they reach comes near the better
/// of always and never compressing.
@Suite struct CompressionLoopTests {
    /// One core on each side, 4 MiB of kernel buffer between them.
    private struct World {
        var linkBytesPerSecond: Double
        var ratio = 1.2
        var encrypt = 1.5e9
        var compress = 1.0e9
        /// Raw bytes a second that the receiver takes in raw and in compressed pieces.
        var takesRaw = 1.4e9
        var takesCompressed = 0.9e9
    }

    /// Sends pieces through the world; gives raw bytes a second.
    private struct Sender {
        var world: World
        var rule: CompressionRule
        var meter = LinkMeter()
        var now = 0.0
        /// When the pieces in the kernel's buffer have left it, and their bytes.
        var buffered: [(leaves: Double, bytes: Int)] = []
        var lastLeaves = 0.0
        var compressedPieces = 0
        var changes = 0

        init(_ world: World, _ mode: CompressionMode) {
            self.world = world
            // The test at start took the cipher for all of the connection's work.
            let rates = TransferRates(
                encryptBytesPerSecond: 4e9, compressBytesPerSecond: world.compress * 1.2,
                decompressBytesPerSecond: 2e9)
            rule = CompressionRule(
                mode: mode, codec: .bytePlanes, rates: rates, isSameHost: false)
        }

        mutating func send(pieces: Int) -> Double {
            let start = now
            compressedPieces = 0
            for _ in 0..<pieces { sendPiece() }
            return Double(pieces * KVTransferLimits.pieceBytes) / (now - start)
        }

        private mutating func sendPiece() {
            let raw = KVTransferLimits.pieceBytes
            let start = now
            let choice = rule.isCompressing
            let isCompressed = rule.nextCodec(rawBytes: raw) != .raw
            if isCompressed {
                compressedPieces += 1
                now += Double(raw) / world.compress
                rule.compressed(
                    rawBytes: raw, wireBytes: Int(Double(raw) / world.ratio),
                    in: .seconds(now - start))
            }
            let wire = isCompressed ? Int(Double(raw) / world.ratio) : raw
            let encoded = now
            now += Double(wire) / world.encrypt
            let waiting = waitForRoom(wire)
            let receiver = isCompressed ? world.takesCompressed : world.takesRaw
            lastLeaves =
                max(lastLeaves, now)
                + max(Double(wire) / world.linkBytesPerSecond, Double(raw) / receiver)
            buffered.append((lastLeaves, wire))
            let span = meter.sent(
                SentPiece(
                    rawBytes: raw, wireBytes: wire, start: moment(start), end: moment(now),
                    sending: .seconds(now - encoded), waiting: .seconds(waiting)))
            if let span { rule.sent(span) }
            if rule.isCompressing != choice {
                meter.reset()
                changes += 1
            }
        }

        private mutating func waitForRoom(_ bytes: Int) -> Double {
            let start = now
            while true {
                let time = now
                buffered.removeAll { $0.leaves <= time }
                let held = buffered.reduce(0) { $0 + $1.bytes }
                guard held + bytes > 4 << 20, let first = buffered.first else { break }
                now = first.leaves
            }
            return now - start
        }

        private func moment(_ seconds: Double) -> MonotonicTime {
            .start + .seconds(seconds)
        }
    }

    private func goodput(_ world: World, _ mode: CompressionMode) -> Double {
        var sender = Sender(world, mode)
        _ = sender.send(pieces: 256)
        return sender.send(pieces: 4096)
    }

    @Test(arguments: [20.0, 50, 125, 300, 450, 550, 600, 700, 900, 1250, 2500, 12_500])
    func `the rule comes near the better of always and never`(link: Double) {
        let world = World(linkBytesPerSecond: link * 1e6)
        let best = max(goodput(world, .on), goodput(world, .off))
        #expect(goodput(world, .auto) > 0.95 * best)
    }

    @Test func `a slow link is compressed for, a fast one is not`() {
        for (link, isCompressed) in [(0.05e9, true), (0.3e9, true), (1.25e9, false)] {
            var sender = Sender(World(linkBytesPerSecond: link), .auto)
            _ = sender.send(pieces: 256)
            _ = sender.send(pieces: 512)
            #expect(
                isCompressed ? sender.compressedPieces == 512 : sender.compressedPieces <= 8)
        }
    }

    /// The receiver's core is the limit: it looks like a link of 0.4 GB/s, and compression would
    /// make it worse.
    @Test func `a slow receiver is not taken for a slow link`() {
        var world = World(linkBytesPerSecond: 12e9)
        (world.takesRaw, world.takesCompressed) = (0.4e9, 0.25e9)
        let best = max(goodput(world, .on), goodput(world, .off))
        #expect(goodput(world, .auto) > 0.95 * best)
    }

    @Test func `the rule follows a link that changes, both ways`() {
        var sender = Sender(World(linkBytesPerSecond: 0.1e9), .auto)
        _ = sender.send(pieces: 256)
        #expect(sender.rule.isCompressing)
        sender.world.linkBytesPerSecond = 5e9
        // Up to a memory's length passes before the link is looked at again.
        _ = sender.send(pieces: 1200)
        #expect(!sender.rule.isCompressing)
        sender.world.linkBytesPerSecond = 0.1e9
        _ = sender.send(pieces: 256)
        #expect(sender.rule.isCompressing)
    }

    @Test func `a link that stays makes for few changes`() {
        for link in [0.1e9, 0.3e9, 0.62e9, 2e9] {
            var sender = Sender(World(linkBytesPerSecond: link), .auto)
            _ = sender.send(pieces: 16_384)
            // Once per memory there and back.
            #expect(sender.changes <= 2 + 2 * 16, "link \(link): \(sender.changes)")
        }
    }
}
