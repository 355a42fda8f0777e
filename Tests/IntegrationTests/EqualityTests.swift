import Foundation
import InferenceEngine
import LlamaEngine
import LocalCluster
import ServingTypes
import Testing

/// The divided run equals the undivided one, token for token.
@Suite(.serialized) struct EqualityTests {
    /// Prompt lengths in tokens: the borders of micro-batches and everything between.
    static let lengths: [Int] = {
        var lengths = [1, 2, 3, 7, 31, 64, 127, 128, 129, 254, 255, 256, 257, 258, 383, 511, 512]
        lengths += [513, 600, 700, 767, 768, 769, 900, 1023, 1024, 1025, 1279, 1280, 1281, 1499]
        lengths += [1500]
        var generator = SeededGenerator(seed: 20_261_121)
        while lengths.count < 54 { lengths.append(.random(in: 4...1200, using: &generator)) }
        return lengths
    }()

    @Test func `greedy answers equal the undivided run for prompts of 1 to 1500 tokens`()
        async throws
    {
        let model = try UndividedModel()
        let text = try String(
            contentsOf: TestCluster.root.appending(path: "ARCHITECTURE.md"), encoding: .utf8)
        let source = model.tokenizer.tokenize(
            text + text + text, addsSpecial: false, parsesSpecial: false)
        // Kept KV moves a prompt's to other cells of libllama's cache, whose sums then round
        // another way: tokens that are equally likely to a hundredth change places.
        try await TestCluster.run(
            arguments: [
                .prefillWorker: ["--kept-sequences", "0"],
                .decodeWorker: ["--kept-sequences", "0"],
            ]
        ) { cluster in
            for (number, length) in Self.lengths.enumerated() {
                let start = (number * 37) % (source.count - length)
                let prompt = Array(source[start..<start + length])
                let maximum = min(24, 2048 - length)
                var greedy = SamplingParameters()
                greedy.seed = 1
                let expected = try await model.generate(
                    prompt, sampling: greedy, maximumNewTokens: maximum)
                let body =
                    #"{"prompt":\#(prompt),"max_tokens":\#(maximum),"temperature":0,"logprobs":0}"#
                let (status, answer) = try await cluster.post("/v1/completions", body)
                #expect(status == 200, "\(answer)")
                let choice = answer["choices"][0]
                let usage = answer["usage"]
                #expect(usage["prompt_tokens"].int == length)
                #expect(usage["completion_tokens"].int == expected.tokens.count)
                #expect(
                    usage["total_tokens"].int == length + expected.tokens.count)
                #expect(
                    choice["finish_reason"].string
                        == (expected.finish == .stop ? "stop" : "length"))
                let shown = expected.tokens.filter { !model.tokenizer.isEndOfGeneration($0) }
                let bytes = shown.flatMap { model.tokenizer.bytes(of: $0) }
                #expect(
                    choice["text"].string == String(decoding: bytes, as: UTF8.self),
                    "prompt of \(length) tokens from \(start)")
                #expect(choice["logprobs"]["tokens"].array.count == shown.count)
            }
        }
        await model.shutdown()
    }

    @Test func `a model with sliding windows answers as the undivided run`() async throws {
        let model = try UndividedModel(model: TestCluster.windowModel, kvType: .bf16)
        var generator = SeededGenerator(seed: 4)
        let type = ["--kv-type", "bf16"]
        try await TestCluster.run(
            model: TestCluster.windowModel,
            arguments: [.prefillWorker: type, .decodeWorker: type + ["--window-kv", "window"]]
        ) { cluster in
            for length in [1, 31, 32, 33, 255, 256, 257, 700, 1500] {
                let prompt = (0..<length).map { _ in TokenID.random(in: 2..<258, using: &generator)
                }
                var greedy = SamplingParameters()
                greedy.ignoresEndOfGeneration = true
                let expected = try await model.generate(
                    prompt, sampling: greedy, maximumNewTokens: 60)
                let body = """
                    {"prompt":\(prompt),"max_tokens":60,"temperature":0,"ignore_eos":true}
                    """
                let (status, answer) = try await cluster.post("/v1/completions", body)
                #expect(status == 200, "\(answer)")
                let bytes = expected.tokens.flatMap { model.tokenizer.bytes(of: $0) }
                #expect(
                    answer["choices"][0]["text"].string == String(decoding: bytes, as: UTF8.self),
                    "prompt of \(length) tokens")
            }
            for process in cluster.cluster.all where process.name.contains("worker") {
                #expect(process.logTail(lines: 30).contains("layers with a sliding window"))
            }
        }
        await model.shutdown()
    }

    @Test func `sampled answers depend on the seed alone`() async throws {
        let model = try UndividedModel()
        let prompt = model.tokenizer.tokenize(
            "A generator is", addsSpecial: true, parsesSpecial: true)
        try await TestCluster.run { cluster in
            var texts: Set<String> = []
            for seed in 0..<6 {
                var sampling = SamplingParameters()
                sampling.temperature = 0.8
                sampling.topK = 40
                sampling.seed = UInt64(seed)
                let expected = try await model.generate(
                    prompt, sampling: sampling, maximumNewTokens: 32)
                let body = """
                    {"prompt":"A generator is","max_tokens":32,"temperature":0.8,"top_k":40,\
                    "seed":\(seed)}
                    """
                let first = try await cluster.post("/v1/completions", body).json
                let second = try await cluster.post("/v1/completions", body).json
                let text = try #require(first["choices"][0]["text"].string)
                #expect(second["choices"][0]["text"].string == text)
                let bytes = expected.tokens.flatMap { model.tokenizer.bytes(of: $0) }
                #expect(text == String(decoding: bytes, as: UTF8.self), "seed \(seed)")
                texts.insert(text)
            }
            #expect(texts.count > 3, "seeds must matter")
        }
        await model.shutdown()
    }
}
