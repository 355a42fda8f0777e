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
                prefillBudgetTokens: backend.prefillBudgetTokens))
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
            for command in commands { perform(planner.receive(command), for: command.sequence) }
            let step = planner.nextStep()
            perform(step.actions, for: nil)
            isIdle = step.runs.isEmpty
            if !isIdle { compute(step.runs) }
        }
        end(isLost: !shared.stop.isSet)
    }

    /// Tells all sequences, those still waiting in the queue as well.
    private func end(isLost: Bool) {
        let error = isLost ? EngineError.computeFailed(code: failureCode) : .shutDown
        let unstarted = shared.closeQueue().map(\.sequence).filter { !planner.isOpen($0) }
        perform(planner.failAll(error), for: nil)
        for sequence in Set(unstarted) { onEvent(.failed(sequence, error)) }
        if isLost { onEvent(.engineLost(error)) }
    }

    private var failureCode: Int32 = 0

    private func compute(_ runs: [BatchPlanner.Run]) {
        shared.stepBegins()
        defer { shared.stepEnds() }
        do throws(EngineError) {
            let samples = try backend.compute(runs)
            failedSteps = 0
            var failures: [SequenceID: EngineError] = [:]
            for run in runs where run.exports {
                do throws(EngineError) {
                    let block = try backend.exportKV(
                        slot: run.slot, tokenStart: run.tokenStart, tokenCount: run.tokens.count)
                    onEvent(.exported(run.sequence, block))
                } catch {
                    failures[run.sequence] = error
                }
            }
            perform(planner.complete(runs, samples: samples, failures: failures), for: nil)
        } catch {
            // An aborted step is no failure: the loop ends and reports the shutdown.
            guard !shared.stop.isSet else { return }
            failedSteps += 1
            if case .computeFailed(let code) = error { failureCode = code }
            for run in runs { perform(planner.fail(run.sequence, error), for: nil) }
        }
    }

    /// - Parameter sequence: whose failure ends the list.
    private func perform(_ actions: [BatchPlanner.Action], for sequence: SequenceID?) {
        guard !actions.isEmpty else { return }
        publish()
        do throws(EngineError) {
            for action in actions {
                switch action {
                case .importBlock(let block, let slot): try backend.importKV(block, slot: slot)
                case .begin(let job, let slot): try backend.begin(job, slot: slot)
                case .remove(let slot): backend.remove(slot: slot)
                case .report(let event): onEvent(event)
                }
            }
        } catch {
            guard let sequence else { return }
            perform(planner.fail(sequence, error), for: nil)
        }
    }

    private func publish() {
        shared.publish(
            openSequences: planner.openSequences, usedKVTokens: planner.usedKVTokens)
    }
}

extension EngineCommand {
    fileprivate var sequence: SequenceID {
        switch self {
        case .importKV(let id, _): id
        case .run(let job): job.sequence
        case .cancel(let id): id
        }
    }
}
