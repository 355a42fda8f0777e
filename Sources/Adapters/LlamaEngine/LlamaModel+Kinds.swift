import CLlama
import Foundation
import InferenceEngine

extension LlamaModel {
    /// Refuses kinds of models whose state can't be handed over as ranges of KV.
    ///
    /// Needs the metadata only, so that it comes before the weights are read.
    func checkArchitecture() throws(EngineError) {
        if unsafe llama_model_is_recurrent(pointer) { throw refusal("is recurrent") }
        if unsafe llama_model_is_hybrid(pointer) {
            throw refusal("is a hybrid with recurrent layers")
        }
        if unsafe llama_model_is_diffusion(pointer) { throw refusal("is a diffusion model") }
        if !(unsafe llama_model_has_decoder(pointer)) { throw refusal("has no decoder") }
        if unsafe llama_model_has_encoder(pointer) { throw refusal("has an encoder") }
        if metadata("\(architecture).attention.causal") == "false" {
            throw refusal("attends to later tokens as well: it makes embeddings, not text")
        }
    }

    func refusal(_ kind: String) -> EngineError {
        .modelNotSupported(
            reason:
                "\(name) (architecture \(architecture)) \(kind); its state can't be handed over "
                + "in parts. Choose a model that only has attention over earlier tokens, "
                + "or serve this one undivided")
    }

    /// Tokens that layers with a window attend to; nil without such layers.
    ///
    /// Needs a load with weights.
    var windowTokens: Int? {
        let window = Int(unsafe llama_model_n_swa(pointer))
        return window > 0 ? window : nil
    }

    /// What makes KV of the same file differ between contexts, for the fingerprint.
    func contextTraits(of context: LlamaContext, file: GGUFFile) -> String {
        var traits: [String] = []
        if file.hasRopeFactorsPerContext {
            // libllama takes other factors for the positions in contexts longer than this.
            let key = "\(architecture).rope.scaling.original_context_length"
            let original = metadata(key).flatMap { Int($0) } ?? contextTokens
            let tokens = Int(unsafe llama_n_ctx_seq(context.pointer))
            traits.append(tokens > original ? "long rope factors" : "short rope factors")
        }
        // Turns keys before it quantises them, or not.
        if let off = ProcessInfo.processInfo.environment["LLAMA_ATTN_ROT_DISABLE"] {
            traits.append("rotation disabled \(off)")
        }
        return traits.joined(separator: " ")
    }
}

extension LlamaEngine.KVType {
    var ggmlType: ggml_type {
        switch self {
        case .f16: GGML_TYPE_F16
        case .bf16: GGML_TYPE_BF16
        case .q8_0: GGML_TYPE_Q8_0
        }
    }
}
