import EngineRuntime
import Foundation
import InferenceEngine
import ServingTypes
import Synchronization
import Testing

/// A device that fails a number of steps, then works.
private final class FaultyBackend: ComputeBackend {
    let description = EngineDescription(
        modelName: "faulty", fingerprint: ModelFingerprint(Array(repeating: 0, count: 32)),
        vocabularySize: 10, contextTokens: 100, kvCapacityTokens: 100, kvBytesPerToken: 1,
        blockOverheadBytesPerToken: 0, blockOverheadBytes: 0, microBatchTokens: 8,
        maximumSequences: 4, device: "none")
    let prefillBudgetTokens = 8
    let finalRunTokens = 0
    private var failuresLeft: Int
    private let failsExports: Bool

    init(failures: Int, failsExports: Bool = false) {
        failuresLeft = failures
        self.failsExports = failsExports
    }

    func begin(_ job: SequenceJob, slot: Int) throws(EngineError) {}

    func compute(
        _ runs: [BatchPlanner.Run]
    ) throws(EngineError) -> [Result<BatchPlanner.Sample, EngineError>] {
        failuresLeft -= 1
        if failuresLeft >= 0 { throw .computeFailed(code: -3) }
        return runs.filter(\.samples).map { run in
            .success(
                BatchPlanner.Sample(
                    output: TokenOutput(token: TokenID(run.tokens.count)), endsGeneration: false))
        }
    }

    func exportKV(slot: Int, tokenStart: Int, tokenCount: Int) throws(EngineError) -> KVBlock {
        if failsExports { throw .computeFailed(code: -101) }
        return KVBlock(
            tokenStart: tokenStart, tokenCount: tokenCount,
            checksumming: KVBuffer(capacityBytes: 1))
    }

    func importKV(_ block: KVBlock, slot: Int) throws(EngineError) {
        throw .blockRefused(reason: "always")
    }

    func retain(slot: Int) {}

    func fork(slot: Int, from source: Int, tokens: Int) throws(EngineError) {
        if tokens < 3 { throw .computeFailed(code: -102) }
    }

    func remove(slot: Int) {}
}

@Suite struct EngineThreadTests {
    private func thread(
        _ recorder: EngineRecorder, failures: Int = 0, failsExports: Bool = false
    ) throws -> EngineThread {
        try EngineThread(name: "test-engine", onEvent: recorder.sink) { _ in
            FaultyBackend(failures: failures, failsExports: failsExports)
        }
    }

    private func job(_ id: UInt64, exportsKV: Bool = false) -> SequenceJob {
        SequenceJob(
            sequence: SequenceID(id), tokens: [1, 2, 3], sampling: SamplingParameters(),
            maximumNewTokens: 1, exportsKV: exportsKV)
    }

    @Test func `a failed iteration fails its sequences only`() async throws {
        var recorder = EngineRecorder()
        let thread = try thread(recorder, failures: 2)
        for id in UInt64(1)...3 {
            thread.submit(.run(job(id)))
            let outcome = await recorder.outcome(of: SequenceID(id))
            #expect(outcome.error == (id < 3 ? .computeFailed(code: -3) : nil))
        }
        await thread.shutdown()
    }

    @Test func `a device that fails again and again is lost`() async throws {
        let isLost = Mutex(false)
        var recorder = EngineRecorder()
        let sink = recorder.sink
        let thread = try EngineThread(
            name: "test-engine",
            onEvent: { event in
                if case .engineLost(.computeFailed(code: -3)) = event {
                    isLost.withLock { $0 = true }
                }
                sink(event)
            }
        ) { _ in FaultyBackend(failures: .max) }
        for id in UInt64(1)...3 {
            thread.submit(.run(job(id)))
            #expect(
                await recorder.outcome(of: SequenceID(id)).error == .computeFailed(code: -3))
        }
        await thread.shutdown()
        #expect(isLost.withLock { $0 })
        thread.submit(.run(job(4)))
    }

    @Test func `a failed export closes its sequence, a failed import opens none`() async throws {
        var recorder = EngineRecorder()
        let thread = try thread(recorder, failsExports: true)
        thread.submit(.run(job(1, exportsKV: true)))
        thread.submit(.run(job(2)))
        let block = KVBlock(
            tokenStart: 0, tokenCount: 2, checksumming: KVBuffer(capacityBytes: 1))
        thread.submit(.importKV(SequenceID(3), block))
        let first = await recorder.outcome(of: SequenceID(1))
        #expect(first.error == .computeFailed(code: -101))
        #expect(first.outputs.isEmpty)
        #expect(await recorder.outcome(of: SequenceID(2)).tokens == [3])
        let third = await recorder.outcome(of: SequenceID(3)) { !$0.refusals.isEmpty }
        #expect(third.refusals == [Refusal(expectedToken: 0, reason: "always")])
        #expect(third.importedTokens == 0 && !third.isClosed)
        #expect(thread.progress.openSequences == 0)
        #expect(thread.progress.usedKVTokens == 0)
        await thread.shutdown()
    }

    @Test func `a fork that the device can't make is refused, its source stays`() async throws {
        var recorder = EngineRecorder()
        let thread = try thread(recorder)
        var retained = job(1)
        retained.retainsKV = true
        thread.submit(.run(retained))
        #expect(await recorder.outcome(of: SequenceID(1)).finish == .length)
        #expect(thread.progress.usedKVTokens == 3)
        thread.submit(.fork(SequenceID(2), from: SequenceID(1), tokens: 2))
        let second = await recorder.outcome(of: SequenceID(2)) { !$0.refusals.isEmpty }
        #expect(second.refusals.map(\.expectedToken) == [0])
        #expect(second.importedTokens == 0)
        #expect(thread.progress.usedKVTokens == 3)
        #expect(thread.progress.openSequences == 1)
        thread.submit(.fork(SequenceID(3), from: SequenceID(1), tokens: 3))
        _ = await recorder.outcome(of: SequenceID(3)) { $0.importedTokens == 3 }
        #expect(thread.progress.usedKVTokens == 3)
        #expect(thread.progress.openSequences == 2)
        await thread.shutdown()
    }

    @Test func `a retained sequence is exported in blocks, a failure closes it`() async throws {
        for fails in [false, true] {
            var recorder = EngineRecorder()
            let thread = try thread(recorder, failsExports: fails)
            var retained = job(1)
            retained.tokens = Array(repeating: 1, count: 20)
            retained.retainsKV = true
            thread.submit(.run(retained))
            _ = await recorder.outcome(of: SequenceID(1))
            thread.submit(.export(SequenceID(1), from: 1))
            let outcome = await recorder.outcome(of: SequenceID(1)) {
                $0.order.last == "e" || $0.error != nil
            }
            #expect(outcome.order == (fails ? "t" : "tbbbe"))
            #expect(outcome.error == (fails ? .computeFailed(code: -101) : nil))
            #expect(outcome.blocks.map(\.tokenStart) == (fails ? [] : [1, 9, 17]))
            #expect(thread.progress.openSequences == (fails ? 0 : 1))
            await thread.shutdown()
        }
    }

    @Test func `progress tells prompts and decoding apart`() async throws {
        var recorder = EngineRecorder()
        let thread = try thread(recorder)
        var long = job(1)
        long.tokens = Array(repeating: 1, count: 20)
        long.maximumNewTokens = 4
        thread.submit(.run(long))
        _ = await recorder.outcome(of: SequenceID(1))
        await thread.shutdown()
        let progress = thread.progress
        #expect(progress.prefillTokens == 20)
        #expect(progress.decodeSteps == 3)
        #expect(progress.prefillDuration > .zero && progress.decodeDuration > .zero)
        #expect(
            progress.prefillDuration + progress.decodeDuration == progress.computeDuration)
    }

    @Test func `a backend that can't be made gives its error`() {
        #expect(throws: EngineError.contextNotCreated(reason: "no memory")) {
            _ = try EngineThread(name: "test-engine", onEvent: { _ in }) {
                (_) throws(EngineError) in
                throw .contextNotCreated(reason: "no memory")
            }
        }
    }

    @Test func `events come on a thread with the engine's name`() async throws {
        let name = Mutex("")
        var recorder = EngineRecorder()
        let sink = recorder.sink
        let thread = try EngineThread(
            name: "test-engine",
            onEvent: { event in
                let comm = try? String(contentsOfFile: "/proc/thread-self/comm", encoding: .utf8)
                name.withLock { $0 = comm ?? Thread.current.name ?? "" }
                sink(event)
            }
        ) { _ in FaultyBackend(failures: 0) }
        thread.submit(.run(job(1)))
        _ = await recorder.outcome(of: SequenceID(1))
        #expect(name.withLock { $0 }.hasPrefix("test-engine"))
        await thread.shutdown()
    }

    @Test func `a thread that is dropped ends by itself`() async throws {
        let recorder = EngineRecorder()
        weak var dropped: EngineThread?
        do {
            let thread = try thread(recorder)
            dropped = thread
        }
        #expect(dropped == nil)
    }

    @Test func `commands from many threads all arrive`() async throws {
        var recorder = EngineRecorder()
        let thread = try thread(recorder)
        await withTaskGroup(of: Void.self) { group in
            for task in UInt64(0)..<8 {
                group.addTask {
                    for index in UInt64(0)..<100 {
                        thread.submit(.run(job(task * 100 + index)))
                    }
                }
            }
        }
        for id in UInt64(0)..<800 {
            let outcome = await recorder.outcome(of: SequenceID(id))
            #expect(outcome.isClosed)
        }
        #expect(thread.progress.stepAge == nil || thread.progress.steps > 0)
        await thread.shutdown()
    }
}
