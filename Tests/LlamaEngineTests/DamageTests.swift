import EngineRuntime
import Foundation
import InferenceEngine
import ServingTypes
import Synchronization
import Testing

@testable import LlamaEngine

extension LlamaEngineTests {
    /// Damaged files and blocks are refused; the process and the other sequences live on.
    @Suite struct DamageTests {
        private func withFile(
            _ bytes: Data, _ body: (String) throws -> Void
        ) throws {
            let url = FileManager.default.temporaryDirectory
                .appendingPathComponent("pdserve-\(UUID().uuidString).gguf")
            try bytes.write(to: url)
            defer { try? FileManager.default.removeItem(at: url) }
            try body(url.path)
        }

        private func expectRefusal(
            _ path: String, reason: String = "", location: SourceLocation = #_sourceLocation
        ) {
            func check(_ error: EngineError?) {
                guard case .modelNotLoaded(let named, let text) = error else {
                    Issue.record("\(String(describing: error))", sourceLocation: location)
                    return
                }
                #expect(named == path, sourceLocation: location)
                #expect(!text.isEmpty, sourceLocation: location)
                #expect(
                    reason.isEmpty || text.contains(reason), "\(text)", sourceLocation: location)
            }
            check(
                #expect(throws: EngineError.self, sourceLocation: location) {
                    _ = try LlamaEngine(settings: .init(modelPath: path)) { _ in }
                })
            check(
                #expect(throws: EngineError.self, sourceLocation: location) {
                    _ = try LlamaTokenizer(modelPath: path)
                })
        }

        @Test func `files that are no models are refused with a reason`() throws {
            expectRefusal("/nowhere/model.gguf", reason: "no such file")
            expectRefusal("/tmp", reason: "not a regular file")
            try withFile(Data()) { expectRefusal($0) }
            try withFile(Data("GGUF".utf8)) { expectRefusal($0, reason: "header is damaged") }
            try withFile(Data("Once upon a time".utf8)) {
                expectRefusal($0, reason: "not a GGUF file")
            }
            var generator = SeededGenerator(seed: 1)
            let noise = (0..<4096).map { _ in UInt8.random(in: 0...255, using: &generator) }
            try withFile(Data("GGUF".utf8) + Data([3, 0, 0, 0]) + Data(noise)) {
                expectRefusal($0)
            }
        }

        @Test func `truncated models are refused with a reason`() throws {
            let model = try Data(contentsOf: URL(fileURLWithPath: TinyModel.path))
            for count in [5, 100, 3000, 40_000] {
                try withFile(model.prefix(count)) {
                    expectRefusal($0, reason: "header is damaged")
                }
            }
            for count in [model.count / 2, model.count - 1] {
                try withFile(model.prefix(count)) { expectRefusal($0, reason: "truncated") }
            }
        }

        @Test func `a model without a vocabulary is refused`() throws {
            let model = try Data(contentsOf: URL(fileURLWithPath: TinyModel.path))
            try withFile(replacing("tokenizer.ggml.model", "tokenizer.ggml.nodel", in: model)) {
                expectRefusal($0)
            }
            try withFile(replacing("tokenizer.ggml.tokens", "tokenizer.ggml.nokens", in: model)) {
                expectRefusal($0)
            }
        }

        @Test func `recurrent and hybrid models are refused by name`() throws {
            let model = try Data(contentsOf: URL(fileURLWithPath: TinyModel.path))
            for (architecture, reason) in [
                ("mamba", "is recurrent"), ("rwkv6", "is recurrent"), ("jamba", "is a hybrid"),
                ("dream", "is a diffusion model"),
            ] {
                try withFile(replacing("llama", architecture, in: model)) { path in
                    let error = #expect(throws: EngineError.self) {
                        _ = try LlamaEngine(settings: .init(modelPath: path)) { _ in }
                    }
                    guard case .modelNotSupported(let text) = error else {
                        Issue.record("\(architecture): \(String(describing: error))")
                        return
                    }
                    #expect(text.contains(reason) && text.contains(architecture), "\(text)")
                }
            }
        }

        /// The data with a text replaced by another one of the same length, wherever it stands.
        private func replacing(_ old: String, _ new: String, in data: Data) -> Data {
            var data = data
            while let range = data.range(of: Data(old.utf8)) {
                data.replaceSubrange(range, with: Data(new.utf8))
            }
            return data
        }

        @Test func `the log names what is wrong and is silent about aborted steps`() async throws {
            let lines = Mutex<[String]>([])
            LlamaLog.setSink { level, line in lines.withLock { $0.append("\(level): \(line)") } }
            defer { LlamaLog.setSink(nil) }
            let engine = try LlamaEngine(settings: TinyModel.settings()) { _ in }
            engine.submit(.run(.greedy(try TinyModel.prompt(tokens: 2000), new: 1)))
            while engine.progress.stepAge == nil, engine.progress.steps == 0 { await Task.yield() }
            await engine.shutdown()
            let abortLines = lines.withLock { $0 }.filter { $0.hasPrefix("error") }
            #expect(abortLines.isEmpty)

            let model = try Data(contentsOf: URL(fileURLWithPath: TinyModel.path))
            try withFile(replacing("tokenizer.ggml.tokens", "tokenizer.ggml.nokens", in: model)) {
                expectRefusal($0, reason: "tokenizer")
            }
            let errorLines = lines.withLock { $0 }.filter { $0.hasPrefix("error") }
            #expect(errorLines.contains { $0.contains("tokenizer") })
            #expect(!errorLines.contains { $0.contains("\n") })
        }

        @Test func `settings that libllama would not survive are refused`() {
            func expectRefusal(_ change: (inout LlamaEngine.Settings) -> Void) {
                var settings = TinyModel.settings()
                change(&settings)
                let error = #expect(throws: EngineError.self) {
                    _ = try LlamaEngine(settings: settings) { _ in }
                }
                guard case .contextNotCreated = error else {
                    Issue.record("\(String(describing: error))")
                    return
                }
            }
            expectRefusal { $0.maximumSequences = 0 }
            expectRefusal { $0.maximumSequences = 256 }
            expectRefusal { $0.microBatchTokens = 4 }
            expectRefusal { $0.microBatchTokens = 4096 }
            expectRefusal { $0.kvCapacityTokens = 0 }
            expectRefusal { $0.threads = 0 }
            expectRefusal { $0.prefillBudgetTokens = 0 }
        }

        /// One engine that exports, one that imports while another sequence runs.
        @Test func `damaged blocks are refused and harm nobody`() async throws {
            var recorder = EngineRecorder()
            let engine = try LlamaEngine(settings: TinyModel.settings(), onEvent: recorder.sink)
            let prompt = try TinyModel.prompt(tokens: 40)
            var job = SequenceJob.greedy(prompt, new: 1, exportsKV: true)
            engine.submit(.run(job))
            let block = try #require(await recorder.outcome(of: job.sequence).blocks.first)
            let bytes = unsafe block.bytes.withBytes { unsafe Array($0) }

            let bystander = SequenceJob.greedy(prompt, new: 20, id: 2)
            engine.submit(.run(bystander))
            let undisturbed = await recorder.outcome(of: bystander.sequence).tokens
            recorder.forget(bystander.sequence)

            job.exportsKV = false
            job.tokens += [1]
            job.importedTokens = 40
            job.maximumNewTokens = 4
            engine.submit(.run(SequenceJob.greedy(prompt, new: 1900, id: 3)))
            var generator = SeededGenerator(seed: 7)
            for round in 0..<120 {
                let damaged = damage(bytes, round: round, using: &generator)
                let id = SequenceID(UInt64(100 + round))
                engine.submit(.importKV(id, copy(of: damaged, like: block)))
                job.sequence = id
                // Dropped if the block is refused.
                engine.submit(.run(job))
                let outcome = await recorder.outcome(of: id) {
                    !$0.refusals.isEmpty || $0.isClosed
                }
                let isRefused = outcome.refusals.count == 1 && outcome.importedTokens == 0
                #expect(
                    isRefused || !damaged.mustBeRefused,
                    "round \(round) was taken: \(damaged.what)")
            }
            engine.submit(.cancel(SequenceID(3)))
            #expect(await recorder.outcome(of: SequenceID(3)).error == nil)
            engine.submit(.run(bystander))
            #expect(await recorder.outcome(of: bystander.sequence).tokens == undisturbed)
            #expect(engine.progress.usedKVTokens == 0)
            await engine.shutdown()
        }

        private struct Damaged {
            var bytes: [UInt8]
            var what: String
            var fixesChecksum: Bool
            var mustBeRefused = true
        }

        /// Damage at random places; every second round the checksum is made to fit.
        private func damage(
            _ bytes: [UInt8], round: Int, using generator: inout SeededGenerator
        ) -> Damaged {
            let fixes = round % 2 == 0
            var damaged = Damaged(bytes: bytes, what: "", fixesChecksum: fixes)
            switch round % 3 {
            case 0:
                let count = Int.random(in: 0..<bytes.count, using: &generator)
                damaged.bytes = Array(bytes.prefix(count))
                damaged.what = "cut to \(count)"
            case 1:
                // Header, libllama's header, positions: where counts and numbers stand.
                let place = Int.random(in: 0..<(40 + 12 * 40), using: &generator)
                damaged.bytes[place] ^= UInt8.random(in: 1...255, using: &generator)
                damaged.what = "byte \(place)"
                // libllama ignores its sequence numbers.
                let inState = place - LlamaKVLayout.headerBytes
                let isSequence =
                    (4..<8).contains(inState) || (inState >= 16 && (inState - 16) % 12 >= 8)
                damaged.mustBeRefused = !(fixes && isSequence)
            default:
                let place = Int.random(in: 40..<bytes.count, using: &generator)
                damaged.bytes[place] ^= UInt8.random(in: 1...255, using: &generator)
                damaged.what = "byte \(place)"
                damaged.mustBeRefused = !fixes
            }
            return damaged
        }

        private func copy(of damaged: Damaged, like block: KVBlock) -> KVBlock {
            let buffer = KVBuffer(capacityBytes: damaged.bytes.count)
            unsafe buffer.withWritableBytes { unsafe $0.copyBytes(from: damaged.bytes) }
            buffer.setUsedBytes(damaged.bytes.count)
            var copy = KVBlock(
                tokenStart: block.tokenStart, tokenCount: block.tokenCount, checksumming: buffer)
            if !damaged.fixesChecksum { copy.checksum = block.checksum }
            return copy
        }

        @Test func `blocks out of order and of other lengths are refused`() async throws {
            var recorder = EngineRecorder()
            let engine = try LlamaEngine(settings: TinyModel.settings(), onEvent: recorder.sink)
            let job = SequenceJob.greedy(
                try TinyModel.prompt(tokens: 300), new: 1, exportsKV: true)
            engine.submit(.run(job))
            let blocks = await recorder.outcome(of: job.sequence).blocks
            #expect(blocks.map(\.tokenCount) == [256, 44])
            var shorter = blocks[0]
            shorter.tokenCount = 255
            var moved = blocks[0]
            moved.tokenStart = 256
            for (number, list) in [
                [blocks[1]], [blocks[0], blocks[0]], [shorter], [blocks[0], moved],
            ].enumerated() {
                let id = SequenceID(UInt64(10 + number))
                for block in list { engine.submit(.importKV(id, block)) }
                let outcome = await recorder.outcome(of: id) { !$0.refusals.isEmpty }
                let due = list.count == 2 ? 256 : 0
                #expect(outcome.refusals.map(\.expectedToken) == [due], "list \(number)")
                #expect(outcome.importedTokens == due && !outcome.isClosed, "list \(number)")
                engine.submit(.cancel(id))
                if due > 0 { #expect(await recorder.outcome(of: id).wasCancelled) }
            }
            #expect(engine.progress.usedKVTokens == 0)
            await engine.shutdown()
        }
    }
}
