import Foundation
import Reports
import ServingTypes
import Testing

@testable import Measurement

@Suite struct HandOverTests {
    @Test func `metrics are read by series and by name`() {
        let reading = MetricsReading(
            text: """
                # HELP a_total Something with a { and "quotes".
                # TYPE a_total counter
                a_total 3
                a_seconds_sum 0.25
                a_seconds_bucket{le="+Inf"} 4
                a_chunks_total{carrier="stream"} 5
                a_chunks_total{carrier="memory",note="a } b \\" c"} 7 1700000000000
                a_chunks_total_more 100
                broken{label="no end 9
                empty

                infinite +Inf
                """)
        #expect(reading["a_total"] == 3)
        #expect(reading["a_seconds_sum"] == 0.25)
        #expect(reading[#"a_seconds_bucket{le="+Inf"}"#] == 4)
        #expect(reading[#"a_chunks_total{carrier="stream"}"#] == 5)
        #expect(reading.sum("a_chunks_total") == 12)
        #expect(reading["infinite"] == .infinity)
        #expect(reading["missing"] == 0)
        #expect(reading.sum("broken") == 0)
        #expect(reading.sum("empty") == 0)
    }

    @Test func `a rise is the difference of two readings`() {
        let rise = MetricsRise(
            before: MetricsReading(text: "a 3\nb{c=\"1\"} 1"),
            after: MetricsReading(text: "a 5\nb{c=\"1\"} 2\nb{c=\"2\"} 4\nnew 0.5"))
        #expect(rise["a"] == 2)
        #expect(rise.sum("b") == 5)
        #expect(rise["new"] == 0.5)
    }

    // MARK: One request

    private static let tokens: [Duration] = [100, 130, 140, 151, 161].map { .milliseconds($0) }

    /// What the workers show after one transfer of 10 MB; `earlier` ones are before it.
    private static func rises(
        transfers: Int = 1, exported: Int = 10_000_000, imported: Int = 10_000_000,
        failures: Int = 0, exposed: Double = 0.02
    ) -> (prefill: MetricsRise, decode: MetricsRise) {
        let prefill = """
            prefill_kv_transfer_seconds_count \(3 + transfers)
            prefill_kv_transfer_seconds_sum 1.5
            prefill_kv_exposed_seconds_sum \(0.1 + exposed)
            prefill_kv_failures_total{cause="transfer"} \(failures)
            prefill_kv_chunks_total{carrier="stream"} 4
            prefill_kv_raw_bytes_total 10000000
            prefill_kv_wire_bytes_total 8000000
            prefill_kv_send_seconds_sum 0.06
            prefill_kv_codec_seconds_sum 0.01
            prefill_engine_compute_seconds_total 0.4
            prefill_engine_export_seconds_total 0.03
            prefill_engine_export_bytes_total \(exported)
            """
        let earlier = """
            prefill_kv_transfer_seconds_count 3
            prefill_kv_transfer_seconds_sum 1
            prefill_kv_exposed_seconds_sum 0.1
            """
        let decode = """
            decode_kv_receive_seconds_sum 0.07
            decode_kv_codec_seconds_sum 0.005
            decode_engine_import_seconds_total 0.04
            decode_engine_import_bytes_total \(imported)
            """
        return (
            MetricsRise(
                before: MetricsReading(text: earlier), after: MetricsReading(text: prefill)),
            MetricsRise(before: MetricsReading(text: ""), after: MetricsReading(text: decode))
        )
    }

    private static func observation(exposed: Double = 0.02) throws -> HandOverObservation {
        let (prefill, decode) = rises(exposed: exposed)
        return try HandOverObservation(tokens: tokens, prefill: prefill, decode: decode)
    }

    @Test func `an observation holds what both workers and the client saw`() throws {
        let one = try Self.observation()
        let found = [
            one.firstToken, one.gap, one.step, one.seen, one.transfer, one.exposed, one.codec,
            one.importing, one.receiving, one.computing,
        ]
        let expected = [0.1, 0.03, 0.01, 0.02, 0.5, 0.02, 0.015, 0.04, 0.07, 0.4]
        for (value, wanted) in zip(found, expected) {
            #expect(abs(value - wanted) < 1e-9, "\(found)")
        }
        #expect(one.chunks == 4)
        #expect(one.wireBytes == 8e6)
    }

    @Test(arguments: [
        rises(transfers: 2), rises(transfers: 0), rises(imported: 9_000_000), rises(failures: 1),
        rises(exported: 0, imported: 0),
    ])
    func `anything but one whole transfer is refused`(
        _ rises: (prefill: MetricsRise, decode: MetricsRise)
    ) throws {
        let error = #expect(throws: MeasurementError.self) {
            try HandOverObservation(
                tokens: Self.tokens, prefill: rises.prefill, decode: rises.decode)
        }
        guard case .notOneTransfer = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    // MARK: The report

    private static func results(linkGbit: Double?) throws -> HandOverResults {
        var results = HandOverResults(
            settings: HandOverSettings(
                modelPath: "model.gguf", promptTokens: [300], rounds: 3,
                linkBitsPerSecond: linkGbit.map { $0 * 1e9 }, facts: []))
        results.observations[300] = try [0.01, 0.02, 0.03].map { try observation(exposed: $0) }
        results.idleBytes = [.prefillWorker: 100 << 20]
        results.memory[300] = [
            .prefillWorker: HandOverMemory(before: 101 << 20, peak: 120 << 20)
        ]
        return results
    }

    @Test func `shares are those of the transfer and of the link's time`() throws {
        let report = try Self.results(linkGbit: 1).report
        let row = try #require(report.tables.first { $0.key == "shares" }?.objects.first)
        func number(_ key: String) throws -> Double { try #require(row[key] as? Double) }
        // 20 ms of 500 ms; the link needs 64 ms for 8 MB.
        #expect(try abs(number("exposed_to_transfer") - 0.04) < 1e-9)
        #expect(try abs(number("floor_ms") - 64) < 1e-9)
        #expect(try abs(number("exposed_to_floor") - 20.0 / 64) < 1e-9)
        #expect(row["rounds"] as? Int == 3)
        #expect(report.findings.count == 2)
        #expect(report.findings.first?.contains("4.0 % of the time from opening to done") == true)
        #expect(report.findings.last?.contains("more than 5 %") == true)
        let memory = try #require(report.tables.first { $0.key == "memory" }?.objects.first)
        #expect(memory["extra_mib"] as? Double == 20)
        #expect(report.text.contains("exposed to transfer"))
    }

    @Test func `without the link's rate nothing is said of it`() throws {
        let report = try Self.results(linkGbit: nil).report
        let row = try #require(report.tables.first { $0.key == "shares" }?.objects.first)
        #expect(row["exposed_to_floor"] is NSNull)
        #expect(report.findings.count == 1)
    }
}
