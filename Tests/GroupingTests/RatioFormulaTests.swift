import Grouping
import Testing

@Suite("Eq. (1) of P/D-Serve")
struct RatioFormulaTests {
    @Test("the slower phase limits the throughput")
    func slower() {
        let times = PhaseTimes(
            prefillSeconds: 2, decodeSeconds: 10, prefillBatch: 4, decodeBatch: 10)
        #expect(times.requestsPerSecond(prefill: 1, decode: 1) == 1)
        #expect(times.requestsPerSecond(prefill: 1, decode: 2) == 2)
        #expect(times.requestsPerSecond(prefill: 1, decode: 9) == 2)
    }
}
