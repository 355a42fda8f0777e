import CLlama
import EngineRuntime
import InferenceEngine

/// Threads that compute for one context, sleeping (not spinning) between pieces of work.
///
/// Made through the CPU backend's registry, because that backend may be a loaded plug-in.
@safe final class LlamaThreadPool {
    let pointer: ggml_threadpool_t
    private let free: FreeFunction

    private typealias NewFunction =
        @convention(c) (UnsafeMutablePointer<ggml_threadpool_params>?) -> ggml_threadpool_t?
    private typealias FreeFunction = @convention(c) (ggml_threadpool_t?) -> Void

    /// Nil if the backend has no such pool; libllama then makes its own.
    init?(threads: Int) {
        guard let device = unsafe ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU),
            let registry = unsafe ggml_backend_dev_backend_reg(device),
            let new = unsafe ggml_backend_reg_get_proc_address(registry, "ggml_threadpool_new"),
            let free = unsafe ggml_backend_reg_get_proc_address(registry, "ggml_threadpool_free")
        else { return nil }
        var parameters = ggml_threadpool_params_default(Int32(clamping: threads))
        parameters.poll = 0
        guard let pool = unsafe unsafeBitCast(new, to: NewFunction.self)(&parameters) else {
            return nil
        }
        unsafe pointer = pool
        unsafe self.free = unsafeBitCast(free, to: FreeFunction.self)
    }

    deinit { unsafe free(pointer) }
}

/// Owns one libllama context with its KV, its batch and its threads.
@safe final class LlamaContext {
    let pointer: OpaquePointer
    let memory: llama_memory_t
    private var batch: llama_batch
    private let batchCapacity: Int
    // The context uses these: they are freed after `deinit` has freed it.
    private let pool: LlamaThreadPool?
    let model: LlamaModel
    private let stop: StopSignal

    /// Sequences 0..<maximumSequences, and one spare.
    var spareSequence: llama_seq_id { Int32(maximumSequences) }
    private let maximumSequences: Int

    init(
        model: LlamaModel, settings: LlamaEngine.Settings, stop: StopSignal
    ) throws(EngineError) {
        let type = settings.kvType.ggmlType
        var parameters = unsafe llama_context_default_params()
        unsafe parameters.n_ctx = UInt32(settings.kvCapacityTokens)
        unsafe parameters.n_batch = UInt32(settings.microBatchTokens)
        unsafe parameters.n_ubatch = UInt32(settings.microBatchTokens)
        unsafe parameters.n_seq_max = UInt32(settings.maximumSequences + 1)
        // One row of logits per sequence, not per token of the batch.
        unsafe parameters.n_outputs_max = UInt32(settings.maximumSequences + 1)
        unsafe parameters.n_threads = Int32(settings.threads)
        unsafe parameters.n_threads_batch = Int32(settings.threads)
        // Both sides of a hand-over must agree; "auto" may differ between backends.
        unsafe parameters.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED
        unsafe parameters.type_k = type
        unsafe parameters.type_v = type
        // Copying a range of a sequence aborts the process without it.
        unsafe parameters.kv_unified = true
        unsafe parameters.swa_full = settings.windowKV == .full
        unsafe parameters.no_perf = true
        unsafe parameters.abort_callback = mustStop
        unsafe parameters.abort_callback_data = Unmanaged.passUnretained(stop).toOpaque()
        let (context, errors) = unsafe LlamaLog.collectingErrors {
            unsafe llama_init_from_model(model.pointer, parameters)
        }
        guard let context = unsafe context else {
            throw .contextNotCreated(reason: errors.first ?? "libllama gives no reason")
        }
        guard let memory = unsafe llama_get_memory(context) else {
            unsafe llama_free(context)
            throw model.refusal("keeps no KV: it makes embeddings, not text")
        }
        unsafe pointer = context
        unsafe self.memory = memory
        unsafe batch = llama_batch_init(Int32(settings.microBatchTokens), 0, 1)
        batchCapacity = settings.microBatchTokens
        pool = LlamaThreadPool(threads: settings.threads)
        self.model = model
        self.stop = stop
        maximumSequences = settings.maximumSequences
        if let pool { unsafe llama_attach_threadpool(pointer, pool.pointer, pool.pointer) }
    }

    deinit {
        unsafe llama_batch_free(batch)
        unsafe llama_free(pointer)
    }

    func clearBatch() { unsafe batch.n_tokens = 0 }

    /// Adds a token to the batch; returns its row.
    @discardableResult
    func add(token: Int32, position: Int, sequence: Int, wantsLogits: Bool) -> Int32 {
        let row = Int(unsafe batch.n_tokens)
        precondition(row < batchCapacity, "more tokens than a micro-batch")
        unsafe batch.token[row] = token
        unsafe batch.pos[row] = Int32(position)
        unsafe batch.n_seq_id[row] = 1
        unsafe batch.seq_id[row]?[0] = Int32(sequence)
        unsafe batch.logits[row] = wantsLogits ? 1 : 0
        unsafe batch.n_tokens = Int32(row + 1)
        return Int32(row)
    }

    /// Computes the batch.
    func compute() throws(EngineError) {
        let code = unsafe llama_decode(pointer, batch)
        switch code {
        case 0: return
        case 1: throw .noRoom(neededTokens: Int(unsafe batch.n_tokens), freeTokens: 0)
        default: throw stop.isSet ? .shutDown : .computeFailed(code: code)
        }
    }

    /// Lends the logits of a row of the last batch.
    func withLogits<Result>(
        row: Int32, _ body: (UnsafeBufferPointer<Float>) -> Result
    ) -> Result? {
        guard let logits = unsafe llama_get_logits_ith(pointer, row) else { return nil }
        return unsafe body(UnsafeBufferPointer(start: logits, count: model.vocabularySize))
    }

    func remove(sequence: llama_seq_id) {
        unsafe llama_memory_seq_rm(memory, sequence, -1, -1)
    }

    /// Begins an empty sequence with the first tokens of another one, which share their cells.
    func share(_ source: llama_seq_id, with sequence: llama_seq_id, tokens: Int) {
        unsafe llama_memory_seq_cp(memory, source, sequence, 0, Int32(tokens))
    }

    func removeAll() { unsafe llama_memory_clear(memory, true) }
}

/// Asked by libllama before each part of a step; ends it early at shutdown (on CPUs only).
private func mustStop(_ data: UnsafeMutableRawPointer?) -> Bool {
    guard let data = unsafe data else { return false }
    return unsafe Unmanaged<StopSignal>.fromOpaque(data)._withUnsafeGuaranteedRef { $0.isSet }
}
