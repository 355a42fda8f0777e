import CSharedMemory
import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// The listening socket with its name in the file system, held against other processes by a lock.
///
/// Whoever holds the lock may remove the socket that lies there: its process is dead.
final class LocalDoor: Sendable {
    let path: String
    let socket: Int32
    private let lock: Int32
    private let isOpen = Mutex(true)

    init(directory: String, name: String) throws(LocalTransferError) {
        guard !name.isEmpty, name != ".", name != "..", !name.utf8.contains(0),
            !name.contains("/"), !directory.isEmpty, !directory.utf8.contains(0)
        else { throw .badName("\(directory)/\(name)") }
        let path = "\(directory)/\(name)"
        let limit = local_socket_path_limit()
        guard limit > 0 else { throw .notSupported }
        guard path.utf8.count <= limit else {
            throw .pathTooLong(path: path, limitBytes: limit)
        }
        let code = unsafe directory.withCString { unsafe local_folder_prepare($0) }
        guard code == 0 else {
            throw .folderUnusable(path: directory, problem: LocalSocket.text(-code))
        }
        lock = try Self.takeLock(for: path)
        do throws(LocalTransferError) {
            socket = try Self.listen(path)
        } catch {
            Self.giveUp(lock, for: path)
            throw error
        }
        self.path = path
        Self.sweep(directory)
    }

    private static func takeLock(for path: String) throws(LocalTransferError) -> Int32 {
        let file = unsafe "\(path).lock".withCString { unsafe local_lock_take($0) }
        if file == -EWOULDBLOCK { throw .nameTaken(path: path) }
        guard file >= 0 else {
            throw .listenFailed(path: path, problem: LocalSocket.text(-file))
        }
        return file
    }

    private static func listen(_ path: String) throws(LocalTransferError) -> Int32 {
        let removed = unsafe path.withCString { unsafe local_socket_remove($0) }
        guard removed == 0 else {
            throw .listenFailed(path: path, problem: LocalSocket.text(-removed))
        }
        let socket = unsafe path.withCString { path in
            unsafe local_socket_listen(path, SharedMemoryLimits.acceptBacklog)
        }
        guard socket >= 0 else {
            throw .listenFailed(path: path, problem: LocalSocket.text(-socket))
        }
        return socket
    }

    /// Takes away what killed processes have left in the folder.
    ///
    /// A lock that can be had belongs to nobody, unless its process is just about to take it: young
    /// ones stay.
    private static func sweep(_ directory: String) {
        let files = FileManager.default
        let names = (try? files.contentsOfDirectory(atPath: directory)) ?? []
        let locks = names.filter { $0.hasSuffix(".lock") }
        for name in locks.prefix(SharedMemoryLimits.sweptDoors) {
            let attributes = try? files.attributesOfItem(atPath: "\(directory)/\(name)")
            guard let changed = attributes?[.modificationDate] as? Date,
                changed.timeIntervalSinceNow < -SharedMemoryLimits.youngestSweptSeconds
            else { continue }
            let path = "\(directory)/\(name.dropLast(".lock".count))"
            guard let lock = try? takeLock(for: path) else { continue }
            _ = unsafe path.withCString { unsafe local_socket_remove($0) }
            giveUp(lock, for: path)
        }
    }

    /// Removed while it is held, so that nobody waits for a lock without a name.
    private static func giveUp(_ lock: Int32, for path: String) {
        _ = unsafe unlink("\(path).lock")
        close(lock)
    }

    /// Wakes the accepting thread, and lets nobody connect any more.
    func endListening() {
        isOpen.withLock { isOpen in
            if isOpen { _ = shutdown(socket, Int32(SHUT_RDWR)) }
        }
    }

    /// Removes the socket and closes the descriptors; nobody may use them any more.
    func remove() {
        isOpen.withLock { isOpen in
            guard isOpen else { return }
            isOpen = false
            _ = unsafe unlink(path)
            close(socket)
            Self.giveUp(lock, for: path)
        }
    }
}
