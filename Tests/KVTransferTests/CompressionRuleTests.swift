import KVTransfer
import ServingTypes
import Testing

/// Rates and results are the measurements of fp16 KV on two cores of a Xeon, Cascade Lake.
@Suite struct CompressionRuleTests {
    private static let ratio = 1.162
    private static let whole = KVTransferLimits.pieceBytes
    private static let quiet = TransferRates(
        encryptBytesPerSecond: 1.5e9, compressBytesPerSecond: 0.999e9,
        decompressBytesPerSecond: 1.911e9)
    /// Both sides on the same two busy cores.
    private static let busy = TransferRates(
        encryptBytesPerSecond: 0.5e9, compressBytesPerSecond: 0.999e9,
        decompressBytesPerSecond: 1.911e9)

    /// Link, and what raw and compressed transfers carried on it, in MB/s of KV.
    @Test(arguments: [
        (link: 50.0, raw: 50.0, compressed: 58.0), (125, 125, 144), (300, 298, 342),
        (600, 497, 365),
    ])
    func `the choice is the faster one of the measured transfers`(
        link: Double, raw: Double, compressed: Double
    ) {
        var rule = self.rule(Self.busy)
        rule.sent(limited(linkMegabytesPerSecond: link))
        learn(&rule, ratio: Self.ratio)
        #expect(rule.isCompressing == (compressed > raw))
        // The model behind the choice is right within a tenth.
        #expect(abs(rule.rawBytesPerSecond / 1e6 / raw - 1) < 0.1)
        #expect(abs(rule.compressedBytesPerSecond / 1e6 / compressed - 1) < 0.1)
    }

    @Test func `on the sending core compression pays up to 0.6 GB a second`() {
        let links = Array(stride(from: 50.0, through: 3000, by: 50))
        let paying = links.filter { isCompressing($0, Self.quiet) }
        #expect(paying.last == 600)
        #expect(paying == links.filter { $0 <= 600 })
    }

    /// Up to 2.4 Gb/s always, from 10 Gb/s on never, on quiet and on busy cores.
    @Test(arguments: [
        (link: 10.0, pays: true), (50, true), (125, true), (300, true), (1250, false),
        (2500, false), (12_500, false),
    ])
    func `slow links get compressed KV, fast ones raw KV`(link: Double, pays: Bool) {
        #expect(isCompressing(link, Self.quiet) == pays)
        #expect(isCompressing(link, Self.busy) == pays)
    }

    @Test func `KV that hardly shrinks goes raw even on a slow link`() {
        #expect(!isCompressing(10, Self.quiet, ratio: 1.04))
    }

    @Test func `an unknown link counts as fast`() {
        var rule = rule(Self.quiet)
        #expect(rule.nextCodec(rawBytes: Self.whole) == .bytePlanes)
        learn(&rule, ratio: Self.ratio)
        #expect(rule.nextCodec(rawBytes: Self.whole) == .raw)
    }

    @Test func `nothing is compressed on the same host, unless always`() {
        for mode in CompressionMode.allCases {
            var rule = CompressionRule(
                mode: mode, codec: .bytePlanes, rates: Self.quiet, isSameHost: true)
            rule.sent(limited(linkMegabytesPerSecond: 10))
            learn(&rule, ratio: 2)
            let expected = mode == .on ? PieceCodec.bytePlanes : .raw
            for _ in 0..<200 { #expect(rule.nextCodec(rawBytes: Self.whole) == expected) }
            #expect(rule.isCompressing == (mode == .on))
            #expect(rule.probes == 0)
        }
    }

    @Test func `a switched-off rule compresses nothing, not even probes`() {
        var rule = CompressionRule(
            mode: .off, codec: .bytePlanes, rates: Self.quiet, isSameHost: false)
        rule.sent(limited(linkMegabytesPerSecond: 10))
        for _ in 0..<200 { #expect(rule.nextCodec(rawBytes: Self.whole) == .raw) }
        #expect(rule.probes == 0)
    }

    @Test func `the first piece and every 64th are probes, small ones don't count`() {
        var rule = rule(Self.quiet)
        var probes: [Int] = []
        for piece in 0..<200 {
            #expect(rule.nextCodec(rawBytes: 1000) == .raw)
            if rule.nextCodec(rawBytes: Self.whole) == .bytePlanes { probes.append(piece) }
        }
        #expect(probes == [0, 64, 128, 192])
        #expect(rule.probes == 4)
    }

    @Test func `a choice holds for 32 pieces and follows the link after that`() {
        var rule = rule(Self.quiet)
        rule.sent(limited(linkMegabytesPerSecond: 100))
        #expect(rule.nextCodec(rawBytes: Self.whole) == .bytePlanes)
        learn(&rule, ratio: Self.ratio)
        #expect(rule.isCompressing)
        while rule.linkBytesPerSecond ?? 0 < 2e9 {
            rule.sent(limited(linkMegabytesPerSecond: 3000))
        }
        // One piece of the first 32 is used up.
        for _ in 1..<32 { #expect(rule.nextCodec(rawBytes: Self.whole) == .bytePlanes) }
        #expect(rule.nextCodec(rawBytes: Self.whole) == .raw)
        #expect(!rule.isCompressing)
    }

    @Test func `senseless measurements are ignored`() {
        var rule = rule(Self.quiet)
        rule.sent(LinkSpan(wireBytes: 0, elapsed: .seconds(1), waiting: .seconds(1)))
        rule.sent(LinkSpan(wireBytes: 1, elapsed: .zero))
        rule.compressed(rawBytes: 0, wireBytes: 0, in: .seconds(1))
        rule.compressed(rawBytes: Self.whole, wireBytes: 1, in: .zero)
        rule.compressed(rawBytes: 100, wireBytes: 50, in: .seconds(1))
        #expect(rule.linkBytesPerSecond == nil)
        #expect(rule.ratio == nil)
        #expect(rule.rates == Self.quiet)
    }

    @Test func `a transfer that never waited says that the link is at least so fast`() {
        var rule = rule(Self.quiet)
        let free = LinkSpan(rawBytes: 800_000_000, wireBytes: 800_000_000, elapsed: .seconds(1))
        rule.sent(free)
        #expect(rule.linkBytesPerSecond == nil)
        rule.sent(limited(linkMegabytesPerSecond: 100))
        rule.sent(free)
        #expect(rule.linkBytesPerSecond == 8e8)
        rule.sent(limited(linkMegabytesPerSecond: 100))
        #expect(rule.linkBytesPerSecond == 6.25e8)
    }

    private func rule(_ rates: TransferRates) -> CompressionRule {
        CompressionRule(mode: .auto, codec: .bytePlanes, rates: rates, isSameHost: false)
    }

    /// A span of which all was waiting.
    private func limited(linkMegabytesPerSecond: Double) -> LinkSpan {
        let bytes = Int(linkMegabytesPerSecond * 1e6)
        return LinkSpan(
            rawBytes: bytes, wireBytes: bytes, elapsed: .seconds(1), sending: .seconds(1),
            waiting: .seconds(1))
    }

    /// A compressed piece, made at the rate that the rule has already.
    private func learn(_ rule: inout CompressionRule, ratio: Double) {
        rule.compressed(
            rawBytes: 1_000_000, wireBytes: Int(1_000_000 / ratio),
            in: .seconds(1e6 / rule.rates.compressBytesPerSecond))
    }

    private func isCompressing(
        _ linkMegabytesPerSecond: Double, _ rates: TransferRates, ratio: Double = Self.ratio
    ) -> Bool {
        var rule = rule(rates)
        rule.sent(limited(linkMegabytesPerSecond: linkMegabytesPerSecond))
        #expect(rule.nextCodec(rawBytes: Self.whole) == .bytePlanes)
        learn(&rule, ratio: ratio)
        return rule.isCompressing
    }
}
