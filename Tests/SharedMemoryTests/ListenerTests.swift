#if os(Linux)
    import CSharedMemory
    import Foundation
    import Glibc
    import InferenceEngine
    import Testing

    @testable import SharedMemory

    /// Who gets in.
    struct ListenerTests {
        private func withListener(
            connectionLimit: Int = SharedMemoryLimits.connections,
            tokenDeadline: Duration = SharedMemoryLimits.tokenDeadline,
            _ body: (LocalListener) async throws -> Void
        ) async throws {
            let folder = try makeFolder()
            defer { removeFolder(folder) }
            let listener = try LocalListener(
                directory: folder, name: "kv", connectionLimit: connectionLimit,
                tokenDeadline: tokenDeadline, logger: quiet)
            defer { listener.stop() }
            try await body(listener)
        }

        private func connect(
            _ listener: LocalListener, _ token: LocalToken, deadline: Duration = patience
        ) async throws -> LocalConnection {
            let path = listener.path
            return try await onThread {
                try LocalConnection.connect(path: path, token: token, deadline: deadline)
            }
        }

        /// What a connection that shows this sees: the answer's bytes, then the end.
        private func answer(from listener: LocalListener, to shown: [UInt8]) async throws -> [UInt8]
        {
            let path = listener.path
            return try await onThread {
                let file = unsafe local_socket_connect(path)
                try #require(file >= 0)
                defer { close(file) }
                if !shown.isEmpty { sendRaw(file, shown) }
                try #require(LocalSocket.wait(file, POLLIN, Deadline(after: patience)))
                var answer = [UInt8](repeating: 0, count: 8)
                let count = unsafe recv(file, &answer, answer.count, 0)
                return Array(answer.prefix(max(0, count)))
            }
        }

        @Test func `an expected token joins two ends`() async throws {
            try await withListener { listener in
                let token = LocalToken.random()
                try listener.expect(token)
                async let connecting = connect(listener, token)
                let receiver = try #require(
                    try await onThread { listener.take(token, deadline: patience) })
                let sender = try await connecting
                let buffer = try sharedBuffer(bytes: 5000)
                try sender.send(buffer: buffer, number: 3, deadline: patience)
                let received = try receiver.receive(
                    number: 3, usedBytes: 5000, deadline: patience)
                #expect(firstDifference(in: received) == nil)
            }
        }

        @Test func `each token has its own connection`() async throws {
            try await withListener { listener in
                let tokens = (0..<8).map { _ in LocalToken.random() }
                for token in tokens { try listener.expect(token) }
                var senders: [LocalConnection] = []
                for token in tokens.reversed() {
                    senders.insert(try await connect(listener, token), at: 0)
                }
                for (index, token) in tokens.enumerated() {
                    let buffer = try sharedBuffer(bytes: 100, seed: UInt8(index))
                    try senders[index].send(buffer: buffer, number: 1, deadline: patience)
                    let receiver = try #require(listener.take(token, deadline: .zero))
                    let received = try receiver.receive(
                        number: 1, usedBytes: 100, deadline: patience)
                    #expect(firstDifference(in: received, seed: UInt8(index)) == nil)
                }
            }
        }

        @Test func `a wrong token is refused, and the right one still lets in`() async throws {
            try await withListener { listener in
                let token = LocalToken.random()
                try listener.expect(token)
                for place in [0, 15, 31] {
                    var bytes = token.bytes
                    bytes[place] ^= 1
                    let wrong = try #require(LocalToken(bytes: bytes))
                    await #expect(throws: LocalTransferError.tokenRefused) {
                        _ = try await connect(listener, wrong)
                    }
                }
                #expect(listener.take(token, deadline: .zero) == nil)
                _ = try await connect(listener, token)
                #expect(listener.take(token, deadline: patience) != nil)
            }
        }

        @Test func `a token lets one connection in`() async throws {
            try await withListener { listener in
                let token = LocalToken.random()
                try listener.expect(token)
                let first = try await connect(listener, token)
                await #expect(throws: LocalTransferError.tokenRefused) {
                    _ = try await connect(listener, token)
                }
                #expect(listener.take(token, deadline: patience) != nil)
                #expect(listener.take(token, deadline: .zero) == nil)
                await #expect(throws: LocalTransferError.tokenRefused) {
                    _ = try await connect(listener, token)
                }
                withExtendedLifetime(first) {}
            }
        }

        @Test func `a forgotten token lets nobody in and wakes who waits for it`() async throws {
            try await withListener { listener in
                let token = LocalToken.random()
                try listener.expect(token)
                async let taking = onThread { listener.take(token, deadline: .seconds(60)) }
                try await Task.sleep(for: .milliseconds(50))
                listener.forget(token)
                #expect(try await taking == nil)
                await #expect(throws: LocalTransferError.tokenRefused) {
                    _ = try await connect(listener, token)
                }
            }
        }

        @Test func `forgetting closes a connection nobody took`() async throws {
            try await withListener { listener in
                let token = LocalToken.random()
                try listener.expect(token)
                let sender = try await connect(listener, token)
                listener.forget(token)
                let buffer = try sharedBuffer(bytes: 100)
                #expect(throws: LocalTransferError.closedByPeer) {
                    try sender.send(buffer: buffer, number: 1, deadline: patience)
                }
            }
        }

        @Test(arguments: [0, 31]) func `a peer that shows no whole token`(shown: Int) async throws {
            try await withListener(tokenDeadline: .milliseconds(100)) { listener in
                let token = LocalToken.random()
                try listener.expect(token)
                let start = ContinuousClock.now
                let part = Array(token.bytes[..<shown])
                #expect(try await answer(from: listener, to: part) == [])
                #expect(start.duration(to: .now) >= .milliseconds(100))
                _ = try await connect(listener, token)
            }
        }

        @Test func `a token may come in pieces`() async throws {
            try await withListener { listener in
                let token = LocalToken.random()
                try listener.expect(token)
                let path = listener.path
                let answer = try await onThread {
                    let file = unsafe local_socket_connect(path)
                    defer { close(file) }
                    for byte in token.bytes {
                        sendRaw(file, [byte])
                        LocalSocket.pause(.milliseconds(1))
                    }
                    try #require(LocalSocket.wait(file, POLLIN, Deadline(after: patience)))
                    var answer: UInt8 = 0
                    let count = unsafe recv(file, &answer, 1, 0)
                    return [UInt8](repeating: answer, count: max(0, count))
                }
                #expect(answer == LocalMessage.acceptance)
            }
        }

        @Test func `silent peers do not keep others out for longer than their time`() async throws {
            try await withListener(tokenDeadline: .milliseconds(200)) { listener in
                let path = listener.path
                let silent = (0..<40).map { _ in unsafe local_socket_connect(path) }
                defer { for file in silent { close(file) } }
                #expect(silent.allSatisfy { $0 >= 0 })
                let token = LocalToken.random()
                try listener.expect(token)
                _ = try await connect(listener, token)
                #expect(listener.take(token, deadline: patience) != nil)
            }
        }

        @Test func `more connections than allowed are refused until one is closed`() async throws {
            try await withListener(connectionLimit: 1) { listener in
                let tokens = [LocalToken.random(), LocalToken.random()]
                for token in tokens { try listener.expect(token) }
                let first = try await connect(listener, tokens[0])
                var taken = listener.take(tokens[0], deadline: patience)
                #expect(taken != nil)
                await #expect(throws: LocalTransferError.tokenRefused) {
                    _ = try await connect(listener, tokens[1])
                }
                taken = nil
                _ = try await connect(listener, tokens[1])
                withExtendedLifetime(first) {}
            }
        }

        @Test func `tokens have a bound`() async throws {
            try await withListener { listener in
                let tokens = (0..<SharedMemoryLimits.expectedTokens).map { _ in
                    LocalToken.random()
                }
                for token in tokens { try listener.expect(token) }
                let limit = SharedMemoryLimits.expectedTokens
                #expect(throws: LocalTransferError.tooManyTokens(limit: limit)) {
                    try listener.expect(.random())
                }
                try listener.expect(tokens[0])
                listener.forget(tokens[0])
                try listener.expect(.random())
            }
        }

        @Test func `a token says nothing of itself`() {
            let token = LocalToken.random()
            #expect("\(token)" == "token")
            #expect(LocalToken(bytes: Array(repeating: 0, count: 31)) == nil)
            #expect(LocalToken.random() != token)
        }

        @Test(.enabled(if: ForeignUser.isPossible, "needs root, setpriv and perl"))
        func `another user is not let in, though it knows the token`() async throws {
            let folder = try makeFolder()
            defer { removeFolder(folder) }
            let listener = try LocalListener(directory: folder, name: "kv", logger: quiet)
            defer { listener.stop() }
            try #require(unsafe chmod(folder, 0o711) == 0)
            try #require(unsafe chmod(listener.path, 0o666) == 0)
            let token = LocalToken.random()
            try listener.expect(token)
            let path = listener.path
            let answers = try await onThread {
                try [true, false].map { try ForeignUser.connect(path, token, isForeign: $0) }
            }
            #expect(answers == ["refused", "accepted"])
        }
    }

    /// A process of another user that connects.
    private enum ForeignUser {
        static let isPossible =
            geteuid() == 0
            && ["/usr/bin/setpriv", "/usr/bin/perl"].allSatisfy {
                FileManager.default.isExecutableFile(atPath: $0)
            }

        private static let script = """
            use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die;
            connect($s, sockaddr_un($ARGV[0])) or die "connect: $!"; $SIG{PIPE} = "IGNORE";
            syswrite($s, pack("H*", $ARGV[1])); my $n = sysread($s, my $b, 1);
            print $n ? "accepted" : "refused";
            """

        static func connect(
            _ path: String, _ token: LocalToken, isForeign: Bool
        ) throws -> String {
            let process = Process()
            let output = Pipe()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/setpriv")
            let user = isForeign ? ["--reuid", "65534", "--clear-groups"] : []
            let shown = token.bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
            process.arguments =
                user + ["/usr/bin/perl", "-e", script, path, shown.joined()]
            process.standardOutput = output
            try process.run()
            let said = output.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return String(decoding: said, as: UTF8.self)
        }
    }
#endif
