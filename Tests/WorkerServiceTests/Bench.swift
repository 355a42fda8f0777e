import Foundation
import InferenceEngine
import KVHandOver
import Roles
import ServiceRuntime
import ServingTypes
import Synchronization
import Testing
import Transport

@testable import WorkerService

/// A prefill- and a decode-worker as their executables build them, in this process, over TLS on
/// loopback; the test is their gateway, or one of them.
struct Bench: Sendable {
    struct Options: Sendable {
        /// Arguments of both executables.
        var arguments = [
            "--engine", "simulated", "--simulated-speed", "0", "--micro-batch", "32",
            "--threads", "1", "--kv-tokens", "32768", "--calibrate", "never",
        ]
        var localFolder = "none"
        /// Of the decode-worker, if it has another one.
        var decodeLocalFolder: String?
        /// Measuring what 'auto' needs takes longer than most tests.
        var compression = "off"
        var keptSequences = 0
        /// Of the prefill-worker, if it keeps another number.
        var prefillKeptSequences: Int?
        var prefillSlots = 8
        var decodeSequences = 16
        /// Where the workers look for their scheduler; nobody is there.
        var scheduler = NetworkAddress(host: "127.0.0.1", port: 1)
        var prefill: [String] = []
        var decode: [String] = []
        var handOver = KVHandOverLimits()

        init() { handOver.reconnectPause = .milliseconds(20) }
    }

    let options: Options
    let certificates: BenchCertificates
    let prefill: BenchWorker
    let decode: BenchWorker
    let gateway: BenchGateway

    /// Starts both workers, runs the body and stops them, whatever happens.
    ///
    /// Afterwards no thread and no descriptor of theirs may be left.
    static func run(
        _ options: Options = Options(), certificates: BenchCertificates? = nil,
        _ body: @escaping @Sendable (Bench) async throws -> Void
    ) async throws {
        let certificates = try certificates ?? BenchCertificates()
        let bench = Bench(
            options: options, certificates: certificates,
            prefill: try await BenchWorker(.prefillWorker, options, certificates),
            decode: try await BenchWorker(.decodeWorker, options, certificates),
            gateway: BenchGateway())
        try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in [bench.prefill, bench.decode] {
                group.addTask { try? await worker.service.run() }
                let client = try certificates.gateway(of: worker)
                group.addTask { await bench.gateway.follow(client, worker.role) }
            }
            defer { group.cancelAll() }
            try await bench.gateway.waitUntilConnected()
            try await body(bench)
        }
        try await Footprint.waitUntilGone(of: [bench.prefill, bench.decode])
    }

    // MARK: Requests

    /// A request with room on the decode-worker.
    struct Placed: Sendable {
        var request: BenchRequest
        var granted: ReservationGranted
        var events: BenchGateway.Events
    }

    /// Asks for room until there is some.
    func reserve(_ request: BenchRequest) async throws -> Placed {
        let events = gateway.listen(to: request.attempt)
        for _ in 0..<2000 {
            gateway.send(
                .reserveKV(ReserveKV(terms: request.terms)), request.prompt, to: .decodeWorker)
            switch try await events.next(within: .seconds(10)) {
            case .granted(let granted):
                return Placed(request: request, granted: granted, events: events)
            case .refused(let refused) where refused.code == .noKVRoom:
                try await Task.sleep(for: .milliseconds(2))
            case let other: throw BenchFailure("a reservation was answered by \(other)")
            }
        }
        throw BenchFailure("the decode-worker never has room")
    }

    /// Has the prompt computed, and its KV sent to this address, as soon as there is a slot.
    func offer(
        _ placed: Placed, to address: NetworkAddress? = nil, instance: InstanceID? = nil
    ) async throws {
        let offer = PrefillOffer(
            terms: placed.request.terms, decodeInstance: instance ?? decode.instance,
            decodeBulkAddress: address ?? decode.bulkAddress, secret: placed.granted.secret,
            heldTokens: placed.granted.heldTokens)
        // The decode-worker's words come on another connection, perhaps earlier.
        var early: [BenchGateway.Event] = []
        defer { placed.events.putBack(early) }
        for _ in 0..<2000 {
            gateway.send(.prefillOffer(offer), placed.request.prompt, to: .prefillWorker)
            answer: while true {
                switch try await placed.events.next(within: .seconds(10)) {
                case .accepted: return
                case .rejected(let rejected) where rejected.code == .busy: break answer
                case .tokens(let batch, from: .decodeWorker):
                    early.append(.tokens(batch, from: .decodeWorker))
                case let other: throw BenchFailure("an offer was answered by \(other)")
                }
            }
            try await Task.sleep(for: .milliseconds(2))
        }
        throw BenchFailure("the prefill-worker never has a slot")
    }

    /// Sends a request through both workers; what a gateway would then know of it.
    ///
    /// - Parameter address: where the prefill-worker sends the KV.
    func answer(
        _ request: BenchRequest, through address: NetworkAddress? = nil,
        instance: InstanceID? = nil, within deadline: Duration = .seconds(30)
    ) async throws -> Answer {
        let placed = try await reserve(request)
        try await offer(placed, to: address, instance: instance)
        return try await outcome(of: placed, within: deadline)
    }

    /// Waits for all tokens or for a failure; a failure is told to the other worker, too.
    func outcome(
        of placed: Placed, within deadline: Duration = .seconds(30)
    ) async throws -> Answer {
        let answer = try await placed.events.answer(within: deadline)
        if answer.failure != nil { cancel(placed.request.attempt) }
        gateway.forget(placed.request.attempt)
        return answer
    }

    func cancel(_ attempt: AttemptID) {
        let cancel = ControlMessage.cancelRequest(CancelRequest(attempt: attempt))
        gateway.send(cancel, to: .prefillWorker)
        gateway.send(cancel, to: .decodeWorker)
    }

    /// Expects the tokens that one engine alone gives.
    func expectRight(
        _ answer: Answer, to request: BenchRequest, _ circumstances: String = "",
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let expected = try await Undivided.shared.tokens(of: request)
        #expect(
            answer == Answer(tokens: expected), "\(circumstances)", sourceLocation: sourceLocation)
    }

    // MARK: Rest

    /// Waits until nothing is held anywhere; says what is if that takes too long.
    func settle(
        within deadline: Duration = .seconds(8),
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let end = ContinuousClock.now + deadline
        while !remains.isEmpty {
            guard ContinuousClock.now < end else {
                return #expect(remains == [], sourceLocation: sourceLocation)
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    /// What is still held.
    private var remains: [String] {
        prefill.remains(slots: options.prefillSlots)
            + decode.remains(slots: options.prefillSlots)
            + [
                "prefill_kv_held_bytes", "prefill_kv_stranded_transfers",
                "prefill_kv_stranded_bytes", "decode_kv_landed_bytes",
                "decode_kv_stranded_transfers", "decode_kv_stranded_bytes",
                "decode_kv_reserved_bytes",
            ].compactMap { name in
                let value = BenchMetrics.value(name)
                return value == 0 ? nil : "\(name) is \(value)"
            }
    }
}

/// One worker of the bench.
struct BenchWorker: Sendable {
    let role: Role
    let instance: InstanceID
    let service: WorkerService

    init(
        _ role: Role, _ options: Bench.Options, _ certificates: BenchCertificates,
        name: String? = nil
    ) async throws {
        self.role = role
        instance = InstanceID(name ?? role.name)
        try certificates.issue(role, instance)
        let kept =
            role == .prefillWorker
            ? options.prefillKeptSequences ?? options.keptSequences : options.keptSequences
        let own =
            [
                "--prefill-slots", "\(options.prefillSlots)", "--decode-sequences",
                "\(options.decodeSequences)", "--kept-sequences", "\(kept)",
            ] + (role == .prefillWorker ? options.prefill : options.decode)
        let localFolder =
            role == .decodeWorker
            ? options.decodeLocalFolder ?? options.localFolder : options.localFolder
        let environment = ProcessInfo.processInfo.environment
        var reader = try SettingsReader(
            service: role.name, version: "test",
            arguments: [
                "--certificates", certificates.folder, "--cluster", BenchCertificates.cluster,
                "--name", instance.name, "--listen", "127.0.0.1:0", "--bulk-listen",
                "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--scheduler",
                "\(options.scheduler)",
                "--local-folder", localFolder,
                "--kv-compression", options.compression, "--log-level",
                environment["KV_FAULTS_LOG"] ?? "critical",
            ] + options.arguments + own, environment: [:])
        var settings = try WorkerSettings(&reader, role: role)
        let runtime = ServiceRuntime(name: role.name, settings: try RuntimeSettings(&reader))
        try reader.finish()
        settings.transfers.handOver = options.handOver
        BenchMetrics.prepare(with: runtime)
        let services = try await WorkerMain.services(settings, runtime)
        let guarded = services.compactMap { $0 as? GuardedWorker }.first
        service = try #require(guarded?.worker)
    }

    var controlAddress: NetworkAddress { service.description.controlAddress }
    var bulkAddress: NetworkAddress { service.description.bulkAddress }

    /// What is held, but for KV that is kept on purpose.
    func remains(slots: Int) -> [String] {
        let status = service.status
        let progress = service.engine.progress
        let (landed, landedBytes, keptTokens, kept) = service.state.withLock {
            (
                $0.landed.count, $0.machine.landedKVBytes, $0.machine.keptKVTokens,
                $0.machine.keptSequences
            )
        }
        return [
            ("free slots", status.freePrefillSlots, status.role.takesPrompts ? slots : 0),
            ("reserved bytes", status.reservedKVBytes, 0),
            ("running sequences", status.runningSequences, 0),
            ("local prefills", status.localPrefills, 0),
            ("transfers with landed chunks", landed, 0), ("landed bytes", landedBytes, 0),
            ("engine's sequences", progress.openSequences, kept),
            ("engine's KV tokens", progress.usedKVTokens, keptTokens),
        ].compactMap { name, value, wanted in
            value == wanted ? nil : "\(name) of the \(role.name): \(value), not \(wanted)"
        }
    }
}

/// A test can't go on.
struct BenchFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
