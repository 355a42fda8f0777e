import DeviceProfile
import InferenceEngine
import KVHandOver
import Roles
import ServingTypes

/// One worker: the machine that serves, the planner that serves, and a device in virtual time.
final class SimulatedInstance {
    let description: InstanceDescription
    let plan: MachinePlan
    unowned let run: ServingRun
    private(set) var machine: WorkerMachine
    private var planner: BatchPlanner
    private var isComputing = false
    private var inbox: [EngineCommand] = []
    private var isTakingCommands = false
    /// Its process has ended; what it was still to do never happens.
    private(set) var isLost = false
    /// Times as long as the device takes.
    var slowdown = 1.0
    /// Copies of KV that the next iteration waits for.
    private var copySeconds = 0.0
    var outward: SimulatedLink
    var inward: SimulatedLink
    var transfers: [AttemptID: OpenTransfer] = [:]
    private var secrets: UInt64 = 0
    private(set) var busySeconds = 0.0
    private var progress = EngineProgress(
        steps: 0, stepAge: nil, openSequences: 0, usedKVTokens: 0)
    private var rates = EngineRates()
    /// Something happened since the last reading.
    var isChanged = false

    /// KV on its way to another machine.
    struct OpenTransfer {
        var plan: TransferPlan
        /// When all that was exported so far has landed.
        var landed = MonotonicTime.start
    }

    init(_ description: InstanceDescription, machine: MachinePlan, run: ServingRun) {
        self.description = description
        self.plan = machine
        self.run = run
        let limits = run.plan.workerLimits(machine)
        let link = machine.linkBytesPerSecond ?? machine.model.linkBytesPerSecond
        outward = SimulatedLink(bytesPerSecond: link)
        inward = SimulatedLink(bytesPerSecond: link)
        self.machine = WorkerMachine(
            instance: description.instance, role: description.initialRole, limits: limits)
        let sequences = run.plan.maximumOpenSequences(limits)
        planner = BatchPlanner(
            limits: BatchPlanner.Limits(
                contextTokens: limits.contextTokens, kvCapacityTokens: limits.kvCapacityTokens,
                vocabularySize: 1 << 30,
                microBatchTokens: max(run.plan.iterationTokens, sequences),
                maximumSequences: sequences, prefillBudgetTokens: run.plan.mixedPromptTokens,
                finalRunTokens: run.plan.finalRunTokens))
    }

    var name: InstanceID { description.instance }
    /// Part of the KV room that is taken.
    var kvUsed: Double {
        Double(planner.usedKVTokens) / Double(max(1, planner.limits.kvCapacityTokens))
    }

    func status() -> InstanceStatus {
        progress.usedKVTokens = planner.usedKVTokens
        progress.openSequences = planner.openSequences
        rates.record(progress)
        return machine.status(progress, rates: rates)
    }

    func end() { isLost = true }

    // MARK: Events

    func received(_ message: ControlMessage, tokens: [TokenID], from gateway: Int) {
        guard !isLost else { return }
        secrets += 1
        perform(
            machine.received(
                message, tokens: tokens, from: LinkID(UInt64(gateway)),
                secret: ReservationSecret(high: 0, low: secrets), now: run.now))
    }

    /// Lets the machine take in an event of its transfers.
    func change(_ event: (inout WorkerMachine) -> [WorkerAction]) {
        guard !isLost else { return }
        perform(event(&machine))
    }

    private func perform(_ actions: [WorkerAction]) {
        noteChange()
        for action in actions {
            switch action {
            case .send(let message, let link):
                run.toGateway(message, from: name, to: Int(link.value))
            case .broadcast(let message): run.toGateways(message, from: name)
            case .run(let job): submit(.run(job))
            case .cancelSequence(let sequence): submit(.cancel(sequence))
            case .holdSequence(let sequence): submit(.hold(sequence))
            case .fork(let new, let old, let tokens):
                submit(.fork(new, from: old, tokens: tokens))
            case .export(let sequence, let start): submit(.export(sequence, from: start))
            case .limitStep(let limit): submit(.limitStep(limit))
            case .roleChanged, .loadModel: break
            case .openTransfer(let transfer):
                transfers[transfer.attempt] = OpenTransfer(plan: transfer)
            case .endTransfer(let end): finishTransfer(end)
            case .abortTransfer(let attempt, let reason): abort(attempt, reason)
            case .sendKV(let message, _): run.answered(message)
            case .importChunks(let sequence, let attempt, _): importKV(sequence, attempt)
            case .dropChunks(let attempt): run.forgetTransfer(attempt)
            case .drained: break
            }
        }
    }

    private func noteChange() {
        guard !isChanged else { return }
        isChanged = true
        run.noteChange(of: self)
    }

    // MARK: Engine

    /// Commands are taken between two iterations.
    func submit(_ command: EngineCommand) {
        inbox.append(command)
        guard !isComputing, !isTakingCommands else { return }
        takeCommands()
        iterate()
    }

    private func takeCommands() {
        isTakingCommands = true
        defer { isTakingCommands = false }
        while !inbox.isEmpty {
            let commands = inbox
            inbox = []
            for command in commands { follow(planner.receive(command)) }
        }
    }

    private func follow(_ actions: [BatchPlanner.Action]) {
        for action in actions {
            switch action {
            case .report(let event): perform(machine.engine(event, now: run.now))
            case .importBlock(let block, _):
                copySeconds += seconds(block.tokenCount, at: plan.model.kvImportBytesPerSecond)
            default: break
            }
        }
    }

    private func seconds(_ tokens: Int, at bytesPerSecond: Double) -> Double {
        Double(tokens * plan.model.kvBytesPerToken) / bytesPerSecond
    }

    private func iterate() {
        guard !isComputing, !isLost else { return }
        var blocks = 0
        while blocks < planner.exportsPerStep, let present = planner.nextExport() {
            blocks += 1
            copySeconds += seconds(present.tokens.count, at: plan.model.kvExportBytesPerSecond)
            leave(present.sequence, tokens: present.tokens.count)
            follow(planner.exported(present))
        }
        let step = planner.nextStep()
        follow(step.actions)
        guard !step.runs.isEmpty || planner.hasExports else { return }
        isComputing = true
        let exported = step.runs.reduce(0) { $0 + $1.exported.count }
        let computing = step.runs.isEmpty ? 0 : time(of: step) * slowdown
        let seconds =
            computing + copySeconds + seconds(exported, at: plan.model.kvExportBytesPerSecond)
        copySeconds = 0
        noteChange()
        compute(step, seconds: seconds) { [self] stretch in
            guard !isLost else { return }
            busySeconds += seconds * stretch
            if !step.runs.isEmpty { note(step, computing * stretch) }
            complete(step)
        }
    }

    /// Lets the time of an iteration pass; `end` is told how many times as long it took because of
    /// others on the host.
    private func compute(
        _ step: BatchPlanner.Step, seconds: Double, end: @escaping (Double) -> Void
    ) {
        guard let host = plan.host else { return run.after(seconds) { end(1) } }
        let contention = run.plan.contention
        let begin = run.now.seconds
        run.host(host).begin(
            seconds: seconds,
            factor: step.promptTokens > 0 ? contention.prefill : contention.decode
        ) { [run] in
            end(seconds > 0 ? (run.now.seconds - begin) / seconds : 1)
        }
    }

    private func complete(_ step: BatchPlanner.Step) {
        for work in step.runs where work.exports {
            leave(work.sequence, tokens: work.exported.count)
        }
        let samples = step.runs.filter(\.samples).map { _ in Self.sample }
        follow(planner.complete(step.runs, samples: samples))
        isComputing = false
        takeCommands()
        iterate()
    }

    private static let sample = Result<BatchPlanner.Sample, EngineError>.success(
        BatchPlanner.Sample(output: TokenOutput(token: 1), endsGeneration: false))

    private func note(_ step: BatchPlanner.Step, _ seconds: Double) {
        let duration = Duration.nanoseconds(Int64(seconds * 1e9))
        planner.measured(step, duration: duration)
        if step.decodingSequences > 0 {
            progress.decodeSteps += 1
            progress.decodeDuration += duration
        } else {
            progress.prefillTokens += step.promptTokens
            progress.prefillDuration += duration
        }
    }

    private func time(of step: BatchPlanner.Step) -> Double {
        var context = 0
        var sequences = 0
        var prompts: [Range<Int>] = []
        for run in step.runs {
            if run.tokens.count == 1 && run.tokenStart > 0 {
                sequences += 1
                context += run.tokenStart + 1
            } else {
                prompts.append(run.tokenStart..<run.tokenStart + run.tokens.count)
            }
        }
        if prompts.isEmpty {
            return plan.model.decodeSeconds(sequences: sequences, contextTokens: context)
        }
        return sequences == 0
            ? plan.model.prefillSeconds(prompts)
            : plan.model.mixedSeconds(prompts, sequences: sequences, contextTokens: context)
    }
}
