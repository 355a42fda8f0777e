#if os(Linux)
    import InferenceEngine
    import ServingTypes
    import SimulatedEngine
    import Testing

    @testable import SharedMemory

    /// KV that one engine exports and another one imports, in the same memory.
    struct EngineTests {
        private let tokens = (0..<700).map { TokenID($0 % 251) }

        /// Events of one sequence up to its end.
        private func events(
            of settings: SimulatedEngine.Settings, _ commands: [EngineCommand]
        ) async throws -> [EngineEvent] {
            let (stream, continuation) = AsyncStream<EngineEvent>.makeStream()
            let engine = try SimulatedEngine(settings: settings) { continuation.yield($0) }
            for command in commands { engine.submit(command) }
            var events: [EngineEvent] = []
            for await event in stream {
                events.append(event)
                if event.isLast { break }
            }
            await engine.shutdown()
            return events
        }

        @Test func `an engine goes on from KV that another one wrote into shared memory`()
            async throws
        {
            var settings = SimulatedEngine.Settings.instant
            settings.kvMemory = SharedMemorySource()
            var job = SequenceJob(
                sequence: SequenceID(1), tokens: tokens, sampling: SamplingParameters(),
                maximumNewTokens: 20)
            let whole = try await events(of: settings, [.run(job)]).compactMap(\.token)
            try #require(whole.count == 20)
            job.maximumNewTokens = 1
            job.exportsKV = true
            let exported = try await events(of: settings, [.run(job)]).compactMap(\.block)
            #expect(exported.reduce(0) { $0 + $1.tokenCount } == tokens.count)

            let (sender, receiver) = try makePair()
            var commands: [EngineCommand] = []
            for (number, block) in exported.enumerated() {
                try sender.send(
                    buffer: block.bytes, number: UInt64(number), deadline: patience)
                let received = try receiver.receive(
                    number: UInt64(number), usedBytes: block.bytes.usedBytes, deadline: patience)
                let copy = KVBlock(
                    tokenStart: block.tokenStart, tokenCount: block.tokenCount,
                    bytes: received, checksum: block.checksum)
                commands.append(.importKV(SequenceID(1), copy))
            }
            job.exportsKV = false
            job.tokens += whole.prefix(1)
            job.outputTokens = 1
            job.importedTokens = tokens.count
            job.maximumNewTokens = 19
            commands.append(.run(job))
            let rest = try await events(of: .instant, commands).compactMap(\.token)
            #expect(rest == Array(whole.dropFirst()))
        }
    }

    extension EngineEvent {
        fileprivate var token: TokenID? {
            if case .token(_, let output, _) = self { output.token } else { nil }
        }

        fileprivate var block: KVBlock? {
            if case .exported(_, let block) = self { block } else { nil }
        }

        fileprivate var isLast: Bool {
            switch self {
            case .imported, .exported, .exportEnded, .held: false
            case .token(_, _, let finish): finish != nil
            case .blockRefused, .failed, .cancelled, .engineLost: true
            }
        }
    }
#endif
