import Foundation
import Synchronization
import Testing

@testable import ClusterStore

@Suite struct SQLiteTests {
    @Test func `records and events outlive a term`() async throws {
        try await withFolder { folder in
            try await Promises.recordsAndEventsOutliveATerm(
                SQLiteStore(path: folder.appending(path: "new/scheduler.sqlite").path))
        }
    }

    @Test func `one leads at a time`() async throws {
        try await withFolder { folder in
            try await Promises.oneLeadsAtATime(
                SQLiteStore(path: folder.appending(path: "a.sqlite").path))
        }
    }

    @Test func `a record has a bound`() async throws {
        try await withFolder { folder in
            try await Promises.aRecordHasABound(
                SQLiteStore(path: folder.appending(path: "a.sqlite").path))
        }
    }

    @Test func `a damaged file is named, and kept as it was`() async throws {
        try await withFolder { folder in
            let path = folder.appending(path: "a.sqlite").path
            let store = SQLiteStore(path: path)
            let term = try await store.takeOffice(as: "one") { _ in }
            let records = (0..<500).map { ("key\($0)", Optional(bytes("value \($0)"))) }
            try await term.save(StoreBatch(records: Dictionary(uniqueKeysWithValues: records)))
            await term.resign()
            var data = try Data(contentsOf: URL(fileURLWithPath: path))
            #expect(data.count > 12_288)
            for index in 4096..<data.count where index % 7 == 0 { data[index] ^= 0x5a }
            try data.write(to: URL(fileURLWithPath: path))
            let error = await #expect(throws: StoreError.self) {
                _ = try await store.takeOffice(as: "two") { _ in }
            }
            guard case .damaged(path, _, let kept) = error else {
                Issue.record("not the error of a damaged file: \(String(describing: error))")
                return
            }
            #expect(error?.description.contains("start again to begin with an empty one") == true)
            #expect(try Data(contentsOf: URL(fileURLWithPath: kept)) == data)
            let next = try await store.takeOffice(as: "two") { _ in }
            #expect(try await next.load().isEmpty)
            await next.resign()
            // What is no database at all.
            try Data(repeating: 7, count: 9000).write(to: URL(fileURLWithPath: path))
            await #expect(throws: StoreError.self) {
                _ = try await store.takeOffice(as: "three") { _ in }
            }
            #expect(FileManager.default.fileExists(atPath: path + ".damaged-2"))
        }
    }

    @Test func `the format of a newer version is refused`() async throws {
        try await withFolder { folder in
            let path = folder.appending(path: "a.sqlite").path
            var header = try await { () async throws -> Data in
                let term = try await SQLiteStore(path: path).takeOffice(as: "one") { _ in }
                await term.resign()
                return try Data(contentsOf: URL(fileURLWithPath: path))
            }()
            // user_version lies at byte 60 of a database's header, big-endian.
            header[63] = 9
            try header.write(to: URL(fileURLWithPath: path))
            await #expect(throws: StoreError.newerFormat(place: path, found: 9, known: 1)) {
                _ = try await SQLiteStore(path: path).takeOffice(as: "two") { _ in }
            }
            #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == header)
        }
    }

    @Test func `a full store is named, and what waits is written when there is room`() async throws
    {
        try await withFolder { folder in
            let path = folder.appending(path: "a.sqlite").path
            let term = try await SQLiteStore(path: path, maximumBytes: 64 << 10)
                .takeOffice(as: "one") { _ in }
            let value = [UInt8](repeating: 3, count: 8000)
            var saved = 0
            await #expect(throws: StoreError.full(place: path)) {
                for number in 0..<20 {
                    try await term.save(StoreBatch(records: ["key\(number)": value]))
                    saved += 1
                }
            }
            #expect(saved > 3)
            #expect(try await term.load().count == saved)
            // The writer tries again, and gets through once something is gone.
            let failures = Mutex(0)
            let writer = StoreWriter(term: term) { report in
                if case .failed(.full, true) = report { failures.withLock { $0 += 1 } }
            }
            let running = Task { await writer.run() }
            writer.put(StoreBatch(records: ["late": value]))
            try await eventually("the failure") { failures.withLock { $0 } == 1 }
            try await term.save(StoreBatch(records: ["key0": nil, "key1": nil]))
            #expect(await writer.flush(within: .seconds(20)))
            #expect(try await term.load()["late"] == value)
            #expect(failures.withLock { $0 } == 1)
            running.cancel()
            await term.resign()
        }
    }

    @Test func `a lock file that was removed ends the term, and the old one writes nothing`()
        async throws
    {
        try await withFolder { folder in
            let path = folder.appending(path: "a.sqlite").path
            let store = SQLiteStore(path: path)
            let first = try await store.takeOffice(as: "one") { _ in }
            try FileManager.default.removeItem(atPath: path + ".lock")
            let second = try await store.takeOffice(as: "two") { _ in }
            let error = await #expect(throws: StoreError.self) {
                try await first.save(StoreBatch(records: ["key": [1]]))
            }
            guard case .fenced = error else {
                Issue.record("not fenced: \(String(describing: error))")
                return
            }
            #expect(await first.ended().contains("removed"))
            #expect(!first.isCurrent && second.isCurrent)
            await second.resign()
        }
    }

    @Test func `the writer joins what waits`() async throws {
        try await withFolder { folder in
            let store = SQLiteStore(path: folder.appending(path: "a.sqlite").path)
            let term = try await store.takeOffice(as: "one") { _ in }
            let writes = Mutex(0)
            let writer = StoreWriter(term: term) { report in
                if case .saved = report { writes.withLock { $0 += 1 } }
            }
            for number in 0..<1000 {
                writer.put(
                    StoreBatch(
                        records: ["number": bytes("\(number)"), "key\(number % 10)": [1]],
                        events: [StoredEvent(number: UInt64(number + 1), bytes: [2])]))
            }
            let running = Task { await writer.run() }
            #expect(await writer.flush(within: .seconds(20)))
            #expect(writes.withLock { $0 } == 1)
            #expect(try await term.load()["number"] == bytes("999"))
            #expect(try await term.load().count == 11)
            #expect(try await term.lastEvents(5000).count == 1000)
            running.cancel()
            await term.resign()
        }
    }
}
