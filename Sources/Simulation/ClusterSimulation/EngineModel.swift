import InferenceEngine
import Roles
import ServingTypes

/// An engine that takes virtual time and computes `ModelFunction`; its KV is the tokens themselves.
final class EngineModel {
    enum Command {
        case importKV(SequenceID, start: Int, tokens: [TokenID], isDamaged: Bool)
        case run(SequenceJob)
        case cancel(SequenceID)
    }

    enum Event {
        case exported(SequenceID, start: Int, tokens: [TokenID])
        case other(EngineEvent)
    }

    private struct Sequence {
        var tokens: [TokenID] = []
        var job: SequenceJob?
        var generated: [TokenID] = []
    }

    private let process: SimulatedProcess
    private let plan: ClusterPlan
    private let emit: (Event) -> Void
    private var inbox: [Command] = []
    private var sequences: [SequenceID: Sequence] = [:]
    private var isIterating = false
    private(set) var steps: UInt64 = 0

    init(process: SimulatedProcess, plan: ClusterPlan, emit: @escaping (Event) -> Void) {
        self.process = process
        self.plan = plan
        self.emit = emit
    }

    var isEmpty: Bool { sequences.isEmpty && inbox.isEmpty }
    var openSequences: Int { sequences.count }
    /// Tokens of KV in use.
    var usedTokens: Int { sequences.values.reduce(0) { $0 + $1.tokens.count } }

    var progress: EngineProgress {
        EngineProgress(
            steps: steps, stepAge: isIterating ? .milliseconds(1) : nil,
            openSequences: sequences.count, usedKVTokens: usedTokens)
    }

    func submit(_ command: Command) {
        inbox.append(command)
        iterate()
    }

    // MARK: Iterations

    private func iterate() {
        guard !isIterating else { return }
        isIterating = true
        process.after(process.cluster.randomDuration(upTo: .milliseconds(1))) { [weak self] in
            guard let self else { return }
            takeCommands()
            let work = planWork()
            guard !work.isEmpty else {
                isIterating = false
                if !inbox.isEmpty { iterate() }
                return
            }
            let tokens = work.reduce(0) { $0 + $1.tokens }
            process.after(.microseconds((3000 + 150 * tokens) * plan.engineSlowness)) {
                [weak self] in
                guard let self else { return }
                finish(work)
                isIterating = false
                if !isEmpty { iterate() }
            }
        }
    }

    private func takeCommands() {
        let commands = inbox
        inbox = []
        for command in commands {
            switch command {
            case .cancel(let sequence):
                guard sequences.removeValue(forKey: sequence) != nil else { continue }
                emit(.other(.cancelled(sequence)))
            case .importKV(let sequence, let start, let tokens, let isDamaged):
                guard !isDamaged, start == sequences[sequence]?.tokens.count ?? 0 else {
                    fail(sequence, .blockRefused(reason: "damaged or out of order"))
                    continue
                }
                sequences[sequence, default: Sequence()].tokens += tokens
                emit(.other(.imported(sequence, tokens: start + tokens.count)))
            case .run(let job):
                start(job)
            }
        }
    }

    private func start(_ job: SequenceJob) {
        let imported = sequences[job.sequence]?.tokens ?? []
        process.cluster.expect(
            job.tokens.starts(with: imported),
            "\(process.name) runs \(job.sequence) with KV of other tokens")
        // A block before it may have been refused.
        guard imported.count == job.importedTokens else {
            fail(job.sequence, .invalidJob(reason: "the KV is not there"))
            return
        }
        sequences[job.sequence, default: Sequence()].job = job
    }

    private struct Work {
        var sequence: SequenceID
        var tokens: Int
    }

    /// One token for each decoding sequence, the rest for prompts in order of arrival.
    private func planWork() -> [Work] {
        var work: [Work] = []
        var left = plan.microBatchTokens
        for (id, sequence) in sequences.sorted(by: { $0.key.value < $1.key.value }) {
            guard let job = sequence.job else { continue }
            let missing = job.tokens.count + sequence.generated.count - sequence.tokens.count
            let tokens = min(missing, !sequence.generated.isEmpty ? 1 : left)
            guard tokens > 0 else { continue }
            left -= min(left, tokens)
            work.append(Work(sequence: id, tokens: tokens))
        }
        return work
    }

    private func finish(_ work: [Work]) {
        steps += 1
        for item in work { finish(item) }
    }

    private func finish(_ work: Work) {
        guard var sequence = sequences[work.sequence], let job = sequence.job else { return }
        if process.cluster.happens(.engineFailure) {
            fail(work.sequence, .computeFailed(code: 1))
            return
        }
        let known = job.tokens + sequence.generated
        let start = sequence.tokens.count
        let computed = Array(known[start..<start + work.tokens])
        sequence.tokens += computed
        sequences[work.sequence] = sequence
        if job.exportsKV { emit(.exported(work.sequence, start: start, tokens: computed)) }
        guard sequence.tokens.count == known.count else { return }
        let token = ModelFunction.nextToken(after: known, seed: job.sampling.seed)
        sequence.generated.append(token)
        sequences[work.sequence] = sequence
        var reason: FinishReason?
        if sequence.generated.count == job.maximumNewTokens { reason = .length }
        if token == ModelFunction.endToken { reason = .stop }
        if reason != nil { sequences[work.sequence] = nil }
        emit(.other(.token(work.sequence, TokenOutput(token: token), finish: reason)))
    }

    private func fail(_ sequence: SequenceID, _ error: EngineError) {
        sequences[sequence] = nil
        emit(.other(.failed(sequence, error)))
    }
}
