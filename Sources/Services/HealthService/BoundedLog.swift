import Foundation

/// The log file of a process that writes to it itself, kept small.
///
/// What is written between copying and emptying the file may be lost: some lines a day against a
/// full disk. The writer keeps its descriptor, which appends.
struct BoundedLog: Sendable {
    let path: String
    var maximumBytes = 16 << 20
    /// Earlier files that are kept: `path.1` is the youngest.
    var keptFiles = 3

    /// Opens the file for a process to append to.
    func open() throws -> FileHandle {
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent()
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let file = unsafe Foundation.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
        guard file >= 0 else {
            throw CocoaError(
                .fileWriteUnknown, userInfo: [NSFilePathErrorKey: path])
        }
        return FileHandle(fileDescriptor: file, closeOnDealloc: true)
    }

    /// Moves the contents away if there are too many; says whether it did.
    @discardableResult
    func rotate() throws -> Bool {
        let manager = FileManager.default
        let facts = try manager.attributesOfItem(atPath: path)
        guard let bytes = facts[.size] as? UInt64, bytes > UInt64(maximumBytes) else {
            return false
        }
        for number in stride(from: keptFiles, to: 0, by: -1) {
            let target = "\(path).\(number)"
            try? manager.removeItem(atPath: target)
            if number > 1 {
                try? manager.moveItem(atPath: "\(path).\(number - 1)", toPath: target)
            } else {
                try manager.copyItem(atPath: path, toPath: target)
            }
        }
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try file.truncate(atOffset: 0)
        try file.close()
        return true
    }
}
