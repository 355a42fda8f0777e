import Reports
import Testing

@testable import Measurement

@Suite struct KVResultsTests {
    private static func observation(
        _ speed: Double, sender: Double = 0.2, receiver: Double = 0.25, wireBytes: Int? = nil
    ) -> KVObservation {
        KVObservation(
            gigabytesPerSecond: speed, senderSecondsPerGigabyte: sender,
            receiverSecondsPerGigabyte: receiver, wireBytes: wireBytes)
    }

    /// Three rounds on a host that becomes slower, with a peer that fails after the second.
    private static var results: KVResults {
        var results = KVResults(contenders: ["tcp", "tls"], peers: ["other"], sizes: [1, 16])
        for (plain, own, other) in [(4.0, 1.0, 2.0), (2.0, 1.0, 0.5), (1.0, 0.5, nil)] {
            results.begin(load: "1.0")
            results.add(observation(plain), of: "tcp", size: 16)
            results.add(observation(own, sender: 0.5, receiver: 0.4), of: "tls", size: 16)
            if let other { results.add(observation(other, sender: 1), of: "other", size: 16) }
        }
        return results
    }

    @Test func `ratios are those within a round, not those of medians`() {
        let ratios = Self.results.ratios("tls", to: "tcp", size: 16, \.gigabytesPerSecond)
        #expect(ratios.values == [0.25, 0.5, 0.5])
        #expect(ratios.median == 0.5)
    }

    @Test func `rounds without one of the two give no ratio`() {
        let ratios = Self.results.ratios("tls", to: "other", size: 16, \.gigabytesPerSecond)
        #expect(ratios.values == [0.5, 2])
        #expect(ratios.median == 1.25)
        #expect(Self.results.ratios("tls", to: "tcp", size: 1, \.gigabytesPerSecond).count == 0)
    }

    @Test func `the bottleneck is the busier side`() {
        #expect(Self.observation(9, sender: 0.5, receiver: 0.25).bottleneckGigabytesPerSecond == 2)
        #expect(Self.observation(9, sender: 0.1, receiver: 0.25).bottleneckGigabytesPerSecond == 4)
        #expect(Self.observation(9, sender: 0.5, receiver: 0).bottleneckGigabytesPerSecond == 2)
        #expect(Self.observation(9, sender: 0, receiver: 0).bottleneckGigabytesPerSecond == nil)
    }

    @Test func `the report states the ratios of the largest size`() {
        #expect(
            Self.results.report.findings == [
                "tcp / other, 16 MiB: 3.00 wall, 4.00 bneck",
                "tls / tcp, 16 MiB: 0.50 wall, 0.50 bneck",
                "tls / other, 16 MiB: 1.25 wall, 2.00 bneck",
            ])
    }

    @Test func `tables have a row for what was measured only`() throws {
        let report = Self.results.report
        let transfers = try #require(report.tables.first { $0.key == "transfers" })
        #expect(transfers.objects.map { $0["contender"] as? String } == ["tcp", "tls", "other"])
        #expect(transfers.objects.map { $0["rounds"] as? Int } == [3, 3, 2])
        #expect(transfers.objects.map { $0["gb_per_s"] as? Double } == [2, 1, 1.25])
        #expect(transfers.objects.map { $0["best_gb_per_s"] as? Double } == [4, 1, 2])
        #expect(transfers.objects.map { $0["to_tcp"] as? Double } == [1, 0.5, 0.375])
        #expect(report.tables.first { $0.key == "distance" }?.rows.isEmpty == true)
        #expect(report.text.contains("interrupted"))
    }

    @Test func `compression counts only changed sizes`() throws {
        var results = KVResults(contenders: ["tcp", "codec"], peers: [], sizes: [1])
        results.begin(load: "1.0")
        results.add(Self.observation(1, wireBytes: 1 << 20), of: "tcp", size: 1)
        results.add(Self.observation(1, wireBytes: 1 << 19), of: "codec", size: 1)
        let rows = try #require(results.report.tables.first { $0.key == "compression" }).objects
        #expect(rows.count == 1)
        #expect(rows.first?["raw_to_wire"] as? Double == 2)
    }

    @Test(arguments: [(1, 64), (2, 64), (16, 8), (64, 4), (100, 2), (256, 2), (1024, 2)])
    func `counts fit the sizes`(size: Int, count: Int) {
        #expect(KVMeasurementSettings.count(ofMebibytes: size) == count)
    }
}
