import Foundation
import Logging
import Synchronization
import Testing

@testable import ClusterStore

/// Three members of one etcd.
struct EtcdTrio {
    private struct Member {
        let name: String
        let client: Int
        let peer: Int
        var process: Process?
        var endpoint: String { "http://127.0.0.1:\(client)" }
    }

    private let folder: URL
    private var members: [Member]

    init(in folder: URL) throws {
        self.folder = folder
        let first = Int.random(in: 20_000..<31_000)
        members = (0..<3).map { number in
            Member(name: "m\(number)", client: first + 2 * number, peer: first + 2 * number + 1)
        }
        for member in members { try start(member.endpoint) }
    }

    var endpoints: [String] { members.map(\.endpoint) }

    /// Starts a member, or starts it again with what it has on disk.
    mutating func start(_ endpoint: String) throws {
        let all = members.map { "\($0.name)=http://127.0.0.1:\($0.peer)" }
        for index in members.indices where members[index].endpoint == endpoint {
            let member = members[index]
            let peer = "http://127.0.0.1:\(member.peer)"
            let process = Process()
            process.executableURL = URL(fileURLWithPath: EtcdServer.executable ?? "")
            process.arguments = [
                "--name", member.name, "--data-dir", folder.appending(path: member.name).path,
                "--listen-client-urls", member.endpoint, "--advertise-client-urls",
                member.endpoint, "--listen-peer-urls", peer, "--initial-advertise-peer-urls",
                peer, "--initial-cluster", all.joined(separator: ","), "--heartbeat-interval", "50",
                "--election-timeout", "500", "--log-level", "error",
            ]
            process.standardOutput = FileHandle.nullDevice
            process.standardError = FileHandle.nullDevice
            try process.run()
            members[index].process = process
        }
    }

    mutating func kill(_ endpoint: String) throws {
        for index in members.indices where members[index].endpoint == endpoint {
            let process = try #require(members[index].process)
            signal(process, SIGKILL)
            process.waitUntilExit()
            members[index].process = nil
        }
    }

    private func signal(_ process: Process, _ number: Int32) {
        guard process.isRunning else { return }
        _ = Foundation.kill(process.processIdentifier, number)
    }

    /// Until each member answers and knows a leader.
    func waitUntilWhole() async throws {
        for member in members {
            let calls = try EtcdCalls(
                endpoints: [member.endpoint], options: EtcdStore.Options())
            try await eventually("\(member.name)") {
                let answer: EtcdRangeAnswer? = try? await calls.call(
                    "/v3/kv/range", EtcdRangeRequest(key: Base64.text("any")), within: .seconds(1))
                return answer != nil
            }
        }
    }

    func stop() {
        for process in members.compactMap(\.process) {
            signal(process, SIGKILL)
            process.waitUntilExit()
        }
    }
}

/// Certificates as an operator makes them for etcd.
struct OpenSSL {
    static let executable: String? = (ProcessInfo.processInfo.environment["PATH"] ?? "")
        .split(separator: ":").map { "\($0)/openssl" }
        .first { FileManager.default.isExecutableFile(atPath: $0) }

    private let folder: URL

    init(_ folder: URL) throws {
        self.folder = folder
        // Members are clients of themselves, so theirs are good for both sides.
        try Data("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n".utf8)
            .write(to: folder.appending(path: "extensions"))
    }

    func path(_ file: String) -> String { folder.appending(path: file).path }

    func makeAuthority(_ name: String) throws {
        try run([
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=\(name)", "-keyout", path("\(name).key"), "-out",
            path("\(name).pem"),
        ])
    }

    func issue(_ name: String, by authority: String) throws {
        try run([
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
            "/CN=\(name)", "-keyout", path("\(name).key"), "-out", path("\(name).csr"),
        ])
        try run([
            "x509", "-req", "-in", path("\(name).csr"), "-CA", path("\(authority).pem"), "-CAkey",
            path("\(authority).key"), "-CAcreateserial", "-days", "2", "-extfile",
            path("extensions"), "-out", path("\(name).pem"),
        ])
    }

    private func run(_ arguments: [String]) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: Self.executable ?? "")
        process.arguments = arguments
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0, "openssl \(arguments.first ?? "")")
    }
}

/// What was logged.
final class Lines: Sendable {
    private let lines = Mutex<[String]>([])

    var all: [String] { lines.withLock { $0 } }

    var logger: Logger { Logger(label: "test") { _ in Handler(lines: self) } }

    private struct Handler: LogHandler {
        let lines: Lines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.info

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            lines.lines.withLock { $0.append("\(event.message) \(event.metadata ?? [:])") }
        }
    }
}
