import Foundation
import ServingTypes

/// What workers take of this process: threads of KV connections, and sockets by port.
///
/// Other tests run in the same process; so threads are counted by name and sockets by port.
struct Footprint: Equatable {
    var threads: [String]
    var sockets: Int

    /// - Parameter ports: local or remote, of listeners that only the test uses.
    static func now(ports: Set<Int>) throws -> Footprint {
        Footprint(threads: try threads(), sockets: try sockets(ports: ports))
    }

    /// Resident pages of the process in bytes.
    static func residentBytes() throws -> Int {
        let fields = try text(of: "/proc/self/statm").split(separator: " ")
        guard fields.count > 1, let pages = Int(fields[1]) else {
            throw BenchFailure("statm can't be read")
        }
        return pages * 4096
    }

    /// All open descriptors of the process.
    static func descriptors() throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
    }

    /// Waits until no thread and no socket of ended workers is left.
    static func waitUntilGone(
        of workers: [BenchWorker], within deadline: Duration = .seconds(12)
    ) async throws {
        let ports = Set(workers.flatMap { [$0.controlAddress.port, $0.bulkAddress.port] })
        try await wait(ports: ports, toBe: Footprint(threads: [], sockets: 0), within: deadline)
    }

    /// Waits until no more than this is left.
    static func wait(
        ports: Set<Int>, toBe wanted: Footprint, within deadline: Duration
    ) async throws {
        let end = ContinuousClock.now + deadline
        while true {
            let now = try Footprint.now(ports: ports)
            if now.threads.count <= wanted.threads.count, now.sockets <= wanted.sockets { return }
            guard ContinuousClock.now < end else {
                throw BenchFailure("left behind: \(now), expected \(wanted)")
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    /// Threads of KV connections, each with its connection's file and buffers.
    private static func threads() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").compactMap { id in
            // A thread may end meanwhile.
            guard let name = try? text(of: "/proc/self/task/\(id)/comm") else { return nil }
            return name.hasPrefix("kv-") ? name.trimmingCharacters(in: .newlines) : nil
        }.sorted()
    }

    private static func sockets(ports: Set<Int>) throws -> Int {
        var inodes: Set<Substring> = []
        for line in try text(of: "/proc/self/net/tcp").split(separator: "\n").dropFirst() {
            let fields = line.split(separator: " ")
            guard fields.count > 9 else { continue }
            let own = fields[1...2].compactMap { field in
                field.split(separator: ":").last.flatMap { Int($0, radix: 16) }
            }
            if own.contains(where: ports.contains) { inodes.insert(fields[9]) }
        }
        let files = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")
        return files.count { file in
            let link = try? FileManager.default.destinationOfSymbolicLink(
                atPath: "/proc/self/fd/\(file)")
            guard let link, link.hasPrefix("socket:[") else { return false }
            return inodes.contains(link.dropFirst("socket:[".count).dropLast())
        }
    }

    /// Files of /proc have no size, so they are read to their end.
    private static func text(of path: String) throws -> String {
        guard let handle = FileHandle(forReadingAtPath: path) else {
            throw BenchFailure("\(path) can't be read")
        }
        defer { try? handle.close() }
        return String(decoding: try handle.readToEnd() ?? Data(), as: UTF8.self)
    }
}
