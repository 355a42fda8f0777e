import InferenceEngine
import Roles
import ServingTypes

/// A worker of a scenario: its machine, and an engine that computes when it is told to.
///
/// The engine's model counts: after the tokens 1 2 3 comes 4.
struct ScenarioWorker {
    let description: InstanceDescription
    let keptSequences: Int
    /// Most tokens in one exported block.
    let chunkTokens: Int
    var machine: WorkerMachine
    var jobs: [SequenceJob] = []
    var generated: [SequenceID: Int] = [:]
    /// Sequences whose cancellation the engine has not confirmed.
    var cancelled: [SequenceID] = []
    /// Chunks that have landed, by first token; how many tokens they have.
    var landed: [AttemptID: [Int: Int]] = [:]
    /// Tokens whose KV each sequence began with.
    var imported: [SequenceID: Int] = [:]
    var refusesNextChunk = false
    var isUp = true

    init(_ description: InstanceDescription, keptSequences: Int, chunkTokens: Int) {
        self.description = description
        self.keptSequences = keptSequences
        self.chunkTokens = chunkTokens
        var limits = WorkerLimits(
            prefillSlots: description.prefillSlots,
            decodeSequences: description.decodeSequences,
            kvCapacityTokens: description.kvCapacityBytes, contextTokens: 100,
            kvBytesPerToken: 1)
        limits.keptSequences = keptSequences
        machine = WorkerMachine(
            instance: description.instance, role: description.initialRole, limits: limits)
    }

    var status: InstanceStatus {
        machine.status(
            EngineProgress(steps: 0, stepAge: nil, openSequences: jobs.count, usedKVTokens: 0))
    }

    /// One iteration: what was cancelled goes, each prompt is read, each answer gets a token.
    mutating func iterate() -> [EngineEvent] {
        var events: [EngineEvent] = cancelled.map { .cancelled($0) }
        cancelled = []
        for job in jobs {
            let done = generated[job.sequence, default: 0]
            generated[job.sequence] = done + 1
            if job.exportsKV {
                events += blocks(from: job.exportedFrom, to: job.tokens.count)
                    .map { .exported(job.sequence, $0) }
            }
            let token = TokenOutput(token: TokenID(job.tokens.count + done + 1))
            let isLast = done + 1 == job.maximumNewTokens
            if isLast {
                jobs.removeAll { $0.sequence == job.sequence }
                imported[job.sequence] = job.retainsKV ? job.tokens.count + done : nil
            }
            events.append(.token(job.sequence, token, finish: isLast ? .length : nil))
        }
        return events
    }

    private func blocks(from start: Int, to end: Int) -> [KVBlock] {
        stride(from: start, to: end, by: chunkTokens).map { start in
            KVBlock(
                tokenStart: start, tokenCount: min(chunkTokens, end - start),
                bytes: KVBuffer(capacityBytes: 1), checksum: UInt32(start))
        }
    }

    /// Takes a landed chunk in, or refuses it.
    mutating func importChunk(
        _ start: Int, of attempt: AttemptID, as sequence: SequenceID
    ) -> EngineEvent {
        let present = imported[sequence, default: 0]
        let count = landed[attempt]?.removeValue(forKey: start)
        guard let count, start == present, !refusesNextChunk else {
            refusesNextChunk = false
            return .blockRefused(sequence, expectedToken: present, reason: "a checksum is wrong")
        }
        imported[sequence] = start + count
        return .imported(sequence, tokens: start + count)
    }

    /// Starts a job; the engine drops one whose KV it has refused.
    mutating func run(_ job: SequenceJob) {
        if job.importedTokens == imported[job.sequence, default: 0] { jobs.append(job) }
    }

    mutating func fork(_ sequence: SequenceID, from retained: SequenceID, tokens: Int) {
        imported[sequence] = tokens
    }

    /// The blocks of a sequence that was retained.
    func export(_ sequence: SequenceID, from start: Int) -> [KVBlock] {
        blocks(from: start, to: imported[sequence, default: 0])
    }

    /// Says whether it decodes.
    mutating func hold(_ sequence: SequenceID) -> Bool {
        guard let job = jobs.first(where: { $0.sequence == sequence }),
            let done = generated[sequence], done > 0
        else { return false }
        jobs.removeAll { $0.sequence == sequence }
        imported[sequence] = job.tokens.count + done - 1
        return true
    }

    mutating func cancel(_ sequence: SequenceID) {
        let isOpen = imported.removeValue(forKey: sequence) != nil
        guard isOpen || jobs.contains(where: { $0.sequence == sequence }) else { return }
        jobs.removeAll { $0.sequence == sequence }
        cancelled.append(sequence)
    }
}
