import CLlama
import Foundation
import InferenceEngine
import ServingTypes

/// Owns one loaded model; read-only once loaded.
@safe final class LlamaModel {
    let path: String
    let pointer: OpaquePointer
    let vocabulary: OpaquePointer
    let vocabularySize: Int

    /// - Parameter gpuLayers: layers computed on accelerators; -1 is all.
    init(path: String, vocabularyOnly: Bool, gpuLayers: Int = -1) throws(EngineError) {
        LlamaLog.prepareLibrary()
        var parameters = unsafe llama_model_default_params()
        unsafe parameters.vocab_only = vocabularyOnly
        unsafe parameters.n_gpu_layers = Int32(clamping: gpuLayers)
        let (model, errors) = unsafe LlamaLog.collectingErrors {
            unsafe llama_model_load_from_file(path, parameters)
        }
        guard let model = unsafe model else {
            let reason = errors.first ?? "libllama gives no reason"
            throw .modelNotLoaded(path: path, reason: reason)
        }
        guard let vocabulary = unsafe llama_model_get_vocab(model),
            unsafe llama_vocab_type(vocabulary) != LLAMA_VOCAB_TYPE_NONE,
            unsafe llama_vocab_n_tokens(vocabulary) > 0
        else {
            unsafe llama_model_free(model)
            throw .modelNotLoaded(path: path, reason: "it has no vocabulary")
        }
        self.path = path
        unsafe self.pointer = model
        unsafe self.vocabulary = vocabulary
        vocabularySize = Int(unsafe llama_vocab_n_tokens(vocabulary))
    }

    deinit { unsafe llama_model_free(pointer) }

    /// The name in the metadata, or the file's name without its extension.
    var name: String {
        if let name = metadata("general.name"), !name.isEmpty { return name }
        return URL(fileURLWithPath: path).deletingPathExtension().lastPathComponent
    }

    var parameterCount: Int { Int(unsafe llama_model_n_params(pointer)) }

    var architecture: String { metadata("general.architecture") ?? "unknown" }

    /// The longest sequence the model was made for.
    ///
    /// From the metadata, because a load without weights leaves libllama's own field empty.
    var contextTokens: Int {
        metadata("\(architecture).context_length").flatMap { Int($0) } ?? 0
    }

    /// Tokens the model must never write.
    var suppressedTokens: [TokenID] {
        var count: Int32 = 0
        guard let first = unsafe llama_vocab_get_suppress_tokens(vocabulary, &count) else {
            return []
        }
        return unsafe Array(UnsafeBufferPointer(start: first, count: Int(count)))
    }

    /// A scalar of the GGUF metadata as text.
    func metadata(_ key: String) -> String? {
        var text = [CChar](repeating: 0, count: Limits.metadataBytes)
        let length = unsafe llama_model_meta_val_str(pointer, key, &text, text.count)
        guard length >= 0 else { return nil }
        return String(
            decoding: text.prefix(min(Int(length), text.count - 1)).map(UInt8.init(bitPattern:)),
            as: UTF8.self)
    }

    /// Shape of the KV, if all layers share one and the element size is whole.
    func kvShape(_ type: LlamaEngine.KVType) -> KVShape? {
        guard type != .q8_0 else { return nil }
        let heads = Int(unsafe llama_model_n_head(pointer))
        let width = Int(unsafe llama_model_n_embd(pointer))
        let stated = metadata("\(architecture).attention.key_length").flatMap { Int($0) }
        return KVShape(
            layers: Int(unsafe llama_model_n_layer(pointer)),
            kvHeads: Int(unsafe llama_model_n_head_kv(pointer)),
            headDimension: stated ?? (heads > 0 ? width / heads : 0), bytesPerElement: 2)
    }
}
