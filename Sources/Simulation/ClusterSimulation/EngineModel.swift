import InferenceEngine
import Roles
import ServingTypes

/// An engine that takes virtual time and computes `ModelFunction`; its KV is the tokens themselves.
final class EngineModel {
    enum Command {
        case importKV(SequenceID, start: Int, tokens: [TokenID], isDamaged: Bool)
        case fork(SequenceID, from: SequenceID, tokens: Int)
        case export(SequenceID, from: Int)
        case limitStep(Duration?)
        case run(SequenceJob)
        case hold(SequenceID)
        case cancel(SequenceID)
    }

    enum Event {
        case exported(SequenceID, start: Int, tokens: [TokenID])
        case other(EngineEvent)
    }

    private struct Sequence {
        /// Tokens whose KV is there.
        var tokens: [TokenID] = []
        var job: SequenceJob?
        var generated: [TokenID] = []
        /// The job has finished and only its KV is left.
        var isRetained = false
        /// Tokens whose KV is there and still has to leave, before anything else is computed.
        var exporting: Range<Int>?
        /// The last block was refused; a job that counts on it is dropped.
        var lastBlockWasRefused = false
    }

    private let process: SimulatedProcess
    private let plan: ClusterPlan
    private let emit: (Event) -> Void
    private var inbox: [Command] = []
    private var sequences: [SequenceID: Sequence] = [:]
    /// Sequences that are not open because their block was refused.
    private var refused: Set<SequenceID> = []
    private var ledger = KVLedger()
    private var stepLimit: Duration?
    private var isIterating = false
    private(set) var steps: UInt64 = 0

    init(process: SimulatedProcess, plan: ClusterPlan, emit: @escaping (Event) -> Void) {
        self.process = process
        self.plan = plan
        self.emit = emit
    }

    /// Nothing is to be done.
    var isQuiet: Bool {
        inbox.isEmpty && sequences.values.allSatisfy { $0.isRetained && $0.exporting == nil }
    }
    var hasCommands: Bool { !inbox.isEmpty }
    var openSequences: Int { sequences.count }
    /// Tokens of KV in use; what sequences share counts once.
    var usedTokens: Int { ledger.usedTokens }

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
            exportPresentKV()
            let work = planWork()
            guard !work.isEmpty else {
                isIterating = false
                if !inbox.isEmpty || sequences.values.contains(where: { $0.exporting != nil }) {
                    iterate()
                }
                return
            }
            let tokens = work.reduce(0) { $0 + $1.tokens }
            process.after(duration(ofStep: tokens)) { [weak self] in
                guard let self else { return }
                finish(work)
                isIterating = false
                if !isQuiet { iterate() }
            }
        }
    }

    private func takeCommands() {
        let commands = inbox
        inbox = []
        for command in commands {
            switch command {
            case .cancel(let sequence):
                refused.remove(sequence)
                guard sequences[sequence] != nil else { continue }
                remove(sequence)
                emit(.other(.cancelled(sequence)))
            case .importKV(let sequence, let start, let tokens, let isDamaged):
                take(tokens, from: start, for: sequence, isDamaged: isDamaged)
            case .fork(let sequence, let from, let tokens):
                fork(from, as: sequence, tokens: tokens)
            case .export(let sequence, let start):
                export(sequence, from: start)
            case .limitStep(let limit):
                stepLimit = limit
            case .run(let job):
                start(job)
            case .hold(let sequence):
                hold(sequence)
            }
            checkRoom()
        }
    }

    private func take(
        _ tokens: [TokenID], from start: Int, for id: SequenceID, isDamaged: Bool
    ) {
        let present = sequences[id]
        let expected = present?.tokens.count ?? 0
        guard present?.job == nil, present?.isRetained != true, !isDamaged, start == expected
        else {
            if present == nil { refused.insert(id) }
            sequences[id]?.lastBlockWasRefused = present?.job == nil
            let event = EngineEvent.blockRefused(
                id, expectedToken: expected, reason: "damaged or out of order")
            return emit(.other(event))
        }
        refused.remove(id)
        sequences[id, default: Sequence()].tokens += tokens
        ledger.add(tokens.count, to: id)
        sequences[id]?.lastBlockWasRefused = false
        emit(.other(.imported(id, tokens: start + tokens.count)))
    }

    private func fork(_ retained: SequenceID, as id: SequenceID, tokens: Int) {
        guard let present = sequences[retained], present.isRetained, sequences[id] == nil,
            tokens > 0, tokens <= present.tokens.count
        else {
            return process.cluster.expect(
                false, "\(process.name) forks \(retained), which is not retained")
        }
        // A window of the KV may have moved on.
        guard !process.cluster.happens(.lostHeldKV) else {
            refused.insert(id)
            let event = EngineEvent.blockRefused(id, expectedToken: 0, reason: "no longer whole")
            return emit(.other(event))
        }
        refused.remove(id)
        sequences[id] = Sequence(tokens: Array(present.tokens.prefix(tokens)))
        ledger.fork(id, from: retained, tokens: tokens)
        emit(.other(.imported(id, tokens: tokens)))
    }

    private func export(_ id: SequenceID, from start: Int) {
        guard let present = sequences[id], present.isRetained, present.exporting == nil,
            0...present.tokens.count ~= start
        else {
            return process.cluster.expect(
                false, "\(process.name) exports \(id) from \(start) on, which is not retained")
        }
        sequences[id]?.exporting = start..<present.tokens.count
    }

    private func hold(_ id: SequenceID) {
        guard let present = sequences[id], present.job != nil, !present.generated.isEmpty,
            present.exporting == nil
        else { return }
        sequences[id] = Sequence(tokens: present.tokens, isRetained: true)
        emit(.other(.held(id)))
    }

    /// One block of each sequence with KV that has to leave.
    private func exportPresentKV() {
        for (id, sequence) in sequences.sorted(by: { $0.key.value < $1.key.value }) {
            guard let range = sequence.exporting else { continue }
            let block = range.prefix(plan.microBatchTokens)
            let rest = block.upperBound..<range.upperBound
            sequences[id]?.exporting = rest.isEmpty ? nil : rest
            if !block.isEmpty {
                let tokens = Array(sequence.tokens[block])
                emit(.exported(id, start: block.lowerBound, tokens: tokens))
            }
            if rest.isEmpty, sequence.isRetained { emit(.other(.exportEnded(id))) }
        }
    }

    private func start(_ job: SequenceJob) {
        let present = sequences[job.sequence] ?? Sequence()
        if present.tokens.count != job.importedTokens,
            present.lastBlockWasRefused || refused.contains(job.sequence)
        {
            return
        }
        let isRight =
            present.job == nil && !present.isRetained
            && present.tokens.count == job.importedTokens
            && job.tokens.starts(with: present.tokens)
        process.cluster.expect(
            isRight, "\(process.name) runs \(job.sequence) with KV of other tokens")
        sequences[job.sequence] = present
        sequences[job.sequence]?.job = job
        sequences[job.sequence]?.lastBlockWasRefused = false
        if job.exportsKV, job.exportedFrom < job.importedTokens {
            sequences[job.sequence]?.exporting = job.exportedFrom..<job.importedTokens
        }
        refused.remove(job.sequence)
    }

    private func checkRoom() {
        process.cluster.expect(
            usedTokens <= plan.kvCapacityTokens,
            "\(process.name) has KV of \(usedTokens) tokens, \(plan.kvCapacityTokens) fit")
    }

    private struct Work {
        var sequence: SequenceID
        var tokens: Int
    }

    private func duration(ofStep tokens: Int) -> Duration {
        .microseconds((3000 + 150 * tokens) * plan.engineSlowness)
    }

    /// Prompt tokens of an iteration: fewer while sequences decode, if its time is limited.
    private var promptTokens: Int {
        guard let stepLimit, sequences.values.contains(where: { !$0.generated.isEmpty }) else {
            return plan.microBatchTokens
        }
        let left = stepLimit - duration(ofStep: 0)
        let perToken = duration(ofStep: 1) - duration(ofStep: 0)
        return min(plan.microBatchTokens, max(StepBudget.fewestTokens, Int(left / perToken)))
    }

    /// One token for each decoding sequence, the rest for prompts in order of arrival.
    private func planWork() -> [Work] {
        var work: [Work] = []
        var left = promptTokens
        for (id, sequence) in sequences.sorted(by: { $0.key.value < $1.key.value }) {
            guard let job = sequence.job, sequence.exporting == nil else { continue }
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
        checkRoom()
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
        ledger.add(computed.count, to: work.sequence)
        sequences[work.sequence] = sequence
        let exported = known[min(max(start, job.exportedFrom), start + work.tokens)...]
            .prefix(upTo: start + work.tokens)
        if job.exportsKV, !exported.isEmpty {
            emit(
                .exported(
                    work.sequence, start: exported.startIndex, tokens: Array(exported)))
        }
        guard sequence.tokens.count == known.count else { return }
        let token = ModelFunction.nextToken(after: known, seed: job.sampling.seed)
        sequence.generated.append(token)
        sequences[work.sequence] = sequence
        var reason: FinishReason?
        if sequence.generated.count == job.maximumNewTokens { reason = .length }
        if token == ModelFunction.endToken { reason = .stop }
        if reason != nil {
            if job.retainsKV {
                sequences[work.sequence] = Sequence(tokens: sequence.tokens, isRetained: true)
            } else {
                remove(work.sequence)
            }
        }
        emit(.other(.token(work.sequence, TokenOutput(token: token), finish: reason)))
    }

    private func fail(_ sequence: SequenceID, _ error: EngineError) {
        remove(sequence)
        emit(.other(.failed(sequence, error)))
    }

    private func remove(_ sequence: SequenceID) {
        sequences[sequence] = nil
        ledger.remove(sequence)
    }
}
