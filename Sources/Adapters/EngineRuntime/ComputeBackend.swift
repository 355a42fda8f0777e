package import InferenceEngine

/// Computes what a batch planner chose, on one device; lives on the engine's thread.
///
/// A slot is a number in 0..<maximumSequences. Everything of a slot belongs to one sequence from
/// its first block or job until `remove`.
package protocol ComputeBackend: AnyObject {
    var description: EngineDescription { get }
    /// Most prompt tokens in an iteration in which a sequence decodes.
    var prefillBudgetTokens: Int { get }
    /// Most tokens in the last run of a prompt longer than a micro-batch; 0 is no limit.
    var finalRunTokens: Int { get }

    /// Prepares sampling for a job.
    func begin(_ job: SequenceJob, slot: Int) throws(EngineError)

    /// Computes the runs, whose tokens are at most one micro-batch.
    ///
    /// Returns the sampled tokens: one for each run that samples, in order.
    ///
    /// - Throws: if nothing of the step can be used.
    func compute(
        _ runs: [BatchPlanner.Run]
    ) throws(EngineError) -> [Result<BatchPlanner.Sample, EngineError>]

    /// The KV of computed tokens at the end of the slot's last run, with its checksum.
    func exportKV(slot: Int, tokenStart: Int, tokenCount: Int) throws(EngineError) -> KVBlock

    /// Adds a block whose place and length were checked; checks its bytes.
    ///
    /// - Throws: if the slot is as it was before.
    func importKV(_ block: KVBlock, slot: Int) throws(EngineError)

    /// Frees the job of the slot and keeps its KV.
    func retain(slot: Int)

    /// Frees the KV of all but the first `tokens` tokens of a slot without a job.
    func truncate(slot: Int, tokens: Int) throws(EngineError)

    /// Frees the slot's KV and its job.
    func remove(slot: Int)
}
