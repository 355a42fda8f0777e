import DeviceProfile
import EngineRuntime
import Foundation
import InferenceEngine
import ServingTypes

/// Sleeps for as long as a device would compute, and makes tokens and KV from the history.
final class SimulatedBackend: ComputeBackend {
    private struct Slot {
        /// After each token whose KV is there; the first is the empty history.
        var histories = [TokenHistory.start]
        /// The tokens whose KV is there.
        var tokens: [TokenID] = []
        var sampling = SamplingParameters()
        var outputIndex = 0
    }

    let description: EngineDescription
    let prefillBudgetTokens: Int
    let finalRunTokens: Int
    private let settings: SimulatedEngine.Settings
    private let stop: StopSignal
    private let kv: SimulatedKV
    private let pool: KVBufferPool
    private var slots: [Slot]

    init(settings: SimulatedEngine.Settings, stop: StopSignal) throws(EngineError) {
        guard settings.kvBytesPerToken >= SimulatedKV.minimumBytesPerToken else {
            throw .contextNotCreated(
                reason: "a simulated token needs \(SimulatedKV.minimumBytesPerToken) KV bytes")
        }
        guard settings.maximumSequences >= 1, settings.contextTokens >= 1,
            settings.microBatchTokens >= settings.maximumSequences,
            (settings.prefillBudgetTokens ?? 1) >= 1, settings.finalRunTokens >= 0,
            settings.prefillTokensPerSecond > 0
        else { throw .contextNotCreated(reason: "the settings don't fit together") }
        description = EngineDescription(
            modelName: settings.modelName, fingerprint: settings.fingerprint,
            vocabularySize: ByteTokenizer.vocabulary,
            contextTokens: min(settings.contextTokens, settings.kvCapacityTokens),
            kvCapacityTokens: settings.kvCapacityTokens,
            kvBytesPerToken: settings.kvBytesPerToken, blockOverheadBytesPerToken: 0,
            blockOverheadBytes: SimulatedKV.headerBytes,
            microBatchTokens: settings.microBatchTokens,
            maximumSequences: settings.maximumSequences, device: settings.device)
        prefillBudgetTokens = settings.prefillBudgetTokens ?? settings.microBatchTokens
        finalRunTokens = settings.finalRunTokens
        self.settings = settings
        self.stop = stop
        kv = SimulatedKV(bytesPerToken: settings.kvBytesPerToken)
        pool = KVBufferPool(
            maximumKeptBytes: settings.keptBufferBytes, source: settings.kvMemory)
        slots = Array(repeating: Slot(), count: settings.maximumSequences)
    }

    func begin(_ job: SequenceJob, slot: Int) throws(EngineError) {
        var history = TokenHistory.start
        for token in job.tokens.prefix(job.importedTokens) { history = history.adding(token) }
        guard slots[slot].histories.last == history else {
            throw .blockRefused(reason: "the KV belongs to other tokens")
        }
        slots[slot].sampling = job.sampling
        slots[slot].outputIndex = job.outputTokens
    }

    func compute(
        _ runs: [BatchPlanner.Run]
    ) throws(EngineError) -> [Result<BatchPlanner.Sample, EngineError>] {
        stop.sleep(for: duration(of: runs))
        if stop.isSet { throw .shutDown }
        var samples: [Result<BatchPlanner.Sample, EngineError>] = []
        for run in runs {
            var history = slots[run.slot].histories[run.tokenStart]
            for token in run.tokens {
                history = history.adding(token)
                slots[run.slot].histories.append(history)
            }
            slots[run.slot].tokens += run.tokens
            if run.samples { samples.append(.success(sample(&slots[run.slot], history))) }
        }
        return samples
    }

    /// Modelled time of an iteration.
    private func duration(of runs: [BatchPlanner.Run]) -> Duration {
        let decoding = runs.filter { $0.tokens.count == 1 && $0.tokenStart > 0 }
        let decodingContext = decoding.reduce(0) { $0 + $1.tokenStart }
        if let model = settings.model {
            let prompts = runs.filter { $0.tokens.count > 1 || $0.tokenStart == 0 }
            let seconds = model.mixedSeconds(
                prompts.map { $0.tokenStart..<($0.tokenStart + $0.tokens.count) },
                sequences: decoding.count, contextTokens: decodingContext)
            return .seconds(seconds / settings.modelSpeed)
        }
        let promptTokens = runs.reduce(0) { $0 + $1.tokens.count } - decoding.count
        var time = Duration.seconds(Double(promptTokens) / settings.prefillTokensPerSecond)
        if !decoding.isEmpty {
            time += settings.decodeStep + settings.decodeStepPerSequence * decoding.count
            time += settings.decodeStepPerThousandTokens * (Double(decodingContext) / 1000)
        }
        return time
    }

    private func sample(_ slot: inout Slot, _ history: TokenHistory) -> BatchPlanner.Sample {
        let key = mixed(history.value ^ slot.sampling.seed)
        let chance = uniformNumber(seed: key, outputIndex: slot.outputIndex)
        slot.outputIndex += 1
        let ends = chance < settings.endProbability
        let letters = ByteTokenizer.writtenBytes
        let token =
            ends
            ? ByteTokenizer.endOfGeneration
            : TokenID(letters[Int(key % UInt64(letters.count))])
        var output = TokenOutput(token: token)
        if let count = slot.sampling.topLogprobs {
            let logprob = Float(
                log(ends ? settings.endProbability : 1 / Double(letters.count)))
            output.logprob = logprob
            if count > 0 { output.alternatives = [TokenLogprob(token: token, logprob: logprob)] }
        }
        return BatchPlanner.Sample(output: output, endsGeneration: ends)
    }

    func exportKV(
        slot: Int, tokenStart: Int, tokenCount: Int
    ) throws(EngineError) -> KVBlock {
        let state = slots[slot]
        let end = tokenStart + tokenCount
        precondition(end <= state.tokens.count, "only KV that is there is exported")
        let size = kv.blockBytes(tokens: tokenCount)
        let buffer = pool.buffer(capacityBytes: size)
        unsafe buffer.withWritableBytes { bytes in
            unsafe kv.write(
                state.tokens[tokenStart..<end], from: tokenStart,
                after: state.histories[tokenStart], into: bytes)
        }
        buffer.setUsedBytes(size)
        return KVBlock(tokenStart: tokenStart, tokenCount: tokenCount, checksumming: buffer)
    }

    func importKV(_ block: KVBlock, slot: Int) throws(EngineError) {
        try block.checkBytes()
        let before = slots[slot].histories[block.tokenStart]
        let contents = unsafe block.bytes.withBytes { bytes in
            unsafe kv.contents(
                bytes, tokenStart: block.tokenStart, tokenCount: block.tokenCount,
                following: before)
        }
        guard let contents else { throw .blockRefused(reason: "the block is damaged") }
        slots[slot].histories += contents.histories
        slots[slot].tokens += contents.tokens
    }

    func retain(slot: Int) {
        slots[slot] = Slot(histories: slots[slot].histories, tokens: slots[slot].tokens)
    }

    func fork(slot: Int, from source: Int, tokens: Int) throws(EngineError) {
        slots[slot] = Slot(
            histories: Array(slots[source].histories.prefix(tokens + 1)),
            tokens: Array(slots[source].tokens.prefix(tokens)))
    }

    func remove(slot: Int) { slots[slot] = Slot() }
}

extension SimulatedEngine.Settings {
    /// The same for all simulated engines that can read each other's KV.
    var fingerprint: ModelFingerprint {
        var history = TokenHistory.start
        let facts =
            "\(modelName) \(kvBytesPerToken) \(contextTokens) \(endProbability) \(modelPath)"
        for byte in facts.utf8 {
            history = history.adding(TokenID(byte))
        }
        let words = (0..<4).map { mixed(history.value &+ $0) }
        return ModelFingerprint(
            words.flatMap { word in
                (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * UInt64($0))) }
            })
    }
}
