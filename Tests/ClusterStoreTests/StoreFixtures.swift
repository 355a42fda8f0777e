import ClusterStore
import Foundation
import Logging
import Synchronization
import Testing

/// A folder of its own for a test.
func withFolder<Result>(
    _ body: (URL) async throws -> Result
) async throws -> Result {
    let folder = FileManager.default.temporaryDirectory
        .appending(path: "store-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    return try await body(folder)
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// Waits for what another task does.
func eventually(
    within deadline: Duration = .seconds(20), _ what: String, _ isTrue: () async throws -> Bool
) async throws {
    let end = ContinuousClock.now + deadline
    while try await !isTrue() {
        try #require(ContinuousClock.now < end, "\(what) does not come")
        try await Task.sleep(for: .milliseconds(10))
    }
}

/// An etcd of the test's own, with one member.
final class EtcdServer: Sendable {
    static let executable: String? = (ProcessInfo.processInfo.environment["PATH"] ?? "")
        .split(separator: ":").map { "\($0)/etcd" }
        .first { FileManager.default.isExecutableFile(atPath: $0) }
    static let absence: Comment = "etcd is not on PATH; apt-get install etcd-server brings it"

    let endpoint: String
    private let process: Process

    init(
        in folder: URL, port: Int = .random(in: 20_000..<32_000), scheme: String = "http",
        arguments: [String] = []
    ) throws {
        endpoint = "\(scheme)://127.0.0.1:\(port)"
        process = Process()
        process.executableURL = URL(fileURLWithPath: Self.executable ?? "")
        process.arguments =
            [
                "--data-dir", folder.appending(path: "etcd").path,
                "--listen-client-urls", endpoint, "--advertise-client-urls", endpoint,
                "--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "error",
            ] + arguments
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
    }

    func signal(_ number: Int32) {
        if process.isRunning { kill(process.processIdentifier, number) }
    }

    func stop() {
        signal(SIGCONT)
        signal(SIGKILL)
        process.waitUntilExit()
    }

    func store(_ change: (inout EtcdStore.Options) -> Void = { _ in }) throws -> EtcdStore {
        var options = EtcdStore.Options()
        options.lease = .seconds(2)
        change(&options)
        return try EtcdStore(
            endpoints: [endpoint], options: options, logger: Logger(label: "test"))
    }

    static func run(_ body: (EtcdServer) async throws -> Void) async throws {
        try await withFolder { folder in
            let server = try EtcdServer(in: folder)
            defer { server.stop() }
            try await body(server)
        }
    }
}

/// Every promise of a store that both kinds keep.
enum Promises {
    static func recordsAndEventsOutliveATerm(_ store: any ClusterStore) async throws {
        let first = try await store.takeOffice(as: "one") { _ in }
        #expect(try await first.load().isEmpty)
        let now = UInt64(Date().timeIntervalSince1970 * 1000)
        #expect(first.epoch + 10_000 > now)
        let many = (0..<700).map { ("seat/w\($0)", Optional(bytes("value \($0)"))) }
        let events = (1...250).map { StoredEvent(number: $0, bytes: bytes("event \($0)")) }
        try await first.save(
            StoreBatch(records: Dictionary(uniqueKeysWithValues: many), events: events))
        try await first.save(
            StoreBatch(records: ["seat/w0": nil, "seat/w1": bytes("other"), "nothing": nil]))
        await first.resign()
        #expect(!first.isCurrent)
        await #expect(throws: StoreError.self) {
            try await first.save(StoreBatch(records: ["late": bytes("x")]))
        }
        let second = try await store.takeOffice(as: "two") { _ in }
        #expect(second.epoch > first.epoch)
        let records = try await second.load()
        #expect(records.count == 699)
        #expect(records["seat/w0"] == nil && records["late"] == nil)
        #expect(records["seat/w1"] == bytes("other"))
        #expect(records["seat/w699"] == bytes("value 699"))
        #expect(try await second.lastEvents(3) == Array(events.suffix(3)))
        #expect(try await second.lastEvents(1000) == events)
        let later = StoredEvent(
            number: UInt64(StoreLimits.keptEvents) + 100, bytes: bytes("later"))
        try await second.save(StoreBatch(events: [later]))
        let kept = try await second.lastEvents(20_000)
        #expect(kept.first?.number == 101 && kept.last == later && kept.count == 151)
        await second.resign()
    }

    static func oneLeadsAtATime(_ store: any ClusterStore) async throws {
        let first = try await store.takeOffice(as: "one") { _ in }
        let leader = Mutex("")
        let second = Task {
            try await store.takeOffice(as: "two") { name in leader.withLock { $0 = name } }
        }
        try await eventually("the standby's word") { leader.withLock { $0 } == "one" }
        let third = Task { try await store.takeOffice(as: "three") { _ in } }
        try await Task.sleep(for: .milliseconds(300))
        third.cancel()
        await #expect(throws: (any Error).self) { try await third.value }
        #expect(first.isCurrent)
        await first.resign()
        let term = try await second.value
        #expect(term.isCurrent && term.epoch > first.epoch)
        await term.resign()
    }

    static func aRecordHasABound(_ store: any ClusterStore) async throws {
        let term = try await store.takeOffice(as: "one") { _ in }
        let long = [UInt8](repeating: 1, count: 70_000)
        await #expect(throws: StoreError.self) {
            try await term.save(StoreBatch(records: ["long": long, "short": [1]]))
        }
        #expect(try await term.load().isEmpty)
        await term.resign()
    }
}
