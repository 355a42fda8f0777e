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

    static func read(_ path: String) throws(TransportError) -> [UInt8] {
        let limit = TransportLimits.certificateFileBytes
        let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw failure(path, "cannot be read") }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: limit + 1)
        var count = 0
        while count <= limit {
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
        guard isStored, unsafe rename(temporary, path) == 0 else {
            throw failure(path, "cannot be written")
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
