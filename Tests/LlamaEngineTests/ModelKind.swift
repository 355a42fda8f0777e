import Foundation
import InferenceEngine
import LlamaEngine
import ServingTypes
import Testing

/// The models of random weights beside this file; `Scripts/make-test-models.py` writes them.
enum ModelKind: String, CaseIterable, Sendable {
    case everyHead = "every-head"
    case oneHead = "one-head"
    case window
    case windowSinks = "window-sinks"
    case windowWidths = "window-widths"
    case windowChunks = "window-chunks"
    case widths
    case latent
    case dimensions
    case longRope = "long-rope"

    static let windows: [ModelKind] = [.window, .windowSinks, .windowWidths]
    /// All but the one whose window is 8192 tokens.
    static let short = allCases.filter { $0 != .windowChunks }

    static func path(_ name: String) -> String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("Models/\(name).gguf").path
    }

    var settings: LlamaEngine.Settings {
        var settings = LlamaEngine.Settings(modelPath: Self.path(rawValue))
        settings.finalRunTokens = 64
        settings.kvCapacityTokens = 1024
        settings.maximumSequences = 4
        settings.threads = 1
        return settings
    }

    /// A greedy job over a prompt of random tokens of the models' vocabulary.
    static func job(tokens: Int, new: Int = 40, id: UInt64 = 1, seed: UInt64 = 1) -> SequenceJob {
        var generator = SeededGenerator(seed: seed)
        let prompt = (0..<tokens).map { _ in TokenID.random(in: 2..<258, using: &generator) }
        var job = SequenceJob.greedy(prompt, new: new, id: id)
        job.sampling.topLogprobs = 2
        return job
    }
}

/// A prefilling and a decoding engine, and what jobs give with and without a hand-over.
struct EnginePair {
    let prefill: LlamaEngine
    let decode: LlamaEngine
    private var events = EngineRecorder()
    private var decodeEvents = EngineRecorder()

    init(_ prefill: LlamaEngine.Settings, _ decode: LlamaEngine.Settings? = nil) throws {
        self.prefill = try LlamaEngine(settings: prefill, onEvent: events.sink)
        self.decode = try LlamaEngine(settings: decode ?? prefill, onEvent: decodeEvents.sink)
    }

    /// What the prefilling engine gives for the whole job.
    mutating func whole(_ job: SequenceJob) async -> [TokenOutput] {
        prefill.submit(.run(job))
        let outcome = await events.outcome(of: job.sequence)
        #expect(outcome.error == nil)
        events.forget(job.sequence)
        return outcome.outputs
    }

    /// The prompt's blocks and the first token, from the prefilling engine.
    mutating func exported(_ job: SequenceJob) async -> (blocks: [KVBlock], first: TokenOutput?) {
        var job = job
        job.maximumNewTokens = 1
        job.exportsKV = true
        prefill.submit(.run(job))
        let outcome = await events.outcome(of: job.sequence)
        #expect(outcome.error == nil)
        events.forget(job.sequence)
        for block in outcome.blocks {
            let most = prefill.description.maximumBlockBytes(tokens: block.tokenCount)
            #expect(block.bytes.usedBytes <= most)
        }
        return (outcome.blocks, outcome.outputs.first)
    }

    /// What the decoding engine makes of blocks and first token.
    mutating func decoded(
        _ job: SequenceJob, _ blocks: [KVBlock], _ first: TokenOutput?
    ) async throws -> [TokenOutput] {
        let first = try #require(first)
        let rest = Self.rest(of: job, after: first, with: blocks, in: decode)
        return [first] + (await decodeOutcome(rest)).outputs
    }

    /// Gives an engine the blocks; what is left of the job, after them and the first token.
    private static func rest(
        of job: SequenceJob, after first: TokenOutput, with blocks: [KVBlock],
        in engine: LlamaEngine
    ) -> SequenceJob {
        var rest = job
        rest.tokens.append(first.token)
        rest.outputTokens += 1
        rest.importedTokens = job.tokens.count
        rest.maximumNewTokens -= 1
        for block in blocks { engine.submit(.importKV(job.sequence, block)) }
        return rest
    }

    /// What the decoding engine gives for a job.
    mutating func decodeOutcome(
        _ job: SequenceJob, until isDone: (Outcome) -> Bool = { $0.isClosed }
    ) async -> Outcome {
        decode.submit(.run(job))
        return await decodeOutcome(of: job.sequence, until: isDone)
    }

    mutating func decodeOutcome(
        of sequence: SequenceID, until isDone: (Outcome) -> Bool = { $0.isClosed }
    ) async -> Outcome {
        let outcome = await decodeEvents.outcome(of: sequence, until: isDone)
        #expect(outcome.error == nil)
        decodeEvents.forget(sequence)
        return outcome
    }

    /// What the prefilling engine makes of blocks and first token.
    mutating func continued(
        _ job: SequenceJob, _ blocks: [KVBlock], _ first: TokenOutput?
    ) async throws -> [TokenOutput] {
        let first = try #require(first)
        let rest = Self.rest(of: job, after: first, with: blocks, in: prefill)
        return [first] + (await whole(rest))
    }

    mutating func prefillOutcome(of sequence: SequenceID) async -> Outcome {
        await events.outcome(of: sequence)
    }

    mutating func divided(_ job: SequenceJob) async throws -> [TokenOutput] {
        let (blocks, first) = await exported(job)
        return try await decoded(job, blocks, first)
    }
}
