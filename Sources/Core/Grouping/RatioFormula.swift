/// The times that P/D-Serve's performance model is made of, all of one scenario.
package struct PhaseTimes: Hashable, Sendable {
    /// T_p: time of a prefill in seconds, what prefixes save taken off.
    package var prefillSeconds: Double
    /// T_d: time of transfer and decode of one request in seconds.
    package var decodeSeconds: Double
    /// b_p, b_d: requests that an instance works on at once.
    package var prefillBatch: Double
    package var decodeBatch: Double

    package init(
        prefillSeconds: Double, decodeSeconds: Double, prefillBatch: Double, decodeBatch: Double
    ) {
        self.prefillSeconds = prefillSeconds
        self.decodeSeconds = decodeSeconds
        self.prefillBatch = prefillBatch
        self.decodeBatch = decodeBatch
    }

    /// Requests per second of `prefill` and `decode` instances together:
    /// min(n_p·b_p/T_p, n_d·b_d/T_d) (P/D-Serve, arXiv 2408.08147, section 3.1).
    package func requestsPerSecond(prefill: Int, decode: Int) -> Double {
        min(
            Double(prefill) * prefillBatch / max(prefillSeconds, .leastNormalMagnitude),
            Double(decode) * decodeBatch / max(decodeSeconds, .leastNormalMagnitude))
    }
}
