import CSharedMemory
package import InferenceEngine
import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A connection to another process of this host and user, over which memory is passed.
///
/// All calls block, so they belong on threads of their own. Times are time left. After an error
/// other than `notShared` the connection is at its end, because the two sides may no longer speak
/// of the same buffer.
package final class LocalConnection: Sendable {
    private let file: Int32
    private let isShutDown = Atomic<Bool>(false)
    private let sending = Mutex<Void>(())
    private let receiving = Mutex<Void>(())
    private let kept: KeptMappings
    private let onClose: (@Sendable () -> Void)?

    /// Takes the socket over.
    init(
        file: Int32, kept: KeptMappings = KeptMappings(), onClose: (@Sendable () -> Void)? = nil
    ) {
        self.file = file
        self.kept = kept
        self.onClose = onClose
    }

    deinit {
        close(file)
        onClose?()
    }

    /// Connects, checks whose listener that is, shows the token and waits until it is accepted.
    package static func connect(
        path: String, token: LocalToken, deadline: Duration
    ) throws(LocalTransferError) -> LocalConnection {
        let deadline = Deadline(after: deadline)
        let connection = LocalConnection(file: try socket(path, deadline))
        try LocalSocket.checkUser(of: connection.file)
        do throws(LocalTransferError) {
            try connection.write(token.bytes, nil, deadline)
            let answer = try connection.read(LocalMessage.acceptance.count, deadline)
            for file in answer.files { close(file) }
            guard answer.bytes == LocalMessage.acceptance else { throw .tokenRefused }
        } catch .closedByPeer {
            throw .tokenRefused
        }
        return connection
    }

    private static func socket(
        _ path: String, _ deadline: Deadline
    ) throws(LocalTransferError) -> Int32 {
        while true {
            let file = unsafe path.withCString { unsafe local_socket_connect($0) }
            switch -file {
            case ...0: return file
            case ENAMETOOLONG:
                throw .pathTooLong(path: path, limitBytes: local_socket_path_limit())
            case ENOTSUP: throw .notSupported
            case EAGAIN, EINTR:
                if deadline.hasPassed { throw .deadline }
                LocalSocket.pause(min(deadline.left, SharedMemoryLimits.connectPause))
            case let code: throw .connectFailed(path: path, problem: LocalSocket.text(code))
            }
        }
    }

    /// Passes the buffer's memory.
    ///
    /// The receiver reads the memory itself, not a copy: keep the buffer, and write nothing into
    /// it, until the receiver has said that it has let go.
    ///
    /// - Parameter number: what the receiver will ask for.
    package func send(
        buffer: KVBuffer, number: UInt64, deadline: Duration
    ) throws(LocalTransferError) {
        guard let shared = buffer.sharedFile else { throw .notShared }
        defer { withExtendedLifetime(buffer) {} }
        let message = LocalMessage(number: number, capacityBytes: UInt64(buffer.capacityBytes))
        try sending.withLock { _ throws(LocalTransferError) in
            try endingOnError { () throws(LocalTransferError) in
                try write(message.bytes, shared, Deadline(after: deadline))
            }
        }
    }

    /// The next buffer the peer has passed, for reading only.
    ///
    /// What the peer still writes into it shows, so nothing in it may be checked first and used
    /// later. Its file stays mapped until the buffer's last reference is gone and the connection
    /// is at its end or keeps newer ones: a file that comes again then needs no mapping. So files
    /// that the peer has freed take up to `SharedMemoryLimits.keptMappingBytes` of memory.
    ///
    /// - Parameters:
    ///   - number: must be the number that the peer gave it.
    ///   - usedBytes: how many bytes the buffer has, from the file's start on; at least 1.
    package func receive(
        number: UInt64, usedBytes: Int, deadline: Duration
    ) throws(LocalTransferError) -> KVBuffer {
        precondition(usedBytes > 0, "no KV")
        return try take(number, deadline) { memory throws(LocalTransferError) in
            try memory.buffer(usedBytes: usedBytes, kept)
        }
    }

    /// Lets go of the next buffer, which nobody wants, without mapping it.
    package func skip(number: UInt64, deadline: Duration) throws(LocalTransferError) {
        try take(number, deadline) { _ throws(LocalTransferError) in () }
    }

    private func take<Result: Sendable>(
        _ number: UInt64, _ deadline: Duration,
        _ body: (ReceivedFile) throws(LocalTransferError) -> Result
    ) throws(LocalTransferError) -> Result {
        let deadline = Deadline(after: deadline)
        return try receiving.withLock { _ throws(LocalTransferError) in
            try endingOnError { () throws(LocalTransferError) in
                let (bytes, files) = try read(LocalMessage.byteCount, deadline)
                defer { for file in files { close(file) } }
                guard files.count == 1, let file = files.first else {
                    throw .descriptors(count: files.count)
                }
                let message = LocalMessage(bytes: bytes)
                guard message.number == number else {
                    throw .wrongNumber(expected: number, received: message.number)
                }
                return try body(
                    ReceivedFile(file: file, announcedBytes: message.capacityBytes))
            }
        }
    }

    /// Ends the connection at once, from any thread; calls that wait throw `shutDown`.
    package func shutdown() {
        isShutDown.store(true, ordering: .releasing)
        end()
    }

    private func end() {
        kept.close()
        #if canImport(Glibc)
            _ = Glibc.shutdown(file, Int32(SHUT_RDWR))
        #else
            _ = Darwin.shutdown(file, SHUT_RDWR)
        #endif
    }

    private func endingOnError<Result: Sendable>(
        _ body: () throws(LocalTransferError) -> Result
    ) throws(LocalTransferError) -> Result {
        do throws(LocalTransferError) {
            return try body()
        } catch {
            end()
            throw isShutDown.load(ordering: .acquiring) ? .shutDown : error
        }
    }

    /// Writes bytes, and a descriptor with the first of them.
    private func write(
        _ bytes: [UInt8], _ passed: Int32?, _ deadline: Deadline
    ) throws(LocalTransferError) {
        var sent = 0
        while sent < bytes.count {
            var files = sent == 0 ? passed.map { [$0] } ?? [] : []
            let rest = Array(bytes[sent...])
            let count = unsafe local_socket_send(file, rest, rest.count, &files, files.count)
            if count < 0 {
                try waitAfter(Int32(-count), POLLOUT, deadline)
            } else {
                sent += count
            }
        }
    }

    /// Reads exactly `count` bytes, and the descriptors beside them, which the caller closes.
    private func read(
        _ count: Int, _ deadline: Deadline
    ) throws(LocalTransferError) -> (bytes: [UInt8], files: [Int32]) {
        var bytes: [UInt8] = []
        var files: [Int32] = []
        do throws(LocalTransferError) {
            while bytes.count < count {
                var part = [UInt8](repeating: 0, count: count - bytes.count)
                var beside = local_socket_files()
                let received = unsafe local_socket_receive(file, &part, part.count, &beside)
                files += beside.all
                if beside.lost_files { throw .descriptorsLost }
                if received == 0 { throw .closedByPeer }
                if received < 0 {
                    try waitAfter(Int32(-received), POLLIN, deadline)
                } else {
                    bytes += part[..<received]
                }
            }
        } catch {
            for file in files { close(file) }
            throw error
        }
        return (bytes, files)
    }

    /// Waits if that helps against the error of a call.
    private func waitAfter(
        _ code: Int32, _ events: Int32, _ deadline: Deadline
    ) throws(LocalTransferError) {
        switch code {
        case EINTR: return
        case EAGAIN, EWOULDBLOCK:
            guard LocalSocket.wait(file, events, deadline) else { throw .deadline }
        case EPIPE, ECONNRESET: throw .closedByPeer
        default: throw .connectionLost(LocalSocket.text(code))
        }
    }
}

/// What goes with a descriptor: number and capacity, little-endian.
struct LocalMessage {
    static let byteCount = 16
    /// What the listener answers to an expected token.
    static let acceptance: [UInt8] = [1]

    let number: UInt64
    let capacityBytes: UInt64

    init(number: UInt64, capacityBytes: UInt64) {
        self.number = number
        self.capacityBytes = capacityBytes
    }

    init(bytes: [UInt8]) {
        func word(at start: Int) -> UInt64 {
            bytes[start..<start + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        number = word(at: 0)
        capacityBytes = word(at: 8)
    }

    var bytes: [UInt8] {
        [number, capacityBytes].flatMap { word in
            (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * UInt64($0))) }
        }
    }
}

/// A descriptor that came from another process and says nothing of itself yet.
private struct ReceivedFile {
    let file: Int32
    let announcedBytes: UInt64

    /// Checks that the memory can't go away under the reader, and maps it unless it still is.
    func buffer(
        usedBytes: Int, _ kept: KeptMappings
    ) throws(LocalTransferError) -> KVBuffer {
        var facts = shared_memory_facts()
        let code = unsafe shared_memory_inspect(file, &facts)
        guard code == 0 else { throw .notMapped(LocalSocket.text(-code)) }
        guard facts.is_memory_file else { throw .notMemoryFile }
        guard facts.is_sealed else { throw .notSealed }
        guard facts.bytes == announcedBytes else {
            throw .wrongSize(announcedBytes: announcedBytes, actualBytes: facts.bytes)
        }
        guard facts.bytes >= UInt64(usedBytes) else {
            throw .tooSmall(actualBytes: facts.bytes, neededBytes: usedBytes)
        }
        let id = MemoryFileID(device: facts.device, inode: facts.inode)
        if let mapping = kept.mapping(of: id) { return try mapping.buffer(usedBytes: usedBytes) }
        // A file too large to be kept is mapped as far as need be.
        guard facts.bytes <= UInt64(kept.maximumBytes) else {
            return try PeerMapping(file, byteCount: usedBytes).buffer(usedBytes: usedBytes)
        }
        let mapping = try PeerMapping(file, byteCount: Int(facts.bytes))
        let buffer = try mapping.buffer(usedBytes: usedBytes)
        kept.keep(mapping, of: id)
        return buffer
    }
}

extension local_socket_files {
    fileprivate var all: [Int32] {
        let tuple = files
        return Array([tuple.0, tuple.1, tuple.2, tuple.3].prefix(file_count))
    }
}
