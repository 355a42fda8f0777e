import InferenceEngine
import ServingTypes

/// What the engine's thread does: take commands, plan, compute, report.
final class EngineLoop {
    private var planner: BatchPlanner
    private let backend: any ComputeBackend
    private let shared: SharedState
    private let onEvent: EngineEventSink
    private var failedSteps = 0

    init(backend: any ComputeBackend, shared: SharedState, onEvent: @escaping EngineEventSink) {
        let description = backend.description
        planner = BatchPlanner(
            limits: BatchPlanner.Limits(
                contextTokens: description.contextTokens,
                kvCapacityTokens: description.kvCapacityTokens,
                vocabularySize: description.vocabularySize,
                microBatchTokens: description.microBatchTokens,
                maximumSequences: description.maximumSequences,
                prefillBudgetTokens: backend.prefillBudgetTokens,
                finalRunTokens: backend.finalRunTokens))
        self.backend = backend
        self.shared = shared
        self.onEvent = onEvent
    }

    /// Returns when the engine is stopped or its device is lost.
    func run() {
        var isIdle = true
        while !shared.stop.isSet, failedSteps < Limits.failedStepsInARow {
            let commands = shared.takeCommands(
                limit: Limits.commandsBetweenSteps, waits: isIdle)
            for command in commands { perform(planner.receive(command), of: command) }
            if planner.hasExports { exportPresentKV() }
            let step = planner.nextStep()
            perform(step.actions)
            isIdle = step.runs.isEmpty && !planner.hasExports
            if !step.runs.isEmpty { compute(step) }
        }
        // A stop that comes in the same moment does not mend the device.
        end(isLost: failedSteps >= Limits.failedStepsInARow)
    }

    /// Tells all sequences, those still waiting in the queue as well.
    private func end(isLost: Bool) {
        let error = isLost ? EngineError.computeFailed(code: failureCode) : .shutDown
        let unstarted = shared.closeQueue().compactMap(\.sequence).filter { !planner.isOpen($0) }
        perform(planner.failAll(error))
        for sequence in Set(unstarted) { onEvent(.failed(sequence, error)) }
        if isLost { onEvent(.engineLost(error)) }
    }

    private var failureCode: Int32 = 0

    /// A part of the KV that has to leave, so that the sequences that compute don't wait for all.
    private func exportPresentKV() {
        shared.stepBegins()
        defer { shared.stepEnds() }
        for _ in 0..<planner.exportsPerStep {
            guard !shared.stop.isSet, let export = planner.nextExport() else { return }
            do throws(EngineError) {
                let block = try exportKV(slot: export.slot, tokens: export.tokens)
                onEvent(.exported(export.sequence, block))
                perform(planner.exported(export))
            } catch {
                perform(planner.fail(export.sequence, error))
            }
        }
    }

    private func compute(_ step: BatchPlanner.Step) {
        let runs = step.runs
        shared.stepBegins()
        defer { shared.stepEnds() }
        do throws(EngineError) {
            let start = ContinuousClock.now
            let samples = try backend.compute(runs)
            let duration = ContinuousClock.now - start
            shared.addCompute(duration: duration, of: step)
            planner.measured(step, duration: duration)
            failedSteps = 0
            var failures: [SequenceID: EngineError] = [:]
            for run in runs where run.exports {
                do throws(EngineError) {
                    let block = try exportKV(slot: run.slot, tokens: run.exported)
                    onEvent(.exported(run.sequence, block))
                } catch {
                    failures[run.sequence] = error
                }
            }
            perform(planner.complete(runs, samples: samples, failures: failures))
        } catch {
            // An aborted step is no failure: the loop ends and reports the shutdown.
            guard !shared.stop.isSet else { return }
            failedSteps += 1
            if case .computeFailed(let code) = error { failureCode = code }
            for run in runs { perform(planner.fail(run.sequence, error)) }
        }
    }

    private func exportKV(slot: Int, tokens: Range<Int>) throws(EngineError) -> KVBlock {
        let start = ContinuousClock.now
        let block = try backend.exportKV(
            slot: slot, tokenStart: tokens.lowerBound, tokenCount: tokens.count)
        shared.addExport(bytes: block.bytes.usedBytes, duration: .now - start)
        return block
    }

    private func importKV(_ block: KVBlock, slot: Int) throws(EngineError) {
        let start = ContinuousClock.now
        var importedBytes = 0
        defer { shared.addImport(bytes: importedBytes, duration: .now - start) }
        try backend.importKV(block, slot: slot)
        importedBytes = block.bytes.usedBytes
    }

    /// - Parameter command: whose failure ends the list.
    private func perform(_ actions: [BatchPlanner.Action], of command: EngineCommand? = nil) {
        guard !actions.isEmpty else { return }
        publish()
        do throws(EngineError) {
            for action in actions {
                switch action {
                case .importBlock(let block, let slot): try importKV(block, slot: slot)
                case .fork(let slot, let source, let tokens):
                    try backend.fork(slot: slot, from: source, tokens: tokens)
                case .begin(let job, let slot): try backend.begin(job, slot: slot)
                case .retain(let slot): backend.retain(slot: slot)
                case .remove(let slot): backend.remove(slot: slot)
                case .report(let event): onEvent(event)
                }
            }
        } catch {
            guard let command else { return }
            perform(planner.commandFailed(command, error))
        }
    }

    private func publish() {
        shared.publish(
            openSequences: planner.openSequences, usedKVTokens: planner.usedKVTokens)
    }
}

extension EngineCommand {
    /// Nil for a command that is not about a sequence.
    fileprivate var sequence: SequenceID? {
        switch self {
        case .importKV(let id, _), .fork(let id, _, _), .export(let id, _): id
        case .limitStep: nil
        case .run(let job): job.sequence
        case .hold(let id), .cancel(let id): id
        }
    }
}
