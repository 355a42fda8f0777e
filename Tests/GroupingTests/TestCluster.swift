import ClusterRules
import Grouping
import ServingTypes

/// Workers that carry out what the controller orders, in virtual time.
struct TestCluster {
    struct Process {
        var description: InstanceDescription
        var status = InstanceStatus()
        var isServing = true
        /// The order it carries out and when it is done.
        var pending: (assign: Assign, doneAt: MonotonicTime)?
        var backAt: MonotonicTime?
    }

    var controller: GroupController
    var limits: GroupLimits
    var processes: [InstanceID: Process] = [:]
    var now = MonotonicTime.start
    var clock = WallClock(unixMilliseconds: 1, minuteOfDay: 0)
    var orders: [GroupOrder] = []
    var allDecisions: [Decision] = []
    /// Time a change of role takes, and loading a model.
    var flipTime: Duration = .seconds(2)
    var loadTime: Duration = .seconds(5)
    /// Model files that can't be loaded, those of them that a look shows, and the names in others.
    var brokenModels: Set<String> = []
    var refusedModels: Set<String> = []
    var modelNames: [String: String] = [:]
    var gateway = InstanceID("gateway-1")
    /// What the controller wants to outlive it.
    var saved: [SavedKey: SavedRecord] = [:]
    /// Records written, by tick.
    var writes: [Int] = []

    init(_ scenario: ScenarioSpec? = nil, limits: GroupLimits = GroupLimits()) {
        self.limits = limits
        controller = GroupController(limits: limits)
        if let scenario { controller.rulesChanged(ClusterSpec(scenarios: [scenario])) }
    }

    static func fingerprint(_ path: String) -> ModelFingerprint {
        let sum = path.utf8.reduce(UInt8(7)) { $0 &* 31 &+ $1 }
        return ModelFingerprint([UInt8](repeating: sum, count: ModelFingerprint.byteCount))
    }

    mutating func add(
        _ name: String, _ role: ServingRole, path: String = "/models/a", scenario: String = "",
        slots: Int = 1, sequences: Int = 4
    ) {
        let id = InstanceID(name)
        let address = NetworkAddress(host: "127.0.0.1", port: 1)
        var process = Process(
            description: InstanceDescription(
                instance: id, role: role == .prefill ? .prefillWorker : .decodeWorker,
                incarnation: UInt64(now.nanoseconds) + 1, host: "host", controlAddress: address,
                bulkAddress: address, modelName: "model", fingerprint: Self.fingerprint(path),
                contextTokens: 4096, kvBytesPerToken: 1, kvCapacityBytes: 1 << 30,
                prefillSlots: slots, decodeSequences: sequences, device: "test",
                initialRole: role, scenario: scenario, modelPath: path))
        process.status.role = role
        process.status.freePrefillSlots = slots
        processes[id] = process
    }

    mutating func remove(_ name: String) { processes[InstanceID(name)] = nil }

    subscript(name: String) -> Process? {
        get { processes[InstanceID(name)] }
        set { processes[InstanceID(name)] = newValue }
    }

    var workers: [GroupWorker] {
        processes.values.filter { $0.backAt == nil }.map {
            GroupWorker(
                description: $0.description, status: $0.status, isServing: $0.isServing)
        }.sorted { $0.instance < $1.instance }
    }

    /// One tick; the processes act on orders first.
    mutating func tick(_ step: Duration = .milliseconds(100)) {
        now = now + step
        for id in processes.keys.sorted() { advance(id) }
        let given = controller.decide(workers, now: now, clock: clock)
        orders += given
        let changes = controller.takeChanges()
        for (key, record) in changes { saved[key] = record }
        writes.append(changes.count)
        allDecisions += controller.takeNewDecisions()
        for order in given {
            let isLoad =
                !order.assign.modelPath.isEmpty
                && order.assign.modelPath != processes[order.instance]?.description.modelPath
            let present = processes[order.instance]?.status.role
            let isAtOnce = present == order.assign.role || order.assign.role == .mixed
            let time = isLoad || isAtOnce ? Duration.milliseconds(100) : flipTime
            var doneAt = now + time
            if let earlier = processes[order.instance]?.pending,
                earlier.assign.role == order.assign.role, !isLoad
            {
                doneAt = earlier.doneAt
            }
            processes[order.instance]?.pending = (order.assign, doneAt)
        }
    }

    private mutating func advance(_ id: InstanceID) {
        guard var process = processes[id] else { return }
        if let back = process.backAt, back <= now {
            process.backAt = nil
            process.description.incarnation += 1
            process.status = InstanceStatus()
            process.status.role = process.description.initialRole
            process.status.freePrefillSlots = process.description.prefillSlots
        }
        if let pending = process.pending, pending.doneAt <= now {
            process.pending = nil
            let path = pending.assign.modelPath
            process.status.assignment = pending.assign.number
            if !refusedModels.contains(path) { process.status.role = pending.assign.role }
            if !refusedModels.contains(path), !path.isEmpty, path != process.description.modelPath {
                process.backAt = now + loadTime
                if !brokenModels.contains(path) {
                    process.description.modelPath = path
                    process.description.modelName = modelNames[path] ?? "model"
                    process.description.fingerprint = Self.fingerprint(path)
                }
            }
        }
        processes[id] = process
    }

    mutating func run(_ time: Duration, each: (inout TestCluster) -> Void = { _ in }) {
        let end = now + time
        while now < end {
            tick()
            each(&self)
        }
    }

    func role(_ name: String) -> ServingRole { controller.place(of: InstanceID(name)).role }
    func group(_ name: String) -> String? { controller.place(of: InstanceID(name)).group?.name }

    func shown(_ role: ServingRole) -> Int {
        processes.values.count {
            $0.isServing && $0.backAt == nil
                && controller.place(of: $0.description.instance).role == role
        }
    }

    func says(_ text: String) -> Bool {
        allDecisions.contains { "\($0.action): \($0.reason)".contains(text) }
    }

    mutating func command(_ name: String, _ arguments: [String: String] = [:]) -> AdminReply {
        controller.command(
            AdminRequest(
                command: name,
                arguments: arguments.map { AdminRequest.Argument(name: $0.key, value: $0.value) }),
            workers: workers, now: now, clock: clock)
    }

    mutating func report(_ traffic: GroupTraffic, from gateway: String = "gateway-1") {
        controller.record(
            TrafficReport(interval: .seconds(2), groups: [traffic]), from: InstanceID(gateway),
            now: now)
    }

    /// What workers say before they have served anything.
    mutating func predictRates(prefillTokensPerSecond: Double, decodeStepMilliseconds: Double) {
        for id in processes.keys {
            processes[id]?.description.predicted = PredictedRates(
                isMeasured: true, prefillTokensPerSecond: prefillTokensPerSecond,
                stepMilliseconds: decodeStepMilliseconds, stepMillisecondsPerSequence: 0,
                stepMillisecondsPerThousandTokens: 0, kvExportBytesPerSecond: 1e9,
                kvImportBytesPerSecond: 1e9)
        }
    }

    mutating func setRates(prefillTokensPerSecond: Double, decodeStepMilliseconds: Double) {
        for id in processes.keys {
            processes[id]?.status.prefillTokensPerSecond = prefillTokensPerSecond
            processes[id]?.status.decodeStepMilliseconds = decodeStepMilliseconds
        }
    }
}

/// Sums of `count` requests with these means.
func traffic(
    _ group: String, scenario: String, count: Int, prefill: Duration, endToEnd: Duration,
    prompt: Int = 1000, output: Int = 100, waiting: Int = 0, rejected: Int = 0, refused: Int = 0
) -> GroupTraffic {
    var traffic = GroupTraffic(group: GroupID(group), scenario: scenario)
    traffic.arrived = count
    traffic.completed = count
    traffic.good = count
    traffic.prefill = prefill * count
    traffic.endToEnd = endToEnd * count
    traffic.ttft = prefill * count
    traffic.promptTokens = prompt * count
    traffic.outputTokens = output * count
    traffic.waiting = waiting
    traffic.rejected = rejected
    traffic.refused = refused
    return traffic
}
