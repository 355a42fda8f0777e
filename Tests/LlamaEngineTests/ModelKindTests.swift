import Foundation
import InferenceEngine
import LlamaEngine
import ServingTypes
import Testing

extension LlamaEngineTests {
    /// Each way of keeping KV: handed over in parts it gives what one engine gives.
    @Suite struct ModelKindTests {
        @Test(arguments: ModelKind.short, [LlamaEngine.KVType.f16, .bf16, .q8_0])
        func `divided output equals whole output`(
            kind: ModelKind, type: LlamaEngine.KVType
        ) async throws {
            var settings = kind.settings
            settings.kvType = type
            var pair = try EnginePair(settings)
            #expect(pair.prefill.description == pair.decode.description)
            for tokens in [1, 31, 32, 33, 256, 257, 600] {
                let job = ModelKind.job(tokens: tokens)
                let whole = await pair.whole(job)
                #expect(tokens == 1 || Set(whole.map(\.token)).count > 3, "it shows nothing")
                #expect(try await pair.divided(job) == whole, "\(tokens) tokens")
            }
        }

        /// Windows of 32 tokens cross several blocks here.
        @Test(arguments: ModelKind.short, [7, 37, 64])
        func `blocks of any size give the same output`(
            kind: ModelKind, microBatchTokens: Int
        ) async throws {
            var settings = kind.settings
            settings.microBatchTokens = microBatchTokens
            var pair = try EnginePair(settings)
            let job = ModelKind.job(tokens: 300)
            let whole = await pair.whole(job)
            let (blocks, first) = await pair.exported(job)
            #expect(blocks.allSatisfy { $0.tokenCount <= microBatchTokens })
            #expect(try await pair.decoded(job, blocks, first) == whole)
        }

        @Test(arguments: ModelKind.short)
        func `output shows KV that is not the prompt's`(kind: ModelKind) async throws {
            var pair = try EnginePair(kind.settings)
            let job = ModelKind.job(tokens: 512)
            let whole = await pair.whole(job)
            let (blocks, first) = await pair.exported(job)
            #expect(blocks.count >= 2)
            let (strangers, _) = await pair.exported(ModelKind.job(tokens: 512, seed: 2))
            for replaced in [0, blocks.count - 1] {
                var wrong = blocks
                wrong[replaced] = strangers[replaced]
                #expect(try await pair.decoded(job, wrong, first) != whole, "block \(replaced)")
            }
        }

        @Test func `a window that begins anew at multiples of 8192 is handed over`() async throws {
            var settings = ModelKind.windowChunks.settings
            settings.kvCapacityTokens = 8448
            // So that a block lies on both sides of the border.
            settings.microBatchTokens = 250
            var pair = try EnginePair(settings)
            for tokens in [600, 8300] {
                let job = ModelKind.job(tokens: tokens)
                let whole = await pair.whole(job)
                let (blocks, first) = await pair.exported(job)
                #expect(try await pair.decoded(job, blocks, first) == whole)
                guard let across = blocks.first(where: { $0.tokenStart == 8000 }) else { continue }
                let most = pair.prefill.description.maximumBlockBytes(tokens: across.tokenCount)
                #expect(across.bytes.usedBytes < most)
            }
        }

        @Test func `sizes and shape are those of the model`() throws {
            // Layers x KV heads x (key width + value width) x 2 bytes.
            let bytesPerToken: [ModelKind: Int] = [
                .everyHead: 3 * 4 * 64 * 2, .oneHead: 3 * 1 * 64 * 2, .window: 4 * 2 * 64 * 2,
                .windowSinks: 3 * 2 * 64 * 2, .windowWidths: (2 + 1 + 2) * 96 * 2,
                .windowChunks: 4 * 1 * 64 * 2, .widths: (2 + 0 + 1) * 64 * 2, .latent: 3 * 64 * 2,
                .dimensions: 3 * 1 * 64 * 2, .longRope: 2 * 2 * 64 * 2,
            ]
            for kind in ModelKind.allCases {
                let engine = try LlamaEngine(settings: kind.settings) { _ in }
                let bytes = try #require(bytesPerToken[kind])
                #expect(engine.description.kvBytesPerToken == bytes, "\(kind)")
                let differs = [.windowWidths, .widths, .latent].contains(kind)
                #expect(engine.kvShape?.bytesPerToken == (differs ? nil : bytes), "\(kind)")
                #expect((engine.windowUse != nil) == kind.rawValue.hasPrefix("window"))
                let cells = engine.windowUse == nil ? 1 : 2
                #expect(
                    engine.description.blockOverheadBytesPerToken
                        == cells * (kind == .dimensions ? 24 : 12))
            }
        }

        @Test func `KV of another number type has another fingerprint`() throws {
            var fingerprints: Set<ModelFingerprint> = []
            for type in [LlamaEngine.KVType.f16, .bf16, .q8_0] {
                var settings = ModelKind.window.settings
                settings.kvType = type
                let engine = try LlamaEngine(settings: settings) { _ in }
                fingerprints.insert(engine.description.fingerprint)
            }
            #expect(fingerprints.count == 3)
        }

        /// libllama turns keys by other angles then: such KV must not meet.
        @Test func `contexts beyond the model's original one have another fingerprint`() throws {
            func fingerprint(_ kind: ModelKind, capacity: Int) throws -> ModelFingerprint {
                var settings = kind.settings
                settings.kvCapacityTokens = capacity
                return try LlamaEngine(settings: settings) { _ in }.description.fingerprint
            }
            let short = try fingerprint(.longRope, capacity: 512)
            #expect(try short == fingerprint(.longRope, capacity: 300))
            #expect(try short != fingerprint(.longRope, capacity: 513))
            #expect(
                try fingerprint(.longRope, capacity: 513) == fingerprint(.longRope, capacity: 4096))
            #expect(
                try fingerprint(.everyHead, capacity: 512)
                    == fingerprint(.everyHead, capacity: 4096))
        }

        @Test(arguments: [
            ("recurrent", "mamba", "is recurrent"),
            ("refused-rwkv7", "rwkv7", "is recurrent"),
            ("hybrid", "lfm2", "is a hybrid with recurrent layers"),
            ("refused-jamba", "jamba", "is a hybrid with recurrent layers"),
            ("refused-falcon-h1", "falcon-h1", "is a hybrid with recurrent layers"),
            ("refused-qwen3next", "qwen3next", "is a hybrid with recurrent layers"),
            ("refused-dream", "dream", "is a diffusion model"),
            ("refused-t5", "t5", "has an encoder"),
            ("refused-t5encoder", "t5encoder", "has no decoder"),
            ("refused-bert", "bert", "attends to later tokens as well"),
        ])
        func `other kinds of models are refused by name`(
            file: String, architecture: String, reason: String
        ) throws {
            let error = #expect(throws: EngineError.self) {
                _ = try LlamaEngine(settings: .init(modelPath: ModelKind.path(file))) { _ in }
            }
            guard case .modelNotSupported(let text) = error else {
                Issue.record("\(file): \(String(describing: error))")
                return
            }
            #expect(text.contains("\(file) ") && text.contains("(architecture \(architecture))"))
            #expect(text.contains(reason) && text.contains("serve this one undivided"), "\(text)")
        }
    }
}
