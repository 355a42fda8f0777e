#if os(Linux)
    import CSharedMemory
    import Foundation
    import Glibc
    import Testing

    @testable import SharedMemory

    /// The socket's place in the file system.
    struct DoorTests {
        private func mode(_ path: String) -> mode_t? {
            var status = stat()
            guard unsafe lstat(path, &status) == 0 else { return nil }
            return status.st_mode & 0o777
        }

        @Test func `a missing folder is made for this user alone, and stop removes the socket`()
            throws
        {
            let parent = try makeFolder()
            defer { removeFolder(parent) }
            let folder = "\(parent)/sockets"
            let listener = try LocalListener(directory: folder, name: "kv", logger: quiet)
            #expect(mode(folder) == 0o700)
            #expect(mode(listener.path) == 0o600)
            listener.stop()
            listener.stop()
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == [])
            #expect(
                failure {
                    _ = try LocalConnection.connect(
                        path: listener.path, token: .random(), deadline: patience)
                }
                    == .connectFailed(path: listener.path, problem: LocalSocket.text(ENOENT)))
        }

        @Test func `a listener that is let go stops`() throws {
            let folder = try makeFolder()
            defer { removeFolder(folder) }
            var listener: LocalListener? = try LocalListener(
                directory: folder, name: "kv", logger: quiet)
            let path = try #require(listener?.path)
            #expect(mode(path) != nil)
            listener = nil
            #expect(mode(path) == nil)
        }

        @Test func `stop wakes who waits for a connection`() async throws {
            let folder = try makeFolder()
            defer { removeFolder(folder) }
            let listener = try LocalListener(directory: folder, name: "kv", logger: quiet)
            let token = LocalToken.random()
            try listener.expect(token)
            async let taking = onThread { listener.take(token, deadline: .seconds(60)) }
            try await Task.sleep(for: .milliseconds(50))
            listener.stop()
            #expect(try await taking == nil)
            #expect(failure { try listener.expect(.random()) } == .shutDown)
        }

        @Test func `two listeners can't have the same name, one after the other can`() throws {
            let folder = try makeFolder()
            defer { removeFolder(folder) }
            for _ in 0..<3 {
                let listener = try LocalListener(directory: folder, name: "kv", logger: quiet)
                #expect(throws: LocalTransferError.nameTaken(path: "\(folder)/kv")) {
                    _ = try LocalListener(directory: folder, name: "kv", logger: quiet)
                }
                let other = try LocalListener(directory: folder, name: "kv2", logger: quiet)
                #expect(mode(listener.path) != nil, "the refused one has removed nothing")
                other.stop()
                listener.stop()
            }
        }

        @Test func `a new listener removes the old sockets of dead processes alone`() throws {
            let folder = try makeFolder()
            defer { removeFolder(folder) }
            let alive = try LocalListener(directory: folder, name: "alive", logger: quiet)
            defer { alive.stop() }
            for name in ["dead", "young"] {
                let socket = unsafe local_socket_listen("\(folder)/\(name)", 1)
                try #require(socket >= 0)
                close(socket)
                try Data().write(to: URL(fileURLWithPath: "\(folder)/\(name).lock"))
            }
            for name in ["alive", "dead"] {
                try FileManager.default.setAttributes(
                    [.modificationDate: Date(timeIntervalSinceNow: -3600)],
                    ofItemAtPath: "\(folder)/\(name).lock")
            }
            let new = try LocalListener(directory: folder, name: "new", logger: quiet)
            defer { new.stop() }
            let left = try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
            #expect(
                left == ["alive", "alive.lock", "new", "new.lock", "young", "young.lock"])
        }

        @Test func `a dead process's socket is replaced`() async throws {
            let folder = try makeFolder()
            defer { removeFolder(folder) }
            let path = "\(folder)/kv"
            // What a killed listener leaves: a socket nobody listens on, and a lock nobody holds.
            let dead = unsafe local_socket_listen(path, 1)
            try #require(dead >= 0)
            close(dead)
            #expect(FileManager.default.createFile(atPath: "\(path).lock", contents: nil))
            #expect(unsafe local_socket_connect(path) == -ECONNREFUSED)

            let listener = try LocalListener(directory: folder, name: "kv", logger: quiet)
            defer { listener.stop() }
            let token = LocalToken.random()
            try listener.expect(token)
            _ = try await onThread {
                try LocalConnection.connect(path: path, token: token, deadline: patience)
            }
        }

        @Test func `what is no socket is not removed`() throws {
            let folder = try makeFolder()
            defer { removeFolder(folder) }
            let path = "\(folder)/kv"
            #expect(FileManager.default.createFile(atPath: path, contents: Data([1])))
            let error = failure {
                _ = try LocalListener(directory: folder, name: "kv", logger: quiet)
            }
            #expect(error == .listenFailed(path: path, problem: LocalSocket.text(EEXIST)))
            #expect(FileManager.default.contents(atPath: path) == Data([1]))
        }

        @Test func `a path has its longest length`() throws {
            let folder = try makeFolder()
            defer { removeFolder(folder) }
            let limit = local_socket_path_limit()
            #expect(limit == 107)
            let name = String(repeating: "n", count: limit - folder.utf8.count - 1)
            let listener = try LocalListener(directory: folder, name: name, logger: quiet)
            listener.stop()
            let long = "\(folder)/\(name)n"
            #expect(throws: LocalTransferError.pathTooLong(path: long, limitBytes: limit)) {
                _ = try LocalListener(directory: folder, name: name + "n", logger: quiet)
            }
            #expect(throws: LocalTransferError.pathTooLong(path: long, limitBytes: limit)) {
                _ = try LocalConnection.connect(path: long, token: .random(), deadline: patience)
            }
        }

        @Test(arguments: ["", ".", "..", "a/b", "a\0b"]) func `a bad name`(name: String) {
            #expect(throws: LocalTransferError.badName("/tmp/\(name)")) {
                _ = try LocalListener(directory: "/tmp", name: name, logger: quiet)
            }
        }

        @Test func `a folder that others may change is refused`() throws {
            let folder = try makeFolder()
            defer { removeFolder(folder) }
            try #require(unsafe chmod(folder, 0o777) == 0)
            let error = failure {
                _ = try LocalListener(directory: folder, name: "kv", logger: quiet)
            }
            #expect(error == .folderUnusable(path: folder, problem: LocalSocket.text(EPERM)))
            let missing = failure {
                _ = try LocalListener(directory: "\(folder)/a/b", name: "kv", logger: quiet)
            }
            #expect(
                missing
                    == .folderUnusable(path: "\(folder)/a/b", problem: LocalSocket.text(ENOENT)))
        }
    }
#endif
