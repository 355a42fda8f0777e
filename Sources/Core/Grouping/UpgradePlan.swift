import ServingTypes

/// Moves a scenario's workers to another model file, a few at a time.
///
///     running ──all moved──▶ finished (late-comers are still sent to the new model)
///        │ ▲
///        ▼ │ resume
///     paused ──abort──▶ running back ──all back──▶ aborted
///
/// A pause because workers are gone ends by itself when they have come back as they should.
struct UpgradePlan: Sendable {
    enum Phase: Hashable, Sendable {
        case running
        case paused(String)
        case finished
        case aborted
    }

    /// A worker on its way to the new model.
    struct Mover: Sendable, Hashable {
        var role: ServingRole
        var incarnation: UInt64
        var since: MonotonicTime
        /// Since when it is no member; nil while it is one.
        var goneSince: MonotonicTime?
    }

    let scenario: String
    /// What clients call the model.
    let modelName: String
    /// The model file that is moved to, and the one moved from.
    private(set) var target: String
    private(set) var origin: String
    let step: Int
    let settle: Duration
    /// Models that are left behind.
    private(set) var old: Set<ModelFingerprint>
    var phase = Phase.running
    private(set) var isGoingBack = false
    var movers: [InstanceID: Mover] = [:]
    /// What workers that left are to do, also if they come back as spares because they are late.
    var roles: [InstanceID: ServingRole] = [:]
    var lastStep: MonotonicTime?
    /// How often workers that missed it were sent to the new model.
    var lateLoads: [InstanceID: Int] = [:]
    /// Why the next step can't be taken; empty: it can.
    var obstacle = ""
    /// It is paused for workers that are gone, and for nothing else.
    var awaitsReturn = false
    var moved = 0
    var total = 0

    init(
        scenario: String, modelName: String, target: String, origin: String, step: Int,
        settle: Duration, old: Set<ModelFingerprint>
    ) {
        self.scenario = scenario
        self.modelName = modelName
        self.target = target
        self.origin = origin
        self.step = step
        self.settle = settle
        self.old = old
    }

    /// The plan of an earlier scheduler, where it was; times begin anew.
    ///
    /// Nil if its words are not understood.
    init?(_ saved: SavedUpgrade, scenario: String, now: MonotonicTime) {
        self.init(
            scenario: scenario, modelName: saved.modelName, target: saved.target,
            origin: saved.origin, step: saved.step,
            settle: .milliseconds(saved.settleMilliseconds),
            old: Set(saved.left.compactMap { ModelFingerprint(hexadecimal: $0) }))
        switch saved.phase {
        case "running": phase = .running
        case "paused": phase = .paused(saved.reason)
        case "finished": phase = .finished
        case "aborted": phase = .aborted
        default: return nil
        }
        isGoingBack = saved.isGoingBack
        awaitsReturn = saved.awaitsReturn
        moved = saved.moved
        total = saved.total
        lastStep = now
        for (name, mover) in saved.movers {
            guard let role = ServingRole(name: mover.role) else { return nil }
            movers[InstanceID(name)] = Mover(
                role: role, incarnation: mover.incarnation, since: now)
        }
        for (name, word) in saved.roles {
            guard let role = ServingRole(name: word) else { return nil }
            roles[InstanceID(name)] = role
        }
        for (name, count) in saved.lateLoads { lateLoads[InstanceID(name)] = count }
    }

    /// Whether it comes with what was left behind, even if nobody has seen that model before.
    func isLeft(_ description: InstanceDescription) -> Bool {
        isLeft(description.fingerprint) || origin != target && description.modelPath == origin
    }

    var isUnderWay: Bool {
        switch phase {
        case .running, .paused: true
        case .finished, .aborted: false
        }
    }

    /// Whether it has a model that was left behind.
    func isLeft(_ fingerprint: ModelFingerprint) -> Bool { old.contains(fingerprint) }

    func isNew(_ description: InstanceDescription) -> Bool {
        !isLeft(description.fingerprint) && description.modelPath == target
    }

    mutating func leave(_ fingerprint: ModelFingerprint) { old.insert(fingerprint) }

    /// Everything the other way round.
    mutating func turnBack(new: Set<ModelFingerprint>) {
        swap(&target, &origin)
        old = new
        isGoingBack = true
        phase = .running
        awaitsReturn = false
        movers = [:]
        lastStep = nil
        obstacle = ""
    }
}
