import CLlama
import EngineRuntime
import InferenceEngine
import ServingTypes

/// One model on its devices, with the KV of all sequences; lives on the engine's thread.
final class LlamaBackend: ComputeBackend {
    let description: EngineDescription
    let prefillBudgetTokens: Int
    let finalRunTokens: Int
    let kvShape: KVShape?
    let windowUse: LlamaEngine.WindowUse?
    var parameterCount: Int { model.parameterCount }
    private let model: LlamaModel
    private let context: LlamaContext
    let layout: LlamaKVLayout
    /// Layers with a window keep no more than it needs.
    private let keepsWindowOnly: Bool
    private let pool: KVBufferPool
    private let scratch: SamplingScratch
    private var samplers: [LlamaSampler?]

    init(settings: LlamaEngine.Settings, stop: StopSignal) throws(EngineError) {
        try settings.check()
        LlamaLog.prepareLibrary()
        let file = try GGUFFile(path: settings.modelPath)
        // Milliseconds, before the weights take minutes.
        try LlamaModel(path: settings.modelPath, vocabularyOnly: true).checkArchitecture()
        model = try LlamaModel(
            path: settings.modelPath, vocabularyOnly: false, gpuLayers: settings.gpuLayers)
        context = try LlamaContext(model: model, settings: settings, stop: stop)
        layout = try context.learnLayout()
        windowUse = layout.windowUse(settings: settings)
        keepsWindowOnly = layout.hasWindow && settings.windowKV == .window
        let kvBytesPerToken = layout.tokenBytes - layout.cellBytes
        kvShape = model.kvShape(settings.kvType).flatMap {
            $0.bytesPerToken == kvBytesPerToken ? $0 : nil
        }
        let settingsText =
            "pdserve-kv \(LlamaKVLayout.version) \(settings.kvType) flash-attention \(layout) "
            + model.contextTraits(of: context, file: file)
        guard let fingerprint = file.fingerprint(layout: settingsText) else {
            throw .modelNotLoaded(path: settings.modelPath, reason: "reading it again failed")
        }
        let ownLimit = model.contextTokens > 0 ? model.contextTokens : settings.kvCapacityTokens
        description = EngineDescription(
            modelName: settings.modelName ?? model.name, fingerprint: fingerprint,
            vocabularySize: model.vocabularySize,
            contextTokens: min(
                ownLimit, settings.contextTokens ?? ownLimit, settings.kvCapacityTokens),
            kvCapacityTokens: settings.kvCapacityTokens, kvBytesPerToken: kvBytesPerToken,
            blockOverheadBytesPerToken: layout.cellBytes,
            blockOverheadBytes: layout.fixedBytes + LlamaKVLayout.headerBytes,
            microBatchTokens: settings.microBatchTokens,
            maximumSequences: settings.maximumSequences,
            device: describeDevices(usesAccelerators: settings.gpuLayers != 0))
        prefillBudgetTokens = settings.prefillBudgetTokens ?? settings.microBatchTokens
        finalRunTokens = settings.finalRunTokens
        pool = KVBufferPool(
            maximumKeptBytes: settings.keptBufferBytes, source: settings.kvMemory)
        scratch = SamplingScratch(vocabularySize: model.vocabularySize)
        samplers = Array(repeating: nil, count: settings.maximumSequences)
    }

    func begin(_ job: SequenceJob, slot: Int) throws(EngineError) {
        // Blocks may come without cells of windows that have moved on; the last ones never do.
        try checkWindow(slot: slot, tokens: job.importedTokens)
        samplers[slot] = LlamaSampler(
            job: job, model: model, contextTokens: description.contextTokens, scratch: scratch)
    }

    func compute(
        _ runs: [BatchPlanner.Run]
    ) throws(EngineError) -> [Result<BatchPlanner.Sample, EngineError>] {
        context.clearBatch()
        var rows: [(slot: Int, row: Int32)] = []
        for run in runs {
            for (offset, token) in run.tokens.enumerated() {
                let samples = run.samples && offset == run.tokens.count - 1
                let row = context.add(
                    token: token, position: run.tokenStart + offset, sequence: run.slot,
                    wantsLogits: samples)
                if samples { rows.append((run.slot, row)) }
            }
        }
        try context.compute()
        return rows.map { slot, row in sample(slot: slot, row: row) }
    }

    private func sample(slot: Int, row: Int32) -> Result<BatchPlanner.Sample, EngineError> {
        guard let sampler = samplers[slot],
            let result = unsafe context.withLogits(row: row, { unsafe sampler.sample($0) })
        else { return .failure(.computeFailed(code: FailureCodes.logitsNotNumbers)) }
        return result.map { output in
            BatchPlanner.Sample(
                output: output, endsGeneration: model.isEndOfGeneration(output.token))
        }
    }

    func retain(slot: Int) { samplers[slot] = nil }

    func fork(slot: Int, from source: Int, tokens: Int) throws(EngineError) {
        try checkWindow(slot: source, tokens: tokens)
        context.share(Int32(source), with: Int32(slot), tokens: tokens)
        // A cell of a window that has moved on is used again, but only while one sequence has it:
        // shared ones would fill up the small cache.
        guard keepsWindowOnly else { return }
        guard context.copyWindow(of: Int32(source), tokens: tokens, to: Int32(slot)) else {
            throw .blockRefused(reason: "no room for another window")
        }
        try checkWindow(slot: slot, tokens: tokens)
    }

    /// Throws if layers have lost tokens that the one after the first `tokens` attends to.
    private func checkWindow(slot: Int, tokens: Int) throws(EngineError) {
        let needed = layout.window(before: tokens)
        guard
            needed.isEmpty
                || context.stateBytes(sequence: Int32(slot), range: needed)
                    == layout.stateBytes(of: needed)
        else { throw .blockRefused(reason: "the KV before token \(tokens) is no longer whole") }
    }

    func remove(slot: Int) {
        context.remove(sequence: Int32(slot))
        samplers[slot] = nil
    }

    func exportKV(
        slot: Int, tokenStart: Int, tokenCount: Int
    ) throws(EngineError) -> KVBlock {
        let range = tokenStart..<tokenStart + tokenCount
        // A window may have moved on since the range was computed.
        let stateBytes =
            layout.hasWindow
            ? context.stateBytes(sequence: Int32(slot), range: range)
            : layout.stateBytes(of: range)
        let buffer = pool.buffer(capacityBytes: LlamaKVLayout.headerBytes + stateBytes)
        let written = unsafe buffer.withWritableBytes { bytes in
            let state = unsafe UnsafeMutableRawBufferPointer(
                rebasing: bytes[LlamaKVLayout.headerBytes...].prefix(stateBytes))
            let written = unsafe context.exportState(
                sequence: Int32(slot), range: range, into: state)
            unsafe layout.writeHeader(
                into: bytes, tokenStart: tokenStart, tokenCount: tokenCount,
                stateBytes: stateBytes)
            guard layout.hasWindow else { return written }
            let positions = unsafe layout.positions(
                in: UnsafeRawBufferPointer(state), of: range)
            return positions == nil ? 0 : written
        }
        guard written == stateBytes else {
            throw .computeFailed(code: FailureCodes.exportFailed)
        }
        buffer.setUsedBytes(LlamaKVLayout.headerBytes + stateBytes)
        return KVBlock(tokenStart: tokenStart, tokenCount: tokenCount, checksumming: buffer)
    }

    func importKV(_ block: KVBlock, slot: Int) throws(EngineError) {
        try block.checkBytes()
        let reason = unsafe block.bytes.withBytes { bytes -> String? in
            if let defect = unsafe layout.defect(
                of: bytes, tokenStart: block.tokenStart, tokenCount: block.tokenCount)
            {
                return defect
            }
            let state = unsafe UnsafeRawBufferPointer(
                rebasing: bytes[LlamaKVLayout.headerBytes...])
            let range = block.tokenStart..<(block.tokenStart + block.tokenCount)
            guard let positions = unsafe layout.positions(in: state, of: range) else {
                return "the table of positions is damaged"
            }
            return unsafe context.importState(
                state, sequence: Int32(slot), first: positions.min(), last: positions.max())
                ? nil : "libllama doesn't take the state"
        }
        if let reason { throw .blockRefused(reason: reason) }
    }
}

extension LlamaContext {
    /// Writes the state of a range of a sequence; returns how many bytes.
    func exportState(
        sequence: llama_seq_id, range: Range<Int>, into bytes: UnsafeMutableRawBufferPointer
    ) -> Int {
        unsafe llama_memory_seq_cp(
            memory, sequence, spareSequence, Int32(range.lowerBound), Int32(range.upperBound))
        defer { remove(sequence: spareSequence) }
        return unsafe llama_state_seq_get_data(
            pointer, bytes.assumingMemoryBound(to: UInt8.self).baseAddress, bytes.count,
            spareSequence)
    }

    /// Size of the state of what is there of a range.
    func stateBytes(sequence: llama_seq_id, range: Range<Int>) -> Int {
        unsafe llama_memory_seq_cp(
            memory, sequence, spareSequence, Int32(range.lowerBound), Int32(range.upperBound))
        defer { remove(sequence: spareSequence) }
        return unsafe llama_state_seq_get_size(pointer, spareSequence)
    }

    /// The state of a range in memory of its own, of whatever size it is.
    func exportState(sequence: llama_seq_id, range: Range<Int>) -> [UInt8] {
        let size = stateBytes(sequence: sequence, range: range)
        var bytes = [UInt8](repeating: 0, count: size)
        let written = unsafe bytes.withUnsafeMutableBytes {
            unsafe exportState(sequence: sequence, range: range, into: $0)
        }
        return written == size ? bytes : []
    }

    /// Adds a state to a sequence; says whether libllama has read all of it.
    ///
    /// - Parameters:
    ///   - first: position that libllama has to name as the first one; nil if none.
    ///   - last: position that libllama has to name as the last one; nil if none.
    func importState(
        _ bytes: UnsafeRawBufferPointer, sequence: llama_seq_id, first: Int?, last: Int?
    ) -> Bool {
        defer { remove(sequence: spareSequence) }
        let read = unsafe llama_state_seq_set_data(
            pointer, bytes.assumingMemoryBound(to: UInt8.self).baseAddress, bytes.count,
            spareSequence)
        guard read == (bytes.count),
            unsafe Int(llama_memory_seq_pos_min(memory, spareSequence)) == first ?? -1,
            unsafe Int(llama_memory_seq_pos_max(memory, spareSequence)) == last ?? -1
        else { return false }
        unsafe llama_memory_seq_cp(memory, spareSequence, sequence, -1, -1)
        return true
    }

    /// Replaces a sequence's cells in the layers with a window by copies of another one's.
    func copyWindow(of source: llama_seq_id, tokens: Int, to sequence: llama_seq_id) -> Bool {
        let windows = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        share(source, with: spareSequence, tokens: tokens)
        var state = [UInt8](
            repeating: 0,
            count: unsafe llama_state_seq_get_size_ext(pointer, spareSequence, UInt32(windows)))
        let count = state.count
        let written = unsafe state.withUnsafeMutableBufferPointer {
            unsafe llama_state_seq_get_data_ext(
                pointer, $0.baseAddress, count, spareSequence, UInt32(windows))
        }
        remove(sequence: spareSequence)
        guard written == count else { return false }
        let read = unsafe state.withUnsafeBufferPointer {
            unsafe llama_state_seq_set_data_ext(
                pointer, $0.baseAddress, count, sequence, UInt32(windows))
        }
        return read == count
    }
}

extension LlamaModel {
    func isEndOfGeneration(_ token: TokenID) -> Bool {
        unsafe llama_vocab_is_eog(vocabulary, token)
    }
}

extension LlamaEngine.Settings {
    /// Refuses numbers that libllama would answer with an abort or silently change.
    func check() throws(EngineError) {
        func check(_ name: String, _ value: Int, _ range: ClosedRange<Int>) throws(EngineError) {
            guard !range.contains(value) else { return }
            throw .contextNotCreated(
                reason: "\(name) \(value) is not in \(range.lowerBound)…\(range.upperBound)")
        }
        let most = Int(Int32.max)
        try check("KV capacity in tokens", kvCapacityTokens, 1...most)
        try check("context in tokens", contextTokens ?? 1, 1...most)
        try check("sequences", maximumSequences, 1...(Limits.sequences - 1))
        try check(
            "micro-batch in tokens", microBatchTokens,
            maximumSequences...max(maximumSequences, kvCapacityTokens))
        try check("prefill budget in tokens", prefillBudgetTokens ?? 1, 1...most)
        try check("final run in tokens", finalRunTokens, 0...most)
        try check("threads", threads, 1...Limits.threads)
    }
}
