import Foundation
import InferenceEngine
import LlamaEngine
import ServingTypes
import Testing

/// All tests that compute, one after the other: engines that compute at the same time would wait
/// for each other's threads.
@Suite(.serialized) enum LlamaEngineTests {}

/// The small model of the repository, and text for it.
enum TinyModel {
    static let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Models/tiny.gguf").path

    static let tokenizer: Result<LlamaTokenizer, EngineError> = Result {
        () throws(EngineError) in try LlamaTokenizer(modelPath: path)
    }

    /// Exactly `count` tokens of English.
    static func prompt(tokens count: Int) throws -> [TokenID] {
        let text = """
            The yield statement is only used when defining a generator function, and is only used \
            in the body of the generator function. Using yield in a function definition is \
            sufficient to cause that definition to create a generator function instead of a normal \
            function. When a generator function is called, it returns an iterator.\n
            """
        let tokens = try tokenizer.get().tokenize(
            text, addsSpecial: false, parsesSpecial: false)
        return (0..<count).map { tokens[$0 % tokens.count] }
    }

    static func settings(kvCapacityTokens: Int = 2048) -> LlamaEngine.Settings {
        var settings = LlamaEngine.Settings(modelPath: path)
        settings.finalRunTokens = 64
        settings.kvCapacityTokens = kvCapacityTokens
        settings.maximumSequences = 8
        settings.threads = 1
        return settings
    }
}

extension SequenceJob {
    /// A job of sequence 1 with greedy sampling.
    static func greedy(
        _ tokens: [TokenID], new: Int, id: UInt64 = 1, exportsKV: Bool = false
    ) -> SequenceJob {
        var sampling = SamplingParameters()
        sampling.ignoresEndOfGeneration = true
        return SequenceJob(
            sequence: SequenceID(id), tokens: tokens, sampling: sampling, maximumNewTokens: new,
            exportsKV: exportsKV)
    }
}
