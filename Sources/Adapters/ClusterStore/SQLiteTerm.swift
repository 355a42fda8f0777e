import Foundation
import GRDB
import Synchronization

/// A term that lasts as long as the lock file is held.
final class SQLiteTerm: ClusterTerm {
    let epoch: UInt64
    private let path: String
    private let queue: DatabaseQueue
    private let lock: Mutex<LockFile?>

    init(path: String, queue: DatabaseQueue, lock: LockFile, epoch: UInt64) {
        self.path = path
        self.queue = queue
        self.epoch = epoch
        self.lock = Mutex(lock)
    }

    var isCurrent: Bool { lock.withLock { $0 != nil } }

    func load() async throws(StoreError) -> [String: [UInt8]] {
        do {
            return try await queue.read { database in
                var records: [String: [UInt8]] = [:]
                let rows = try Row.fetchCursor(
                    database, sql: "SELECT key, value FROM records LIMIT ?",
                    arguments: [StoreLimits.records])
                while let row = try rows.next() { records[row[0]] = Array(row[1] as Data) }
                return records
            }
        } catch {
            throw .of(error, path)
        }
    }

    func save(_ batch: StoreBatch) async throws(StoreError) {
        try batch.check()
        guard isCurrent else { throw .fenced(reason: "it has resigned") }
        do {
            try await queue.write { database in
                let last = try Int64.fetchOne(database, sql: "SELECT epoch FROM term") ?? 0
                guard last == Int64(self.epoch) else {
                    throw StoreError.fenced(reason: "epoch \(last) has begun")
                }
                try self.write(batch, to: database)
            }
        } catch {
            throw .of(error, path)
        }
    }

    private func write(_ batch: StoreBatch, to database: Database) throws {
        let put = try database.cachedStatement(
            sql: "INSERT OR REPLACE INTO records (key, value) VALUES (?, ?)")
        let remove = try database.cachedStatement(sql: "DELETE FROM records WHERE key = ?")
        for (key, value) in batch.records {
            if let value {
                try put.execute(arguments: [key, Data(value)])
            } else {
                try remove.execute(arguments: [key])
            }
        }
        let add = try database.cachedStatement(
            sql: "INSERT OR REPLACE INTO events (number, value) VALUES (?, ?)")
        for event in batch.events {
            try add.execute(arguments: [Int64(clamping: event.number), Data(event.bytes)])
        }
        guard let last = batch.events.last else { return }
        try database.execute(
            sql: "DELETE FROM events WHERE number <= ?",
            arguments: [Int64(clamping: last.number) - Int64(StoreLimits.keptEvents)])
    }

    func lastEvents(_ count: Int) async throws(StoreError) -> [StoredEvent] {
        do {
            return try await queue.read { database in
                let rows = try Row.fetchAll(
                    database, sql: "SELECT number, value FROM events ORDER BY number DESC LIMIT ?",
                    arguments: [min(count, StoreLimits.keptEvents)])
                return rows.reversed().map { row in
                    StoredEvent(
                        number: UInt64(clamping: row[0] as Int64), bytes: Array(row[1] as Data))
                }
            }
        } catch {
            throw .of(error, path)
        }
    }

    func ended() async -> String {
        while !Task.isCancelled {
            guard let isInPlace = lock.withLock({ $0?.isInPlace }) else { return "it has resigned" }
            if !isInPlace {
                lock.withLock { $0 = nil }
                return "the lock file \(path).lock was removed or replaced"
            }
            try? await Task.sleep(for: StoreLimits.lockCheck)
        }
        return "the process ends"
    }

    func resign() async {
        guard isCurrent else { return }
        try? queue.close()
        lock.withLock { $0 = nil }
    }
}
