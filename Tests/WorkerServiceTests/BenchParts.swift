import CoreMetrics
import Foundation
import InferenceEngine
import Logging
import ServiceRuntime
import ServingTypes
import SimulatedEngine
import Synchronization
import Testing
import Transport

@testable import WorkerService

/// Tests of this target share a process, its metrics and two cores: one runs at a time.
@Suite(.serialized, .timeLimit(.minutes(10))) enum WorkerServiceTests {}

/// Whether the long sweeps are wanted: `KV_FAULTS=long`.
let isLong = ProcessInfo.processInfo.environment["KV_FAULTS"] == "long"

/// A certificate authority in a folder of its own, removed with the last reference.
final class BenchCertificates: Sendable {
    static let cluster = "bench"
    private let authority: CertificateAuthority
    private let contexts = Mutex<[InstanceID: TLSContext]>([:])

    init() throws {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("pdserve-bench-\(UUID().uuidString)").path
        authority = CertificateAuthority(folder: folder)
        try authority.create(cluster: Self.cluster)
    }

    deinit { try? FileManager.default.removeItem(atPath: authority.folder) }

    var folder: String { authority.folder }

    func issue(_ role: Role, _ instance: InstanceID) throws {
        try authority.issue(
            PeerIdentity(cluster: Self.cluster, role: role, instance: instance),
            hosts: ["localhost", "127.0.0.1"])
    }

    /// The same one each time.
    func context(_ role: Role, _ instance: InstanceID) throws -> TLSContext {
        try contexts.withLock { contexts in
            if let known = contexts[instance] { return known }
            try issue(role, instance)
            let new = try TLSContext(TLSIdentity(authority.paths(of: instance)))
            contexts[instance] = new
            return new
        }
    }

    func hello(_ role: Role, _ instance: InstanceID) -> Hello {
        Hello(
            cluster: Self.cluster, role: role, instance: instance, incarnation: 1,
            productVersion: "test")
    }

    /// A gateway's connection to the worker.
    func gateway(of worker: BenchWorker) throws -> ControlClient {
        let name = InstanceID("gateway")
        return try ControlClient(
            address: worker.controlAddress, context: context(.gateway, name),
            hello: hello(.gateway, name),
            expects: PeerExpectation(worker.role, instance: worker.instance),
            logger: Logger(label: "gateway") { _ in SwiftLogNoOpLogHandler() })
    }
}

/// The metrics that the workers of this process write.
enum BenchMetrics {
    /// The first runtime of a process gives it its metrics.
    static func prepare(with runtime: ServiceRuntime) {
        precondition(registry != nil, "\(runtime.name) has no metrics")
    }

    private static var registry: MetricsRegistry? { MetricsSystem.factory as? MetricsRegistry }

    /// 0 if nothing was written.
    static func value(_ name: String, _ labels: [String: String] = [:]) -> Int {
        Int(registry?.value(name, labels) ?? 0)
    }

    /// How often a histogram has recorded something.
    static func count(_ name: String) -> Int { registry?.recorded(name)?.count ?? 0 }

    /// How much a counter rises meanwhile.
    static func rise(
        of name: String, _ labels: [String: String] = [:], during body: () async throws -> Void
    ) async throws -> Int {
        let before = value(name, labels)
        try await body()
        return value(name, labels) - before
    }
}

/// One engine that computes prompts and tokens alone: what all others are compared with.
actor Undivided {
    /// What a prefill exports, and the token it samples.
    struct Exported: Sendable {
        var blocks: [KVBlock]
        var firstToken: TokenOutput
    }

    static let shared = Undivided()

    /// One that computes tokens, and one that exports.
    private var engines: [Bool: SimulatedEngine] = [:]
    private var latestPrefill: Task<Exported, any Error>?
    private var sequences: UInt64 = 0
    private nonisolated let listeners =
        Mutex<[SequenceID: AsyncStream<EngineEvent>.Continuation]>([:])

    func tokens(of request: BenchRequest) async throws -> [TokenID] {
        var tokens: [TokenID] = []
        for await event in try submit(request, newTokens: request.newTokens, exports: false) {
            if case .token(_, let token, _) = event { tokens.append(token.token) }
        }
        return tokens
    }

    /// The KV of the prompt, always cut at the same tokens, and the first token.
    func prefill(_ request: BenchRequest) async throws -> Exported {
        // An engine cuts a prompt otherwise that shares its micro-batches with others.
        let before = latestPrefill
        let prefill = Task {
            _ = try? await before?.value
            return try await prefillAlone(request)
        }
        latestPrefill = prefill
        return try await prefill.value
    }

    private func prefillAlone(_ request: BenchRequest) async throws -> Exported {
        var blocks: [KVBlock] = []
        for await event in try submit(request, newTokens: 1, exports: true) {
            switch event {
            case .exported(_, let block): blocks.append(block)
            case .token(_, let token, _): return Exported(blocks: blocks, firstToken: token)
            default: break
            }
        }
        throw BenchFailure("the engine alone gives no token")
    }

    /// The engine's events until the sequence is closed.
    private func submit(
        _ request: BenchRequest, newTokens: Int, exports: Bool
    ) throws -> AsyncStream<EngineEvent> {
        let engine = try engines[exports] ?? makeEngine()
        engines[exports] = engine
        sequences += 1
        let sequence = SequenceID(sequences)
        let (stream, continuation) = AsyncStream<EngineEvent>.makeStream()
        listeners.withLock { $0[sequence] = continuation }
        engine.submit(
            .run(
                SequenceJob(
                    sequence: sequence, tokens: request.prompt, sampling: request.sampling,
                    maximumNewTokens: newTokens, exportsKV: exports)))
        return stream
    }

    private func makeEngine() throws -> SimulatedEngine {
        var settings = SimulatedEngine.Settings.instant
        settings.microBatchTokens = 32
        settings.kvCapacityTokens = 32768
        return try SimulatedEngine(settings: settings) { [listeners = Weak(self)] event in
            listeners.target?.take(event)
        }
    }

    private nonisolated func take(_ event: EngineEvent) {
        let (sequence, isLast): (SequenceID, Bool)
        switch event {
        case .token(let id, _, let finish): (sequence, isLast) = (id, finish != nil)
        case .exported(let id, _): (sequence, isLast) = (id, false)
        case .failed(let id, _): (sequence, isLast) = (id, true)
        default: return
        }
        listeners.withLock { listeners in
            listeners[sequence]?.yield(event)
            if isLast { listeners.removeValue(forKey: sequence)?.finish() }
        }
    }
}

private final class Weak<Target: AnyObject & Sendable>: Sendable {
    private let reference: Mutex<Reference>

    private struct Reference { weak var target: Target? }

    init(_ target: Target) { reference = Mutex(Reference(target: target)) }

    var target: Target? { reference.withLock { $0.target } }
}

/// Runs blocking work on a thread of its own.
func onThread<Value: Sendable>(
    _ body: @escaping @Sendable () throws -> Value
) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        Thread { continuation.resume(with: Result(catching: body)) }.start()
    }
}

/// Lets the calling thread sleep.
func pause(_ duration: Duration) { Thread.sleep(forTimeInterval: duration / .seconds(1)) }

/// Does something for each element, a few at once.
func forEach<Element: Sendable>(
    _ elements: [Element], atOnce width: Int = 4,
    _ body: @escaping @Sendable (Element) async throws -> Void
) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
        for (index, element) in elements.enumerated() {
            if index >= width { try await group.next() }
            group.addTask { try await body(element) }
        }
        try await group.waitForAll()
    }
}
