import Foundation
import Glibc

extension ProfileStore {
    /// Waits until no other process of this host measures.
    ///
    /// - Returns: what to end when done; nil if it took too long or the folder can't be used.
    package func turn(patience: Duration) async -> HostTurn? {
        let manager = FileManager.default
        try? manager.createDirectory(at: folder, withIntermediateDirectories: true)
        let path = folder.appending(path: "measuring.lock").path
        let descriptor = unsafe open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return nil }
        let end = ContinuousClock.now + patience
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            guard errno == EWOULDBLOCK, ContinuousClock.now < end,
                (try? await Task.sleep(for: .milliseconds(50))) != nil
            else {
                Glibc.close(descriptor)
                return nil
            }
        }
        return HostTurn(descriptor: descriptor)
    }
}

/// The right to measure alone on this host; also ends with the process.
package struct HostTurn: Sendable {
    fileprivate let descriptor: Int32

    package func end() { Glibc.close(descriptor) }
}

/// How busy this host is.
package enum HostLoad {
    /// Runnable processes in the last minute, per processor; 0 where that is not to be had.
    package static var perProcessor: Double {
        var averages = [0.0]
        guard unsafe getloadavg(&averages, 1) == 1 else { return 0 }
        return averages[0] / Double(max(1, ProcessInfo.processInfo.activeProcessorCount))
    }
}
