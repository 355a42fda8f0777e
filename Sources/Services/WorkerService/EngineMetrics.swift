import InferenceEngine
import Metrics
import ServingTypes

/// Counters of what an engine has done; `prefill` or `decode` stands for `*`.
///
/// | Name | |
/// |---|---|
/// | `*_engine_compute_seconds_total` | time of iterations, without their exports |
/// | `prefill_engine_export_seconds_total` | the engine's time for writing KV into blocks |
/// | `prefill_engine_export_bytes_total` | bytes of these blocks |
/// | `decode_engine_import_seconds_total` | the engine's time for taking blocks in |
/// | `decode_engine_import_bytes_total` | bytes of these blocks, without refused ones |
/// | `*_sequences_moved_total` | sequences handed on to other workers, with their KV |
/// | `*_role_change_seconds` | from an assignment to the role it assigns |
struct EngineMetrics {
    private var last = EngineProgress(steps: 0, stepAge: nil, openSequences: 0, usedKVTokens: 0)
    private var lastMovedSequences = 0

    init() {}

    /// What was done until now doesn't count.
    init(since progress: EngineProgress) { last = progress }

    /// Counts what has been done since the last call.
    mutating func record(_ progress: EngineProgress, of role: Role) {
        let name = role == .prefillWorker ? "prefill" : "decode"
        add("\(name)_engine_compute", progress.computeDuration - last.computeDuration)
        // Any worker may do both, whichever kind of process it is.
        add("prefill_engine_export", progress.exportDuration - last.exportDuration)
        Counter(label: "prefill_engine_export_bytes_total")
            .increment(by: progress.exportedKVBytes - last.exportedKVBytes)
        add("decode_engine_import", progress.importDuration - last.importDuration)
        Counter(label: "decode_engine_import_bytes_total")
            .increment(by: progress.importedKVBytes - last.importedKVBytes)
        last = progress
    }

    mutating func record(movedSequences: Int, of role: Role) {
        let name = role == .prefillWorker ? "prefill" : "decode"
        Counter(label: "\(name)_sequences_moved_total")
            .increment(by: movedSequences - lastMovedSequences)
        lastMovedSequences = movedSequences
    }

    static func roleChanged(_ role: Role, in duration: Duration) {
        let name = role == .prefillWorker ? "prefill" : "decode"
        Timer(label: "\(name)_role_change_seconds").recordNanoseconds(duration.nanoseconds)
    }

    private func add(_ name: String, _ duration: Duration) {
        FloatingPointCounter(label: name + "_seconds_total").increment(by: duration.seconds)
    }
}
