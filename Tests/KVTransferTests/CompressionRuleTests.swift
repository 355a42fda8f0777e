import KVTransfer
import ServingTypes
import Testing

/// Rates and results are the measurements of fp16 KV on two cores of a Xeon, Cascade Lake.
@Suite struct CompressionRuleTests {
    private static let ratio = 1.162
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
        learn(&rule, linkMegabytesPerSecond: link, ratio: Self.ratio)
        #expect(rule.isCompressing == (compressed > raw))
        // The model behind the choice is right within a tenth.
        #expect(abs(rule.rawBytesPerSecond / 1e6 / raw - 1) < 0.1)
        #expect(abs(rule.compressedBytesPerSecond / 1e6 / compressed - 1) < 0.1)
    }

    @Test func `on the sending core compression pays up to 0.6 GB a second`() {
        #expect(highestPayingLink(Self.quiet, spareCores: 0) == 600)
    }

    @Test func `with a core of its own it pays up to its own rate`() {
        #expect(highestPayingLink(Self.quiet, spareCores: 1) == 950)
        // Two compressing cores outrun TLS, so every link gains.
        #expect(highestPayingLink(Self.quiet, spareCores: 2) == 3000)
    }

    @Test func `KV that hardly shrinks goes raw even on a slow link`() {
        var rule = rule(Self.quiet)
        learn(&rule, linkMegabytesPerSecond: 10, ratio: 1.04)
        #expect(!rule.isCompressing)
    }

    @Test func `an unknown link counts as fast`() {
        var rule = rule(Self.quiet)
        #expect(rule.nextCodec() == .bytePlanes)
        rule.compressed(rawBytes: 1162, wireBytes: 1000)
        #expect(rule.nextCodec() == .raw)
    }

    @Test func `nothing is ever compressed on the same host`() {
        var rule = CompressionRule(
            codec: .bytePlanes, rates: Self.quiet, spareCores: 4, isSameHost: true)
        rule.sent(wireBytes: 1000, in: .seconds(1))
        rule.compressed(rawBytes: 2000, wireBytes: 1000)
        for _ in 0..<200 { #expect(rule.nextCodec() == .raw) }
    }

    @Test func `the first piece and every 64th are probes`() {
        var rule = rule(Self.quiet)
        rule.sent(wireBytes: 10 << 30, in: .seconds(1))
        var probes: [Int] = []
        for piece in 0..<200 where rule.nextCodec() == .bytePlanes {
            probes.append(piece)
            rule.compressed(rawBytes: 1000, wireBytes: 1000)
        }
        #expect(probes == [0, 64, 128, 192])
    }

    @Test func `a choice holds for 32 pieces and follows the link after that`() {
        var rule = rule(Self.quiet)
        learn(&rule, linkMegabytesPerSecond: 100, ratio: Self.ratio)
        #expect(rule.isCompressing)
        while rule.linkBytesPerSecond ?? 0 < 2e9 {
            rule.sent(wireBytes: 3_000_000_000, in: .seconds(1))
        }
        // One piece of the first 32 is used up.
        for _ in 1..<32 { #expect(rule.nextCodec() == .bytePlanes) }
        #expect(rule.nextCodec() == .raw)
        #expect(!rule.isCompressing)
    }

    @Test func `senseless measurements are ignored`() {
        var rule = rule(Self.quiet)
        rule.sent(wireBytes: 0, in: .seconds(1))
        rule.sent(wireBytes: 1, in: .zero)
        rule.compressed(rawBytes: 0, wireBytes: 0)
        #expect(rule.linkBytesPerSecond == nil)
        #expect(rule.ratio == nil)
    }

    private func rule(_ rates: TransferRates, spareCores: Int = 0) -> CompressionRule {
        CompressionRule(
            codec: .bytePlanes, rates: rates, spareCores: spareCores, isSameHost: false)
    }

    private func learn(
        _ rule: inout CompressionRule, linkMegabytesPerSecond: Double, ratio: Double
    ) {
        rule.sent(wireBytes: Int(linkMegabytesPerSecond * 1e6), in: .seconds(1))
        #expect(rule.nextCodec() == .bytePlanes)
        rule.compressed(rawBytes: 1_000_000, wireBytes: Int(1_000_000 / ratio))
    }

    /// The fastest link, in steps of 50 MB/s, at which compression is chosen.
    private func highestPayingLink(_ rates: TransferRates, spareCores: Int) -> Double? {
        let links = Array(stride(from: 50.0, through: 3000, by: 50))
        return links.last { link in
            var rule = self.rule(rates, spareCores: spareCores)
            learn(&rule, linkMegabytesPerSecond: link, ratio: Self.ratio)
            return rule.isCompressing
        }
    }
}
