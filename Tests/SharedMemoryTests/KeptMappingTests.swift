#if os(Linux)
    import InferenceEngine
    import Testing

    @testable import SharedMemory

    /// Memory files that come again, and what is kept of them.
    struct KeptMappingTests {
        private let bytes = 64 << 10

        /// A sender and a receiver, and the number of the next buffer.
        private struct Pair {
            let sender: LocalConnection
            let receiver: LocalConnection
            private var number: UInt64 = 0

            init(_ kept: KeptMappings = KeptMappings()) throws {
                (sender, receiver) = try makePair(kept: kept)
            }

            mutating func pass(_ buffer: KVBuffer, usedBytes: Int? = nil) throws -> KVBuffer {
                number += 1
                try sender.send(buffer: buffer, number: number, deadline: patience)
                return try receiver.receive(
                    number: number, usedBytes: usedBytes ?? buffer.usedBytes, deadline: patience)
            }
        }

        private func address(_ buffer: KVBuffer) -> UInt {
            unsafe buffer.withBytes { UInt(bitPattern: $0.baseAddress) }
        }

        private func identity(_ buffer: KVBuffer) throws -> FileIdentity {
            try FileIdentity(try #require(buffer.sharedFile))
        }

        /// For each buffer whether the receiver has it mapped, beside the sender.
        private func areMapped(_ buffers: [KVBuffer]) throws -> [Bool] {
            try buffers.map { try identity($0).mappings == 2 }
        }

        @Test func `a file that comes again is not mapped again, and shows its new bytes`() throws {
            var pair = try Pair()
            let sent = try sharedBuffer(bytes: bytes)
            var addresses: Set<UInt> = []
            for seed in 1...100 as ClosedRange<UInt8> {
                fill(sent, seed: seed)
                var received: KVBuffer? = try pair.pass(sent)
                addresses.insert(address(try #require(received)))
                #expect(firstDifference(in: try #require(received), seed: seed) == nil)
                received = nil
                #expect(try identity(sent).mappings == 2)
            }
            #expect(addresses.count == 1)
        }

        @Test func `a file that comes again may have more bytes in use, or fewer`() throws {
            var pair = try Pair()
            let sent = try sharedBuffer(bytes: 1 << 20)
            for usedBytes in [1, 5000, 4096, 1 << 20, 8192] {
                let received = try pair.pass(sent, usedBytes: usedBytes)
                #expect(received.capacityBytes == usedBytes)
                #expect(firstDifference(in: received) == nil)
                #expect(try identity(sent).mappings == 2)
            }
        }

        @Test func `a file that is in use twice stays until both have let go`() throws {
            var pair = try Pair()
            let sent = try sharedBuffer(bytes: bytes)
            var first: KVBuffer? = try pair.pass(sent)
            var second: KVBuffer? = try pair.pass(sent)
            #expect(first.map(address) == second.map(address))
            pair.receiver.shutdown()
            first = nil
            #expect(firstDifference(in: try #require(second)) == nil)
            second = nil
            #expect(try identity(sent).mappings == 1)
        }

        @Test func `a new file is never taken for one that was freed`() throws {
            var pair = try Pair()
            for seed in 0..<250 as Range<UInt8> {
                let received = try pair.pass(sharedBuffer(bytes: 4096, seed: seed))
                try #require(firstDifference(in: received, seed: seed) == nil)
            }
        }

        @Test func `of too many files the one that has not come for longest goes`() throws {
            var pair = try Pair(KeptMappings(maximumFiles: 2))
            let sent = try (1...3).map { try sharedBuffer(bytes: bytes, seed: $0) }
            for index in [0, 1, 0, 2] { _ = try pair.pass(sent[index]) }
            #expect(try areMapped(sent) == [true, false, true])
            #expect(firstDifference(in: try pair.pass(sent[1]), seed: 2) == nil)
            #expect(try areMapped(sent) == [false, true, true])
        }

        @Test func `of too many bytes as many files go as the new one needs`() throws {
            var pair = try Pair(KeptMappings(maximumBytes: 4 * bytes))
            let small = try (1...3).map { try sharedBuffer(bytes: bytes, seed: $0) }
            let large = try sharedBuffer(bytes: 3 * bytes)
            for buffer in small { _ = try pair.pass(buffer) }
            #expect(try areMapped(small) == [true, true, true])
            _ = try pair.pass(large)
            #expect(try areMapped(small + [large]) == [false, false, true, true])
        }

        @Test func `a file larger than all that is kept is mapped each time, as far as used`()
            throws
        {
            var pair = try Pair(KeptMappings(maximumBytes: bytes))
            let small = try sharedBuffer(bytes: bytes)
            let large = try sharedBuffer(bytes: bytes + 1)
            _ = try pair.pass(small)
            var received: KVBuffer? = try pair.pass(large)
            #expect(firstDifference(in: try #require(received)) == nil)
            #expect(try areMapped([small, large]) == [true, true])
            received = nil
            #expect(try areMapped([small, large]) == [true, false])
        }

        @Test func `a buffer keeps its mapping when that is kept no longer`() throws {
            var pair = try Pair(KeptMappings(maximumFiles: 1))
            let sent = try (1...3).map { try sharedBuffer(bytes: bytes, seed: $0) }
            var held: [KVBuffer] = []
            for buffer in sent { held.append(try pair.pass(buffer)) }
            #expect(try areMapped(sent) == [true, true, true])
            for (index, buffer) in held.enumerated() {
                #expect(firstDifference(in: buffer, seed: UInt8(index + 1)) == nil)
            }
            held = []
            #expect(try areMapped(sent) == [false, false, true])
        }

        @Test(arguments: [true, false])
        func `with the connection's end only buffers in use stay`(isOwnEnd: Bool) throws {
            var pair = try Pair()
            var sent: [KVBuffer] = try (1...2).map { try sharedBuffer(bytes: bytes, seed: $0) }
            let identities = try sent.map(identity)
            var held: KVBuffer? = try pair.pass(sent[0])
            _ = try pair.pass(sent[1])
            if isOwnEnd {
                pair.receiver.shutdown()
            } else {
                pair.sender.shutdown()
                let receiver = pair.receiver
                let error = failure {
                    _ = try receiver.receive(number: 3, usedBytes: 1, deadline: patience)
                }
                #expect(error == .closedByPeer)
            }
            #expect(try areMapped(sent) == [true, false])
            sent = []
            #expect(identities.map(\.mappings) == [1, 0])
            #expect(firstDifference(in: try #require(held)) == nil)
            held = nil
            #expect(identities.map(\.mappings) == [0, 0])
        }

        @Test func `a connection without references keeps nothing`() throws {
            let sent = try sharedBuffer(bytes: bytes)
            try {
                var pair = try Pair()
                _ = try pair.pass(sent)
                #expect(try areMapped([sent]) == [true])
            }()
            #expect(try areMapped([sent]) == [false])
        }

        @Test func `ten thousand passes of more files than are kept leave no more than that`()
            async throws
        {
            var pair = try Pair(KeptMappings(maximumFiles: 8))
            let source = SharedMemorySource()
            let sent = try (0..<12).map {
                try sharedBuffer(bytes: bytes, seed: UInt8($0), source: source)
            }
            let (buffers, letGo) = AsyncStream.makeStream(of: KVBuffer.self)
            let releasing = Task { for await buffer in buffers { _ = buffer.usedBytes } }
            var generator = SystemRandomNumberGenerator()
            for _ in 0..<10_000 {
                let index = Int.random(in: sent.indices, using: &generator)
                let received = try pair.pass(sent[index])
                let last = unsafe received.withBytes { unsafe $0[bytes - 1] }
                try #require(last == pattern(bytes - 1, UInt8(index)))
                letGo.yield(received)
            }
            letGo.finish()
            await releasing.value
            #expect(try areMapped(sent).count { $0 } == 8)
            #expect(try sent.map { try identity($0).descriptors } == sent.map { _ in 1 })
        }
    }
#endif
