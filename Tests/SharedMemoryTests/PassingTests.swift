#if os(Linux)
    import CSharedMemory
    import Glibc
    import InferenceEngine
    import Testing

    @testable import SharedMemory

    /// Memory that goes from one end to the other.
    struct PassingTests {
        @Test(arguments: [1, 4095, 4096, 4097, 3 << 20, (5 << 20) + 1])
        func `the receiver reads what the sender has written`(bytes: Int) throws {
            let (sender, receiver) = try makePair()
            let sent = try sharedBuffer(bytes: bytes)
            try sender.send(buffer: sent, number: 7, deadline: patience)
            let received = try receiver.receive(number: 7, usedBytes: bytes, deadline: patience)
            #expect(received.usedBytes == bytes)
            #expect(received.sharedFile == nil)
            #expect(firstDifference(in: received) == nil)
        }

        @Test func `the receiver reads the sender's memory, not a copy`() throws {
            let (sender, receiver) = try makePair()
            let sent = try sharedBuffer(bytes: 1 << 20)
            try sender.send(buffer: sent, number: 1, deadline: patience)
            let received = try receiver.receive(number: 1, usedBytes: 1 << 20, deadline: patience)
            unsafe sent.withWritableBytes { unsafe $0[1 << 19] = 99 }
            #expect(unsafe received.withBytes { unsafe $0[1 << 19] } == 99)
        }

        @Test func `only the first bytes can be mapped`() throws {
            let (sender, receiver) = try makePair()
            let sent = try sharedBuffer(bytes: 1 << 20)
            try sender.send(buffer: sent, number: 1, deadline: patience)
            let received = try receiver.receive(number: 1, usedBytes: 5000, deadline: patience)
            #expect(received.capacityBytes == 5000)
            #expect(firstDifference(in: received) == nil)
        }

        @Test func `received memory stays when the sender lets go`() throws {
            let (sender, receiver) = try makePair()
            var sent: KVBuffer? = try sharedBuffer(bytes: 1 << 20)
            try sender.send(buffer: try #require(sent), number: 1, deadline: patience)
            sent = nil
            let received = try receiver.receive(number: 1, usedBytes: 1 << 20, deadline: patience)
            #expect(firstDifference(in: received) == nil)
        }

        @Test func `a received buffer can't be written to`() async {
            await #expect(processExitsWith: .failure) {
                let (sender, receiver) = try makePair()
                let sent = try sharedBuffer(bytes: 4096)
                try sender.send(buffer: sent, number: 1, deadline: patience)
                let received = try receiver.receive(number: 1, usedBytes: 4096, deadline: patience)
                unsafe received.withWritableBytes { unsafe $0[0] = 1 }
                exit(EXIT_SUCCESS)
            }
        }

        @Test func `whoever has the descriptor can neither write nor change the size`() throws {
            let (own, peer) = try makeSockets()
            defer { close(peer) }
            let sent = try sharedBuffer(bytes: 1 << 20)
            try LocalConnection(file: own).send(buffer: sent, number: 1, deadline: patience)
            var message = [UInt8](repeating: 0, count: LocalMessage.byteCount)
            var files = local_socket_files()
            let count = unsafe local_socket_receive(peer, &message, message.count, &files)
            #expect(count == message.count)
            try #require(files.file_count == 1)
            let file = files.files.0
            defer { close(file) }
            #expect(fcntl(file, F_GETFD) & FD_CLOEXEC != 0)

            for size in [0, 4096, 2 << 20] {
                #expect(ftruncate(file, size) != 0 && errno == EPERM)
            }
            #expect(unsafe write(file, message, message.count) < 0 && errno == EPERM)
            let mapping = unsafe mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
            #expect(unsafe mapping == MAP_FAILED && errno == EPERM)
            let reading = unsafe mmap(nil, 4096, PROT_READ, MAP_SHARED, file, 0)
            try #require(unsafe reading != MAP_FAILED)
            #expect(unsafe mprotect(reading, 4096, PROT_READ | PROT_WRITE) != 0)
            _ = unsafe munmap(reading, 4096)
            #expect(fcntl(file, Seals.add, 1) != 0, "the set of seals is closed")

            unsafe sent.withWritableBytes { unsafe $0[0] = 42 }
            #expect(unsafe sent.withBytes { unsafe $0[0] } == 42)
        }

        @Test func `ten thousand passes leave no descriptor and no mapping`() throws {
            let (sender, receiver) = try makePair()
            let bytes = 256 << 10
            let sent = try sharedBuffer(bytes: bytes)
            let identity = try FileIdentity(try #require(sent.sharedFile))
            for number in 0..<10_000 as Range<UInt64> {
                try sender.send(buffer: sent, number: number, deadline: patience)
                let received = try receiver.receive(
                    number: number, usedBytes: bytes, deadline: patience)
                let last = unsafe received.withBytes { unsafe $0[bytes - 1] }
                try #require(last == pattern(bytes - 1, 1))
            }
            #expect(identity.descriptors == 1)
            #expect(identity.mappings == 2, "one of each side")
            receiver.shutdown()
            #expect(identity.mappings == 1)
        }

        @Test func `buffers come in the order they were passed, from any thread`() async throws {
            let (sender, receiver) = try makePair()
            async let passed: Void = onThread {
                for number in 0..<500 as Range<UInt64> {
                    let buffer = try sharedBuffer(bytes: 4096, seed: UInt8(number % 251))
                    try sender.send(buffer: buffer, number: number, deadline: patience)
                }
            }
            try await onThread {
                for number in 0..<500 as Range<UInt64> {
                    let buffer = try receiver.receive(
                        number: number, usedBytes: 4096, deadline: patience)
                    let seed = UInt8(number % 251)
                    try #require(firstDifference(in: buffer, seed: seed) == nil)
                }
            }
            try await passed
        }

        @Test func `what nobody wants is skipped`() throws {
            let (sender, receiver) = try makePair()
            let first = try sharedBuffer(bytes: 4096)
            let second = try sharedBuffer(bytes: 4096, seed: 2)
            let identity = try FileIdentity(try #require(first.sharedFile))
            try sender.send(buffer: first, number: 1, deadline: patience)
            try sender.send(buffer: second, number: 2, deadline: patience)
            try receiver.skip(number: 1, deadline: patience)
            #expect(identity.descriptors == 1)
            let received = try receiver.receive(number: 2, usedBytes: 4096, deadline: patience)
            #expect(firstDifference(in: received, seed: 2) == nil)
        }

        @Test func `ordinary memory is not passed, and the connection stays`() throws {
            let (sender, receiver) = try makePair()
            #expect(throws: LocalTransferError.notShared) {
                try sender.send(
                    buffer: KVBuffer(capacityBytes: 100), number: 1, deadline: patience)
            }
            try sender.send(buffer: try sharedBuffer(bytes: 10), number: 1, deadline: patience)
            _ = try receiver.receive(number: 1, usedBytes: 10, deadline: patience)
        }

        @Test func `a receiver that takes nothing does not hold the sender for ever`() throws {
            let (sender, receiver) = try makePair()
            let buffer = try sharedBuffer(bytes: 4096)
            let identity = try FileIdentity(try #require(buffer.sharedFile))
            #expect(throws: LocalTransferError.self) {
                for number in 0..<1_000_000 as Range<UInt64> {
                    try sender.send(buffer: buffer, number: number, deadline: .milliseconds(50))
                }
            }
            // What waits in the socket goes with it.
            receiver.shutdown()
            #expect(identity.descriptors == 1)
        }

        @Test func `shutdown wakes a receiver`() async throws {
            let (sender, receiver) = try makePair()
            async let waiting = onThread { () -> LocalTransferError? in
                failure {
                    _ = try receiver.receive(number: 1, usedBytes: 1, deadline: .seconds(60))
                }
            }
            try await Task.sleep(for: .milliseconds(50))
            receiver.shutdown()
            #expect(try await waiting == .shutDown)
            withExtendedLifetime(sender) {}
        }
    }

    /// Where shared memory comes from.
    struct SharedMemorySourceTests {
        @Test func `a pool passes the same memory file again`() throws {
            let pool = KVBufferPool(maximumKeptBytes: 8 << 20, source: SharedMemorySource())
            let first = try #require(pool.buffer(capacityBytes: 1 << 20).sharedFile)
            #expect(pool.keptBytes == 1 << 20)
            #expect(pool.buffer(capacityBytes: 1 << 20).sharedFile == first)
            let buffers = (0..<2).map { _ in pool.buffer(capacityBytes: 1 << 20) }
            #expect(buffers[0].sharedFile != buffers[1].sharedFile)
        }

        @Test func `a pool that goes closes its memory files`() throws {
            var pool: KVBufferPool? = KVBufferPool(
                maximumKeptBytes: 8 << 20, source: SharedMemorySource())
            let file = try #require(pool?.buffer(capacityBytes: 1 << 20).sharedFile)
            let identity = try FileIdentity(file)
            #expect(identity.descriptors == 1)
            #expect(identity.mappings == 1)
            pool = nil
            #expect(identity.descriptors == 0)
            #expect(identity.mappings == 0)
        }

        @Test func `beyond the limit memory is ordinary, and shared again later`() throws {
            let source = SharedMemorySource(maximumFiles: 2)
            let memories = (0..<3).map { _ in source.allocate(capacityBytes: 4096) }
            #expect(memories.map { $0.file != nil } == [true, true, false])
            unsafe memories[2].writableBytes[4095] = 1
            source.free(memories[0])
            let next = source.allocate(capacityBytes: 4096)
            #expect(next.file != nil)
            for memory in [memories[1], memories[2], next] { source.free(memory) }
        }

        @Test func `memory is there before it is used`() throws {
            let source = SharedMemorySource()
            let memory = source.allocate(capacityBytes: 4 << 20)
            defer { source.free(memory) }
            var resident = [UInt8](repeating: 0, count: (4 << 20) / 4096)
            let start = unsafe UnsafeMutableRawPointer(mutating: memory.bytes.baseAddress)
            #expect(unsafe mincore(start, 4 << 20, &resident) == 0)
            #expect(resident.allSatisfy { $0 & 1 == 1 })
        }
    }
#endif
