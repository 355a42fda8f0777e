internal import Foundation

#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// Reading and writing of small files.
enum Files {
    /// Who may read a new file.
    enum Access {
        case everybody, owner

        fileprivate var mode: mode_t { self == .owner ? 0o600 : 0o644 }
    }

    static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

    static func read(
        _ path: String, limit: Int = TransportLimits.certificateFileBytes
    ) throws(TransportError) -> [UInt8] {
        let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw failure(path, "cannot be read") }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: min(limit, 64 << 10) + 1)
        var count = 0
        while count <= limit {
            if count == bytes.count {
                bytes += [UInt8](repeating: 0, count: min(count, limit + 1 - count))
            }
            let result = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe Platform.read(
                    file, UnsafeMutableRawBufferPointer(rebasing: buffer[count...]))
            }
            if result < 0, errno == EINTR { continue }
            guard result >= 0 else { throw failure(path, "cannot be read") }
            if result == 0 { break }
            count += result
        }
        guard count <= limit else {
            throw .file(path: path, problem: "is longer than \(limit) bytes")
        }
        bytes.removeSubrange(count...)
        return bytes
    }

    /// Writes the whole file or leaves the old one as it is.
    static func write(
        _ bytes: [UInt8], to path: String, for access: Access
    ) throws(TransportError) {
        let temporary = path + ".new"
        unsafe unlink(temporary)
        let file = unsafe open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, access.mode)
        try fill(file, bytes, of: path)
        guard unsafe rename(temporary, path) == 0 else {
            throw failure(path, "cannot be written")
        }
    }

    /// Adds to the end of a file that everybody may read; makes it if it is missing.
    static func append(_ bytes: [UInt8], to path: String) throws(TransportError) {
        let flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC
        try fill(unsafe open(path, flags, Access.everybody.mode), bytes, of: path)
    }

    /// Writes all of the bytes to an open file and closes it.
    private static func fill(
        _ file: Int32, _ bytes: [UInt8], of path: String
    ) throws(TransportError) {
        guard file >= 0 else { throw failure(path, "cannot be written") }
        var count = 0
        while count < bytes.count {
            let result = unsafe bytes.withUnsafeBytes { buffer in
                unsafe Platform.write(file, UnsafeRawBufferPointer(rebasing: buffer[count...]))
            }
            if result < 0, errno == EINTR { continue }
            guard result > 0 else {
                close(file)
                throw failure(path, "cannot be written")
            }
            count += result
        }
        let isStored = fsync(file) == 0
        close(file)
        guard isStored else { throw failure(path, "cannot be written") }
    }

    /// The paths of what lies in a folder; empty if it can't be read.
    static func list(_ folder: String) -> [String] {
        let names = try? FileManager.default.contentsOfDirectory(atPath: folder)
        return (names ?? []).sorted().map { "\(folder)/\($0)" }
    }

    /// What shows that a file was written, or another one was put in its place.
    struct Stamp: Equatable {
        private let device: UInt64
        private let number: UInt64
        private let bytes: Int64
        private let changed: [Int]

        /// Nil if there is no such file.
        init?(_ path: String) {
            var facts = stat()
            guard unsafe stat(path, &facts) == 0 else { return nil }
            device = UInt64(truncatingIfNeeded: facts.st_dev)
            number = UInt64(facts.st_ino)
            bytes = Int64(facts.st_size)
            #if canImport(Glibc)
                let times = [facts.st_mtim, facts.st_ctim]
            #else
                let times = [facts.st_mtimespec, facts.st_ctimespec]
            #endif
            changed = times.flatMap { [$0.tv_sec, $0.tv_nsec] }
        }
    }

    /// Makes a folder that only its owner can enter; an existing one stays as it is.
    static func makeFolder(_ path: String) throws(TransportError) {
        guard unsafe mkdir(path, 0o700) == 0 || errno == EEXIST else {
            throw failure(path, "cannot be made")
        }
    }

    private static func failure(_ path: String, _ what: String) -> TransportError {
        .file(path: path, problem: "\(what): \(Platform.errorText(errno))")
    }
}
