import InferenceEngine
import Roles
import ServingTypes

/// A worker of a scenario: its machine, and an engine that computes when it is told to.
///
/// The engine's model counts: after the tokens 1 2 3 comes 4.
struct ScenarioWorker {
    let description: InstanceDescription
    var machine: WorkerMachine
    var jobs: [SequenceJob] = []
    var generated: [SequenceID: Int] = [:]
    /// Sequences whose cancellation the engine has not confirmed.
    var cancelled: [SequenceID] = []
    var isUp = true

    init(_ description: InstanceDescription) {
        self.description = description
        machine = WorkerMachine(
            role: description.role,
            limits: WorkerLimits(
                prefillSlots: description.prefillSlots,
                decodeSequences: description.decodeSequences,
                kvCapacityTokens: description.kvCapacityBytes, contextTokens: 100,
                kvBytesPerToken: 1))
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
                let block = KVBlock(
                    tokenStart: 0, tokenCount: job.tokens.count, bytes: KVBuffer(capacityBytes: 1))
                events.append(.exported(job.sequence, block))
            }
            let token = TokenOutput(token: TokenID(job.tokens.count + done + 1))
            let isLast = done + 1 == job.maximumNewTokens
            if isLast { jobs.removeAll { $0.sequence == job.sequence } }
            events.append(.token(job.sequence, token, finish: isLast ? .length : nil))
        }
        return events
    }

    mutating func cancel(_ sequence: SequenceID) {
        jobs.removeAll { $0.sequence == sequence }
        cancelled.append(sequence)
    }
}
