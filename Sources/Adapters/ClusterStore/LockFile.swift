import Foundation

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A file that one process has locked; the system lets go of it when the process dies.
final class LockFile: Sendable {
    private let path: String
    private let descriptor: Int32

    private init(path: String, descriptor: Int32) {
        self.path = path
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    /// - Parameter name: written into the file, for those who wait.
    /// - Returns: nil while another process has it.
    static func take(_ path: String, as name: String) throws(StoreError) -> LockFile? {
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw .unavailable(place: path, reason: Errno.text)
        }
        let lock = LockFile(path: path, descriptor: descriptor)
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            if errno == EINTR { continue }
            guard errno == EWOULDBLOCK else {
                throw .unavailable(place: path, reason: Errno.text)
            }
            return nil
        }
        // The one who had it may have removed it: then this is another file than the next one's.
        guard lock.isInPlace else { return nil }
        let words = Array("\(name) \(getpid())\n".utf8)
        _ = ftruncate(descriptor, 0)
        _ = unsafe words.withUnsafeBytes { unsafe pwrite(descriptor, $0.baseAddress, $0.count, 0) }
        return lock
    }

    /// Who has it, by the file's words.
    static func owner(of path: String) -> String {
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        return text.split(separator: " ").first.map(String.init) ?? "another process"
    }

    /// Whether the path still leads to this file.
    var isInPlace: Bool {
        var own = stat()
        var named = stat()
        guard unsafe fstat(descriptor, &own) == 0, unsafe stat(path, &named) == 0 else {
            return false
        }
        return own.st_ino == named.st_ino && own.st_dev == named.st_dev
    }
}

/// What the last call of the system complained about.
enum Errno {
    static var text: String { unsafe String(cString: strerror(errno)) }
}
