import Foundation
import GRDB

/// A store in one file, for schedulers of one host.
///
/// A lock on a file beside it says who leads; the system lets go of it when that process dies.
package struct SQLiteStore: ClusterStore {
    static let format = 1

    private let path: String
    private let maximumBytes: Int

    /// - Parameter path: the database; its folder is made if it is missing.
    package init(path: String) { self.init(path: path, maximumBytes: StoreLimits.databaseBytes) }

    init(path: String, maximumBytes: Int) {
        self.path = path
        self.maximumBytes = maximumBytes
    }

    package func takeOffice(
        as name: String, waiting: @escaping @Sendable (String) -> Void
    ) async throws -> any ClusterTerm {
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent()
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        } catch {
            throw StoreError.unavailable(place: path, reason: error.localizedDescription)
        }
        let lock = try await lock(as: name, waiting: waiting)
        let queue = try open()
        let epoch = try await begin(queue, name)
        return SQLiteTerm(path: path, queue: queue, lock: lock, epoch: epoch)
    }

    private func lock(
        as name: String, waiting: @Sendable (String) -> Void
    ) async throws -> LockFile {
        var owner: String?
        while true {
            if let lock = try LockFile.take(path + ".lock", as: name) { return lock }
            let present = LockFile.owner(of: path + ".lock")
            if present != owner { waiting(present) }
            owner = present
            try await Task.sleep(for: StoreLimits.lockPoll)
        }
    }

    /// Opens the file and looks whether it is whole.
    private func open() throws(StoreError) -> DatabaseQueue {
        var configuration = Configuration()
        configuration.busyMode = .timeout(StoreLimits.busySeconds)
        let pages = maximumBytes / StoreLimits.pageBytes
        configuration.prepareDatabase { database in
            try database.execute(sql: "PRAGMA synchronous = FULL")
            try database.execute(sql: "PRAGMA max_page_count = \(pages)")
        }
        var queue: DatabaseQueue?
        do {
            let opened = try DatabaseQueue(path: path, configuration: configuration)
            queue = opened
            let problems = try opened.inDatabase { database in
                try String.fetchAll(database, sql: "PRAGMA integrity_check(5)")
            }
            guard problems == ["ok"] else {
                throw keepAside(opened, problems.joined(separator: "; "))
            }
            try prepare(opened)
            return opened
        } catch let error as StoreError {
            throw error
        } catch {
            guard let database = error as? DatabaseError, database.isDamage else {
                throw .of(error, path)
            }
            throw keepAside(queue, database.message ?? "\(database.resultCode)")
        }
    }

    private func prepare(_ queue: DatabaseQueue) throws {
        let format = try queue.inDatabase { database in
            try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0
        }
        guard format <= Self.format else {
            throw StoreError.newerFormat(place: path, found: format, known: Self.format)
        }
        try queue.writeWithoutTransaction { database in
            _ = try String.fetchOne(database, sql: "PRAGMA journal_mode = WAL")
            try database.inTransaction {
                for table in [
                    "records (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
                    "events (number INTEGER PRIMARY KEY, value BLOB NOT NULL)",
                    "term (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER, leader TEXT)",
                ] { try database.execute(sql: "CREATE TABLE IF NOT EXISTS \(table)") }
                try database.execute(sql: "PRAGMA user_version = \(Self.format)")
                return .commit
            }
        }
    }

    /// Moves the files of a damaged database out of the way.
    private func keepAside(_ queue: DatabaseQueue?, _ problem: String) -> StoreError {
        let files = FileManager.default
        let free = (1...StoreLimits.damagedCopies).first { number in
            !files.fileExists(atPath: "\(path).damaged-\(number)")
        }
        guard let free else {
            return .failed(
                place: path, reason: "it is damaged (\(problem)), as are the copies beside it")
        }
        let kept = "\(path).damaged-\(free)"
        for suffix in ["", "-wal", "-shm"] where files.fileExists(atPath: path + suffix) {
            do {
                try files.moveItem(atPath: path + suffix, toPath: kept + suffix)
            } catch {
                return .failed(
                    place: path,
                    reason: "it is damaged (\(problem)) and can't be moved: "
                        + error.localizedDescription)
            }
        }
        try? queue?.close()
        return .damaged(path: path, problem: problem, keptAs: kept)
    }

    private func begin(_ queue: DatabaseQueue, _ name: String) async throws -> UInt64 {
        do {
            return try await queue.write { database in
                let last = try Int64.fetchOne(database, sql: "SELECT epoch FROM term") ?? 0
                let now = Int64(Date().timeIntervalSince1970 * 1000)
                let epoch = max(1, now, last + 1)
                try database.execute(
                    sql: "INSERT OR REPLACE INTO term (id, epoch, leader) VALUES (1, ?, ?)",
                    arguments: [epoch, name])
                return UInt64(epoch)
            }
        } catch {
            throw StoreError.of(error, path)
        }
    }
}

extension DatabaseError {
    var isDamage: Bool { [.SQLITE_CORRUPT, .SQLITE_NOTADB].contains(resultCode) }
}

extension StoreError {
    static func of(_ error: any Error, _ path: String) -> StoreError {
        if let error = error as? StoreError { return error }
        guard let error = error as? DatabaseError else {
            return .failed(place: path, reason: "\(error)")
        }
        let reason = error.message ?? "\(error.resultCode)"
        return switch error.resultCode {
        case .SQLITE_FULL: .full(place: path)
        case .SQLITE_CANTOPEN, .SQLITE_READONLY, .SQLITE_PERM, .SQLITE_BUSY:
            .unavailable(place: path, reason: reason)
        default: .failed(place: path, reason: reason)
        }
    }
}
