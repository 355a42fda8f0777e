import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// A real cluster for one test: five executables, TLS on loopback, libllama on the small model.
struct TestCluster: Sendable {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
    static let model = root.appending(path: "Models/tiny.gguf").path
    /// Three of its four layers attend to 32 tokens.
    static let windowModel = root.appending(path: "Tests/LlamaEngineTests/Models/window.gguf").path
    /// Executables lie beside the test bundle.
    static let executables = URL(fileURLWithPath: ProcessInfo.processInfo.arguments[0])
        .resolvingSymlinksInPath().deletingLastPathComponent()

    let cluster: LocalCluster

    /// Starts a cluster, runs the body and stops it, whatever happens.
    ///
    /// - Parameters:
    ///   - path: what simulated engines take for their model file.
    ///   - waits: until the gateway can serve, and every worker serves in the role it started with.
    static func run(
        prefill: Int = 1, decode: Int = 1, engine: String = "llama", model: String = model,
        path: String? = nil, arguments: [Role: [String]] = [:],
        settings change: (inout LocalCluster.Settings) -> Void = { _ in }, waits: Bool = true,
        _ body: (TestCluster) async throws -> Void
    ) async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-test-\(UInt32.random(in: 0 ... .max))")
        defer { try? FileManager.default.removeItem(at: folder) }
        var settings = LocalCluster.Settings(
            executables: executables, folder: folder,
            modelPath: engine == "llama" ? model : path)
        settings.engine = engine
        settings.prefillWorkers = prefill
        settings.decodeWorkers = decode
        let single = ["--threads", "1"]
        settings.arguments = arguments.merging(
            [.prefillWorker: single, .decodeWorker: single], uniquingKeysWith: { $0 + $1 })
        change(&settings)
        let test = TestCluster(cluster: LocalCluster(settings: settings))
        do {
            try await test.cluster.start()
            if waits { try await test.waitUntilAllServe() }
            try await body(test)
        } catch {
            for process in test.cluster.all {
                print("--- \(process.name)\n\(process.logTail(lines: 30))")
            }
            await test.cluster.stop()
            throw error
        }
        await test.cluster.stop()
        for process in test.cluster.all where process.exitStatus != 0 {
            // Tests that kill a process say so by removing it from this check themselves.
            if process.exitStatus == -SIGKILL { continue }
            Issue.record("\(process.name) ended with \(process.exitStatus ?? -1)")
        }
    }

    func waitUntilHealthy() async throws {
        try await cluster.waitUntilHealthy { address in
            let answer = try? await HTTPCall("GET", address, "/health").collect()
            return answer?.head.status == 200
        }
    }

    /// One worker may serve alone: the gateway is healthy before all are there.
    private func waitUntilAllServe() async throws {
        try await waitUntilHealthy()
        let gateway = try #require(cluster.processes(of: .gateway).first)
        let scheduler = try #require(cluster.processes(of: .scheduler).first)
        for (role, kind) in [("prefill", Role.prefillWorker), ("decode", .decodeWorker)] {
            let count = cluster.processes(of: kind).count
            guard count > 0 else { continue }
            try await wait(
                for: #"scheduler_instances{role="\#(role)",state="serving"}"#, of: scheduler,
                toBe: Double(count), within: .seconds(30))
        }
        let workers = cluster.all.count { $0.role.isWorker }
        try await wait(
            for: "gateway_workers_connected", of: gateway, toBe: Double(workers),
            within: .seconds(30))
    }

    var http: NetworkAddress {
        get throws { try #require(cluster.httpAddress) }
    }

    // MARK: Calls

    func post(
        _ path: String, _ json: String, headers: [String: String] = [:]
    ) async throws -> (status: Int, json: JSONValue) {
        let (head, body) = try await HTTPCall(
            "POST", http, path,
            headers: headers.merging(
                ["content-type": "application/json"], uniquingKeysWith: { first, _ in first }),
            body: Array(json.utf8)
        ).collect()
        return (head.status, try JSONValue(body))
    }

    func get(_ path: String) async throws -> (status: Int, json: JSONValue) {
        let (head, body) = try await HTTPCall("GET", http, path).collect()
        return (head.status, try JSONValue(body))
    }

    /// Sends a streaming request and gives the data of all events.
    func stream(_ path: String, _ json: String) async throws -> [String] {
        var bytes: [UInt8] = []
        let head = try await HTTPCall(
            "POST", http, path, headers: ["content-type": "application/json"],
            body: Array(json.utf8)
        ).stream { _, chunk in bytes += chunk }
        #expect(head.status == 200)
        return String(decoding: bytes, as: UTF8.self).components(separatedBy: "\n\n")
            .filter { !$0.isEmpty }
            .map { event in
                #expect(event.hasPrefix("data: "), "\(event)")
                return String(event.dropFirst("data: ".count))
            }
    }

    /// One value of a process's metrics; nil if the series is not there.
    func metric(_ name: String, of process: ManagedProcess) async throws -> Double? {
        let address = try #require(process.announcement.admin ?? process.announcement.http)
        let (_, body) = try await HTTPCall("GET", address, "/metrics").collect()
        for line in String(decoding: body, as: UTF8.self).split(separator: "\n") {
            guard line.hasPrefix(name), let space = line.lastIndex(of: " ") else { continue }
            let series = line[..<space]
            if series == name || series.hasPrefix("\(name){") {
                return Double(line[line.index(after: space)...])
            }
        }
        return nil
    }

    /// Waits until a metric has the value; says in which time, or fails.
    @discardableResult
    func wait(
        for name: String, of process: ManagedProcess, toBe value: Double,
        within deadline: Duration = .seconds(10)
    ) async throws -> Duration {
        let start = ContinuousClock.now
        while true {
            let now = try await metric(name, of: process)
            if now == value { return ContinuousClock.now - start }
            guard ContinuousClock.now - start < deadline else {
                throw TestFailure(
                    "\(name) of \(process.name) is \(now.map { "\($0)" } ?? "missing"), "
                        + "not \(value), after \(deadline)")
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    /// Waits until the engine holds no KV but that of ended conversations.
    func waitForFreeKV(of worker: ManagedProcess) async throws {
        let deadline = ContinuousClock.now + .seconds(10)
        let role = worker.role == .prefillWorker ? "prefill" : "decode"
        while true {
            let used = try await metric("\(role)_engine_kv_used_tokens", of: worker)
            let kept = try await metric("\(role)_kv_kept_tokens", of: worker)
            if let used, used == kept { return }
            guard ContinuousClock.now < deadline else {
                throw TestFailure(
                    "the engine of \(worker.name) holds \(used ?? -1) tokens, "
                        + "\(kept ?? -1) of them kept")
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }
}

struct TestFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// JSON for looking into answers.
enum JSONValue: Equatable {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    init(_ bytes: [UInt8]) throws {
        let value = try JSONSerialization.jsonObject(with: Data(bytes), options: .fragmentsAllowed)
        self.init(foundation: value)
    }

    init(text: String) throws { try self.init(Array(text.utf8)) }

    private init(foundation value: Any) {
        switch value {
        case let string as String: self = .string(string)
        case let array as [Any]: self = .array(array.map { JSONValue(foundation: $0) })
        case let object as [String: Any]:
            self = .object(object.mapValues { JSONValue(foundation: $0) })
        case let number as NSNumber:
            let isBool = CFGetTypeIDIsBoolean(number)
            self = isBool ? .bool(number.boolValue) : .number(number.doubleValue)
        default: self = .null
        }
    }

    subscript(key: String) -> JSONValue {
        guard case .object(let object) = self else { return .null }
        return object[key] ?? .null
    }

    subscript(index: Int) -> JSONValue {
        guard case .array(let array) = self, array.indices.contains(index) else { return .null }
        return array[index]
    }

    var string: String? { if case .string(let value) = self { value } else { nil } }
    var int: Int? { if case .number(let value) = self { Int(value) } else { nil } }
    var double: Double? { if case .number(let value) = self { value } else { nil } }
    var array: [JSONValue] { if case .array(let value) = self { value } else { [] } }
}

/// Whether a number was written as `true` or `false`.
private func CFGetTypeIDIsBoolean(_ number: NSNumber) -> Bool {
    unsafe String(cString: number.objCType) == "c"
}
