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
    /// Bytes at the end that are looked at for a process's last words.
    static let endBytes = 8 << 10

    enum Rotation: Hashable {
        case notNeeded, moved
        /// The copy had no room, for example on a full disk: what was there is lost.
        case emptied(reason: String)
    }

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

    /// The last part of it; empty if it can't be read.
    var end: String {
        guard let file = FileHandle(forReadingAtPath: path) else { return "" }
        defer { try? file.close() }
        let size = (try? file.seekToEnd()) ?? 0
        try? file.seek(toOffset: size > UInt64(Self.endBytes) ? size - UInt64(Self.endBytes) : 0)
        let bytes = (try? file.read(upToCount: Self.endBytes)) ?? nil
        return String(decoding: bytes ?? Data(), as: UTF8.self)
    }

    /// Moves the contents away if there are too many.
    ///
    /// A disk without room for the copy is no reason to fill it further: they are dropped then.
    @discardableResult
    func rotate() throws -> Rotation {
        let manager = FileManager.default
        let facts = try manager.attributesOfItem(atPath: path)
        guard let bytes = facts[.size] as? UInt64, bytes > UInt64(maximumBytes) else {
            return .notNeeded
        }
        var rotation = Rotation.moved
        do {
            try moveAway()
        } catch {
            try? manager.removeItem(atPath: "\(path).1")
            rotation = .emptied(reason: error.localizedDescription)
        }
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try file.truncate(atOffset: 0)
        try file.close()
        return rotation
    }

    private func moveAway() throws {
        let manager = FileManager.default
        for number in stride(from: keptFiles, to: 0, by: -1) {
            let target = "\(path).\(number)"
            try? manager.removeItem(atPath: target)
            if number > 1 {
                try? manager.moveItem(atPath: "\(path).\(number - 1)", toPath: target)
            } else {
                try manager.copyItem(atPath: path, toPath: target)
            }
        }
    }
}
