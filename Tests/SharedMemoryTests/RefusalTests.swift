#if os(Linux)
    import CSharedMemory
    import Foundation
    import Glibc
    import InferenceEngine
    import Testing

    @testable import SharedMemory

    /// Peers that do not keep to the rules: a typed error, the connection's end, and no leak.
    struct RefusalTests {
        private let bytes = 1 << 20

        /// What a receiver answers when this is passed under number 1.
        private func answer(
            to files: [Int32], announced: Int? = nil, wanted: Int? = nil, number: UInt64 = 1
        ) throws -> LocalTransferError? {
            let (peer, own) = try makeSockets()
            defer { close(peer) }
            let message = LocalMessage(
                number: number, capacityBytes: UInt64(announced ?? bytes))
            sendRaw(peer, message.bytes, files: files)
            let receiver = LocalConnection(file: own)
            let error = failure {
                _ = try receiver.receive(
                    number: 1, usedBytes: wanted ?? bytes, deadline: patience)
            }
            if error != nil {
                var byte: UInt8 = 0
                #expect(unsafe recv(peer, &byte, 1, 0) == 0, "the connection is at its end")
            } else {
                receiver.shutdown()
            }
            for file in Set(files) {
                let identity = try FileIdentity(file)
                #expect(identity.descriptors == 1, "no descriptor is left")
                #expect(identity.mappings == 0, "no mapping is left")
            }
            return error
        }

        private func withMemoryFile<Result>(
            seals: Int32, _ body: (Int32) throws -> Result
        ) throws -> Result {
            let file = try makeMemoryFile(bytes: bytes, seals: seals)
            defer { close(file) }
            return try body(file)
        }

        @Test func `a sealed memory file is taken from anybody`() throws {
            let error = try withMemoryFile(seals: Seals.all) { try answer(to: [$0]) }
            #expect(error == nil)
        }

        @Test(arguments: [
            0, Seals.shrink, Seals.grow | Seals.futureWrite, Seals.shrink | Seals.futureWrite,
            Seals.shrink | Seals.grow,
        ])
        func `a memory file without all seals`(seals: Int32) throws {
            #expect(try withMemoryFile(seals: seals) { try answer(to: [$0]) } == .notSealed)
        }

        @Test func `another number`() throws {
            let error = try withMemoryFile(seals: Seals.all) { try answer(to: [$0], number: 2) }
            #expect(error == .wrongNumber(expected: 1, received: 2))
        }

        @Test(arguments: [0, 4096, (1 << 20) - 1, (1 << 20) + 1, 1 << 40])
        func `another size than announced`(announced: Int) throws {
            let error = try withMemoryFile(seals: Seals.all) {
                try answer(to: [$0], announced: announced, wanted: 1)
            }
            #expect(
                error
                    == .wrongSize(announcedBytes: UInt64(announced), actualBytes: UInt64(bytes)))
        }

        @Test func `less memory than the KV needs`() throws {
            let error = try withMemoryFile(seals: Seals.all) {
                try answer(to: [$0], wanted: bytes + 1)
            }
            #expect(error == .tooSmall(actualBytes: UInt64(bytes), neededBytes: bytes + 1))
        }

        @Test(arguments: ["/tmp", "/dev/shm"]) func `an ordinary file`(folder: String) throws {
            let path = "\(folder)/pdserve-\(UUID())"
            let file = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
            try #require(file >= 0)
            defer { close(file) }
            unsafe unlink(path)
            try #require(ftruncate(file, bytes) == 0)
            #expect(try answer(to: [file]) == .notMemoryFile)
        }

        @Test func `a descriptor that is no file`() throws {
            let (one, other) = try makeSockets()
            defer { for file in [one, other] { close(file) } }
            #expect(try answer(to: [one]) == .notMemoryFile)
        }

        @Test func `no descriptor`() throws {
            #expect(try answer(to: []) == .descriptors(count: 0))
        }

        @Test(arguments: 2...4) func `extra descriptors`(count: Int) throws {
            let error = try withMemoryFile(seals: Seals.all) { file in
                try answer(to: Array(repeating: file, count: count))
            }
            #expect(error == .descriptors(count: count))
        }

        @Test(arguments: [5, 16]) func `more descriptors than there is room for`(count: Int) throws
        {
            let error = try withMemoryFile(seals: Seals.all) { file in
                try answer(to: Array(repeating: file, count: count))
            }
            #expect(error == .descriptorsLost)
        }

        @Test func `a descriptor with each half of the message`() throws {
            let (peer, own) = try makeSockets()
            defer { close(peer) }
            let file = try makeMemoryFile(bytes: bytes, seals: Seals.all)
            defer { close(file) }
            let message = LocalMessage(number: 1, capacityBytes: UInt64(bytes)).bytes
            sendRaw(peer, Array(message[..<8]), files: [file])
            sendRaw(peer, Array(message[8...]), files: [file])
            let receiver = LocalConnection(file: own)
            let error = failure {
                _ = try receiver.receive(number: 1, usedBytes: 1, deadline: patience)
            }
            #expect(error == .descriptors(count: 2))
            #expect(try FileIdentity(file).descriptors == 1)
        }

        @Test(arguments: [0, 5]) func `a peer that closes`(sentBytes: Int) throws {
            let (peer, own) = try makeSockets()
            let file = try makeMemoryFile(bytes: bytes, seals: Seals.all)
            defer { close(file) }
            let message = LocalMessage(number: 1, capacityBytes: UInt64(bytes)).bytes
            if sentBytes > 0 { sendRaw(peer, Array(message[..<sentBytes]), files: [file]) }
            close(peer)
            let receiver = LocalConnection(file: own)
            let error = failure {
                _ = try receiver.receive(number: 1, usedBytes: 1, deadline: patience)
            }
            #expect(error == .closedByPeer)
            #expect(try FileIdentity(file).descriptors == 1)
        }

        @Test(arguments: [0, 5]) func `a peer that falls silent`(sentBytes: Int) throws {
            let (peer, own) = try makeSockets()
            defer { close(peer) }
            if sentBytes > 0 { sendRaw(peer, Array(repeating: 0, count: sentBytes)) }
            let receiver = LocalConnection(file: own)
            let start = ContinuousClock.now
            let error = failure {
                _ = try receiver.receive(number: 1, usedBytes: 1, deadline: .milliseconds(100))
            }
            #expect(error == .deadline)
            #expect(start.duration(to: .now) >= .milliseconds(100))
        }

        @Test func `a receiver that closes`() throws {
            let (peer, own) = try makeSockets()
            close(peer)
            let sender = LocalConnection(file: own)
            let buffer = try sharedBuffer(bytes: bytes)
            let error = failure {
                try sender.send(buffer: buffer, number: 1, deadline: patience)
            }
            #expect(error == .closedByPeer)
        }
    }
#endif
