import InferenceEngine
import KVHandOver
import Roles
import ServingTypes

/// One worker: the machine that serves, the planner that serves, and a device in virtual time.
final class SimulatedInstance {
    let description: InstanceDescription
    private let curves: DeviceCurves
    private unowned let run: PolicyRun
    private(set) var machine: WorkerMachine
    private var planner: BatchPlanner
    private var isComputing = false
    private var inbox: [EngineCommand] = []
    private var isTakingCommands = false
    /// When the link has carried all that was exported.
    private var linkFree = MonotonicTime.start
    private var transfers: [AttemptID: TransferPlan] = [:]
    private var secrets: UInt64 = 0
    private(set) var busySeconds = 0.0
    private var progress = EngineProgress(
        steps: 0, stepAge: nil, openSequences: 0, usedKVTokens: 0)
    private var rates = EngineRates()

    init(_ description: InstanceDescription, curves: DeviceCurves, plan: PolicyPlan, run: PolicyRun)
    {
        self.description = description
        self.curves = curves
        self.run = run
        let limits = plan.workerLimits
        machine = WorkerMachine(
            instance: description.instance, role: description.initialRole, limits: limits)
        planner = BatchPlanner(
            limits: BatchPlanner.Limits(
                contextTokens: limits.contextTokens, kvCapacityTokens: limits.kvCapacityTokens,
                vocabularySize: 1 << 30,
                microBatchTokens: max(plan.iterationTokens, plan.maximumOpenSequences),
                maximumSequences: plan.maximumOpenSequences,
                prefillBudgetTokens: plan.mixedPromptTokens))
    }

    var name: InstanceID { description.instance }

    func status() -> InstanceStatus {
        progress.usedKVTokens = planner.usedKVTokens
        progress.openSequences = planner.openSequences
        rates.record(progress)
        return machine.status(progress, rates: rates)
    }

    // MARK: Events

    func received(_ message: ControlMessage, tokens: [TokenID], from gateway: Int) {
        secrets += 1
        perform(
            machine.received(
                message, tokens: tokens, from: LinkID(UInt64(gateway)),
                secret: ReservationSecret(high: 0, low: secrets), now: run.now))
    }

    func tick() { perform(machine.tick(now: run.now)) }

    private func perform(_ actions: [WorkerAction]) {
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
            case .openTransfer(let transfer): transfers[transfer.attempt] = transfer
            case .endTransfer(let end): finishTransfer(end)
            case .abortTransfer(let attempt, let reason): abort(attempt, reason)
            case .sendKV(let message, _): answered(message)
            case .importChunks(let sequence, let attempt, _): importKV(sequence, attempt)
            case .dropChunks(let attempt): run.forgetTransfer(attempt)
            case .drained: break
            }
        }
    }

    // MARK: Engine

    /// Commands are taken between two iterations.
    private func submit(_ command: EngineCommand) {
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
            if case .report(let event) = action { perform(machine.engine(event, now: run.now)) }
        }
    }

    private func iterate() {
        guard !isComputing else { return }
        while let present = planner.nextExport() {
            export(tokens: present.tokens.count)
            follow(planner.exported(present))
        }
        let step = planner.nextStep()
        follow(step.actions)
        guard !step.runs.isEmpty else { return }
        isComputing = true
        let seconds = time(of: step.runs)
        busySeconds += seconds
        note(step, seconds)
        run.after(seconds) { [self] in
            for work in step.runs where work.exports { export(tokens: work.exported.count) }
            let samples = step.runs.filter(\.samples).map { _ in
                Result<BatchPlanner.Sample, EngineError>.success(
                    BatchPlanner.Sample(output: TokenOutput(token: 1), endsGeneration: false))
            }
            follow(planner.complete(step.runs, samples: samples))
            isComputing = false
            takeCommands()
            iterate()
        }
    }

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

    /// A mixed iteration is a prefill of all its tokens, a tenth longer (SplitwiseSim).
    private func time(of runs: [BatchPlanner.Run]) -> Double {
        let prompts = runs.filter { $0.tokens.count > 1 || $0.tokenStart == 0 }
            .map { $0.tokenStart..<$0.tokenStart + $0.tokens.count }
        let decoding = runs.filter { $0.tokens.count == 1 && $0.tokenStart > 0 }
        let context = decoding.reduce(0) { $0 + $1.tokenStart + 1 }
        guard !prompts.isEmpty else { return curves.decodeSeconds(contextTokens: context) }
        let prefill = curves.prefillSeconds(prompts)
        guard !decoding.isEmpty else { return prefill }
        return max(prefill, curves.decodeSeconds(contextTokens: context)) * 1.1
    }

    // MARK: KV

    /// The link is busy with them from when it is free.
    private func export(tokens: Int) {
        let bytes = Double(tokens * curves.kvBytesPerToken)
        let start = max(linkFree, run.now)
        linkFree = start + .nanoseconds(Int64(bytes / curves.linkBytesPerSecond * 1e9))
    }

    /// All blocks are exported: the KV is there when the link has carried the last of them.
    private func finishTransfer(_ end: KVEnd) {
        guard let transfer = transfers[end.attempt] else { return }
        run.after(max(0, (linkFree - run.now).seconds)) { [self] in
            guard transfers[end.attempt] != nil else { return }
            run.handOver(end, transfer, from: name)
        }
    }

    private func abort(_ attempt: AttemptID, _ reason: String) {
        guard let transfer = transfers.removeValue(forKey: attempt) else { return }
        run.abort(attempt, from: name, to: transfer.decodeInstance)
        ended(attempt, KVDone(attempt: attempt, code: .cancelled, reason: reason))
    }

    func ended(_ attempt: AttemptID, _ done: KVDone) {
        transfers[attempt] = nil
        perform(machine.transferEnded(attempt, failure: done.code == nil ? nil : done))
    }

    private func answered(_ message: ControlMessage) {
        guard case .kvDone(let done) = message else { return }
        run.kvDone(done)
    }

    func senderAborted(_ attempt: AttemptID, by sender: InstanceID) {
        perform(machine.kvAborted(attempt, by: sender))
    }

    /// The whole KV lands at once, at the moment its last byte would.
    func land(_ end: KVEnd, _ transfer: TransferPlan, from sender: InstanceID) {
        let link = KVLinkID(1)
        let count = transfer.tokens - transfer.heldTokens
        let offer = KVOffer(
            attempt: end.attempt, secret: transfer.secret, fingerprint: description.fingerprint,
            tokens: transfer.tokens, startToken: transfer.heldTokens, chunkTokens: max(1, count))
        perform(
            machine.kvOffered(
                offer, from: sender, fingerprint: description.fingerprint, on: link, now: run.now))
        let chunk = ChunkFacts(
            tokenStart: transfer.heldTokens, tokenCount: count,
            bytes: count * curves.kvBytesPerToken, checksum: 0, round: 1)
        let (isWanted, actions) = machine.kvBegins(
            chunk, of: end.attempt, from: sender, on: link, now: run.now)
        perform(actions)
        guard isWanted else { return }
        run.landing[end.attempt] = chunk
        perform(machine.kvLanded(chunk, of: end.attempt, on: link, now: run.now).actions)
        var whole = end
        whole.digest = PayloadDigest([chunk]).value
        perform(machine.kvEnded(whole, from: sender, on: link, now: run.now))
    }

    private func importKV(_ sequence: SequenceID, _ attempt: AttemptID) {
        guard let chunk = run.landing.removeValue(forKey: attempt) else {
            preconditionFailure("KV is imported that has not landed")
        }
        submit(
            .importKV(
                sequence,
                KVBlock(
                    tokenStart: chunk.tokenStart, tokenCount: chunk.tokenCount,
                    bytes: run.emptyBuffer, checksum: 0)))
    }
}
