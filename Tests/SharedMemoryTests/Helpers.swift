import CSharedMemory
import Foundation
import InferenceEngine
import Logging
import Testing

@testable import SharedMemory

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
let patience = Duration.seconds(10)

/// Two connected ends.
func makePair(
    kept: KeptMappings = KeptMappings()
) throws -> (sender: LocalConnection, receiver: LocalConnection) {
    let (sender, receiver) = try makeSockets()
    return (LocalConnection(file: sender), LocalConnection(file: receiver, kept: kept))
}

/// Two connected sockets, for peers that do not keep to the rules.
func makeSockets() throws -> (Int32, Int32) {
    var files: [Int32] = [-1, -1]
    #if canImport(Glibc)
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    #else
        let kind = SOCK_STREAM
    #endif
    try #require(unsafe socketpair(AF_UNIX, kind, 0, &files) == 0)
    return (files[0], files[1])
}

/// Sends bytes with descriptors as they are.
func sendRaw(_ socket: Int32, _ bytes: [UInt8], files: [Int32] = []) {
    let count = unsafe local_socket_send(socket, bytes, bytes.count, files, files.count)
    #expect(count == bytes.count)
}

/// A buffer of shared memory full of a pattern.
func sharedBuffer(
    bytes: Int, seed: UInt8 = 1, source: SharedMemorySource = SharedMemorySource()
) throws -> KVBuffer {
    let memory = source.allocate(capacityBytes: bytes)
    try #require(memory.file != nil)
    let buffer = KVBuffer(memory: memory, usedBytes: bytes, owner: source)
    fill(buffer, seed: seed)
    return buffer
}

func fill(_ buffer: KVBuffer, seed: UInt8) {
    unsafe buffer.withWritableBytes { bytes in
        for index in bytes.indices {
            unsafe bytes[index] = pattern(index, seed)
        }
    }
}

func pattern(_ index: Int, _ seed: UInt8) -> UInt8 {
    UInt8(truncatingIfNeeded: index &* 31 &+ index >> 12) &+ seed
}

/// Where the buffer's bytes first differ from the pattern.
func firstDifference(in buffer: KVBuffer, seed: UInt8 = 1) -> Int? {
    unsafe buffer.withBytes { bytes in
        bytes.indices.first { unsafe bytes[$0] != pattern($0, seed) }
    }
}

/// A descriptor's file, however many descriptors and mappings of it there are.
struct FileIdentity: Equatable {
    let device: UInt64
    let inode: UInt64

    init(_ file: Int32) throws {
        var status = stat()
        try #require(unsafe fstat(file, &status) == 0)
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
    }

    /// Descriptors of this process that refer to the file.
    var descriptors: Int {
        let names = try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")
        return (names ?? []).compactMap(Int32.init).count { file in
            var status = stat()
            return unsafe fstat(file, &status) == 0 && UInt64(status.st_dev) == device
                && UInt64(status.st_ino) == inode
        }
    }

    /// Mappings of the file in this process.
    var mappings: Int {
        // Such a file has no size, so it is read until it ends.
        let handle = FileHandle(forReadingAtPath: "/proc/self/maps")
        var maps = Data()
        while let part = try? handle?.read(upToCount: 1 << 16), !part.isEmpty { maps += part }
        return String(decoding: maps, as: UTF8.self).split(separator: "\n").count { line in
            let fields = line.split(separator: " ", omittingEmptySubsequences: true)
            return fields.count > 5 && fields[4] == "\(inode)" && fields[5].contains("memfd")
        }
    }
}

/// A memory file without any seal, of this size.
func makeMemoryFile(bytes: Int, seals: Int32 = 0) throws -> Int32 {
    typealias Call = @convention(c) (UnsafePointer<CChar>, UInt32) -> Int32
    let symbol = unsafe try #require(dlsym(nil, "memfd_create"))
    let call = unsafe unsafeBitCast(symbol, to: Call.self)
    let file = unsafe call("test", Seals.allowed)
    try #require(file >= 0)
    try #require(ftruncate(file, bytes) == 0)
    if seals != 0 { try #require(fcntl(file, Seals.add, seals) == 0) }
    return file
}

/// Numbers of <linux/fcntl.h> and <linux/memfd.h>.
enum Seals {
    static let allowed: UInt32 = 2
    static let add: Int32 = 1033
    static let shrink: Int32 = 2
    static let grow: Int32 = 4
    static let futureWrite: Int32 = 16
    static let all = shrink | grow | futureWrite
}

/// A new folder, which the caller removes.
func makeFolder() throws -> String {
    var name = Array("/tmp/pdserve-XXXXXX".utf8CString)
    try #require(unsafe mkdtemp(&name) != nil)
    return String(decoding: name.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
}

func removeFolder(_ path: String) { try? FileManager.default.removeItem(atPath: path) }

/// Runs blocking work on a thread of its own.
func onThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value
{
    try await withCheckedThrowingContinuation { continuation in
        Thread { continuation.resume(with: Result { try body() }) }.start()
    }
}

/// The error that this throws.
func failure(_ body: () throws -> Void) -> LocalTransferError? {
    do {
        try body()
        return nil
    } catch { return error as? LocalTransferError }
}
