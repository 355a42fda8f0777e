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

    /// The KV of tokens of the slot that are there, with its checksum.
    func exportKV(slot: Int, tokenStart: Int, tokenCount: Int) throws(EngineError) -> KVBlock

    /// Adds a block whose place and length were checked; checks its bytes.
    ///
    /// - Throws: if the slot is as it was before.
    func importKV(_ block: KVBlock, slot: Int) throws(EngineError)

    /// Frees the job of the slot and keeps its KV.
    func retain(slot: Int)

    /// Begins an empty slot with the first `tokens` tokens of another one, which stays as it is.
    ///
    /// They share the KV until one of them is removed.
    ///
    /// - Throws: if the slot can't be continued from there; it is removed then.
    func fork(slot: Int, from source: Int, tokens: Int) throws(EngineError)

    /// Frees the slot's job, and what KV no other slot shares.
    func remove(slot: Int)
}
