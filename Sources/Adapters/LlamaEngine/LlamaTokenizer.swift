import CLlama
import CLlamaCommon
package import InferenceEngine
package import ServingTypes
import Synchronization

/// Tokens and chat prompts of a GGUF model, loaded without its weights.
///
/// Any number of threads may use it at once; libllama's vocabulary is read-only. Chat prompts are
/// made one at a time.
package final class LlamaTokenizer: Tokenizer {
    package let modelName: String
    package let vocabularySize: Int
    package let contextTokens: Int
    /// Equal for models whose tokens and chat templates are the same.
    package let vocabularyDigest: [UInt8]
    private let vocabulary: Vocabulary
    private let templates: Mutex<ChatTemplates>

    package init(modelPath: String, modelName: String? = nil) throws(EngineError) {
        LlamaLog.prepareLibrary()
        _ = try GGUFFile(path: modelPath)
        vocabularyDigest = try GGUFFile.vocabularyDigest(path: modelPath)
        let model = try LlamaModel(path: modelPath, vocabularyOnly: true)
        self.modelName = modelName ?? model.name
        vocabularySize = model.vocabularySize
        contextTokens = model.contextTokens
        let vocabulary = Vocabulary(model)
        self.vocabulary = vocabulary
        templates = Mutex(ChatTemplates(vocabulary))
    }

    package func tokenize(
        _ text: String, addsSpecial: Bool, parsesSpecial: Bool
    ) -> [TokenID] {
        vocabulary.tokenize(text, addsSpecial: addsSpecial, parsesSpecial: parsesSpecial)
    }

    package func bytes(of token: TokenID) -> [UInt8] {
        guard token >= 0, Int(token) < vocabularySize else { return [] }
        return vocabulary.bytes(of: token)
    }

    package func isEndOfGeneration(_ token: TokenID) -> Bool {
        guard token >= 0, Int(token) < vocabularySize else { return false }
        return vocabulary.isEndOfGeneration(token)
    }

    package func prompt(forChat messages: [UInt8]) throws(TokenizerError) -> ChatPrompt {
        try templates.withLock { (templates) throws(TokenizerError) in
            try templates.prompt(forChat: messages)
        }
    }
}

/// The vocabulary of a model that stays loaded as long as this.
///
/// The address is kept as a number, so that threads can share it: after the load nothing changes
/// it, and libllama's tokenising functions may be called from any thread.
@safe private final class Vocabulary: Sendable {
    private let model: Mutex<LlamaModel?>
    private let modelAddress: UInt
    private let address: UInt

    init(_ model: sending LlamaModel) {
        address = unsafe UInt(bitPattern: model.vocabulary)
        modelAddress = unsafe UInt(bitPattern: model.pointer)
        self.model = Mutex(model)
    }

    private var pointer: OpaquePointer? { unsafe OpaquePointer(bitPattern: address) }
    var modelPointer: OpaquePointer? { unsafe OpaquePointer(bitPattern: modelAddress) }

    func tokenize(_ text: String, addsSpecial: Bool, parsesSpecial: Bool) -> [TokenID] {
        var text = text
        return text.withUTF8 { utf8 in
            // At most one token per byte, and what the model adds; some normalise to more.
            var capacity = utf8.count + 16
            while let length = Int32(exactly: utf8.count), capacity <= Int(Int32.max) {
                var needed = 0
                let tokens = unsafe [TokenID](unsafeUninitializedCapacity: capacity) {
                    (buffer, count) in
                    let written = unsafe llama_tokenize(
                        pointer,
                        UnsafeRawPointer(utf8.baseAddress)?.assumingMemoryBound(
                            to: CChar.self), length, buffer.baseAddress, Int32(buffer.count),
                        addsSpecial, parsesSpecial)
                    count = max(0, Int(written))
                    needed = max(0, -Int(written))
                }
                if needed == 0 { return tokens }
                capacity = needed
            }
            return []
        }
    }

    func bytes(of token: TokenID) -> [UInt8] {
        var capacity = 64
        while true {
            var needed = 0
            let bytes = unsafe [UInt8](unsafeUninitializedCapacity: capacity) { (buffer, count) in
                let written = unsafe buffer.withMemoryRebound(to: CChar.self) {
                    unsafe llama_token_to_piece(
                        pointer, token, $0.baseAddress, Int32($0.count), 0, false)
                }
                count = max(0, Int(written))
                needed = max(0, -Int(written))
            }
            if needed <= capacity { return bytes }
            capacity = needed
        }
    }

    func isEndOfGeneration(_ token: TokenID) -> Bool {
        unsafe llama_vocab_is_eog(pointer, token)
    }
}

/// Owns a model's chat templates.
@safe private final class ChatTemplates {
    private let pointer: OpaquePointer?
    private let refusal: String
    private let vocabulary: Vocabulary

    init(_ vocabulary: Vocabulary) {
        self.vocabulary = vocabulary
        var reason = [CChar](repeating: 0, count: Limits.metadataBytes)
        unsafe pointer = cllama_chat_templates_create(
            vocabulary.modelPointer, &reason, reason.count)
        refusal = String(
            decoding: reason.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    deinit { if let pointer = unsafe pointer { unsafe cllama_chat_templates_free(pointer) } }

    func prompt(forChat messages: [UInt8]) throws(TokenizerError) -> ChatPrompt {
        guard let pointer = unsafe pointer else {
            throw .templateRefused(reason: "the model's chat template: \(refusal)")
        }
        let made = unsafe messages.withUnsafeBytes { bytes in
            unsafe cllama_chat_prompt_create(
                pointer, bytes.assumingMemoryBound(to: CChar.self).baseAddress, bytes.count)
        }
        guard let prompt = unsafe made else { throw .templateRefused(reason: "out of memory") }
        defer { unsafe cllama_chat_prompt_free(prompt) }
        var length = 0
        let text = unsafe Self.text(cllama_chat_prompt_text(prompt, &length), length)
        guard !(unsafe cllama_chat_prompt_is_error(prompt)) else {
            throw .templateRefused(reason: text)
        }
        let stops = (0..<(unsafe cllama_chat_prompt_stop_count(prompt))).map { index in
            var length = 0
            return unsafe Self.text(cllama_chat_prompt_stop(prompt, index, &length), length)
        }
        return ChatPrompt(text: text, stops: stops)
    }

    private static func text(_ start: UnsafePointer<CChar>?, _ length: Int) -> String {
        unsafe String(
            decoding: UnsafeRawBufferPointer(start: start, count: length), as: UTF8.self)
    }
}
