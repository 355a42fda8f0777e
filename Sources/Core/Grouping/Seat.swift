import ServingTypes

/// Workers of one scenario that have the same model, so that KV may pass between any two of them.
struct Pool: Hashable, Sendable {
    var scenario: String
    var modelName: String
    var fingerprint: ModelFingerprint
}

/// The place a worker has been given.
///
///     shown as spare ──viewLead──▶ order sent ──status bears its number──▶ confirmed, shown
///                                      └──flipDeadline──▶ people are told, order sent again
struct Seat: Hashable, Sendable {
    var pool: Pool
    /// Nil: a spare.
    var group: GroupID?
    var role: ServingRole
    /// What it counts as; differs from `role` in a worker that is mixed for a spike.
    var home: ServingRole
    /// What the view shows until the assignment is confirmed.
    var shown: ServingRole
    var incarnation: UInt64
    /// Number of the assignment that was sent; 0: none yet.
    var number: UInt64 = 0
    var isConfirmed = false
    /// It did this already when it was first seen, by the order of an earlier scheduler.
    var isAdopted = false
    /// A working role was taken from it, and it has not taken up the new one.
    var isFlip = false
    /// When the order has to be sent; nil: it was.
    var orderDue: MonotonicTime?
    /// Beginning of the latest change.
    var since: MonotonicTime
    /// The group it was told of last.
    var toldGroup: GroupID?
    /// When the order was sent last.
    var asked = MonotonicTime.start
    var isServing = true
    var absentSince: MonotonicTime?
    /// A person chose its role.
    var isPinned = false
    /// The model file it has to load; empty: the one it has.
    var loadPath = ""
    var stepLimit: Duration?

    var shownRole: ServingRole { isConfirmed ? role : shown }
    var isMixedForSpike: Bool { role == .mixed && home != .mixed }
}

/// A worker with its seat, as one look at a pool sees it.
struct Member: Sendable {
    var worker: GroupWorker
    var seat: Seat

    var instance: InstanceID { worker.instance }

    func can(_ role: ServingRole) -> Bool { worker.description.can(role) }

    /// Work under way; the least is moved first.
    var load: Int {
        worker.status.runningSequences
            + max(0, worker.description.prefillSlots - worker.status.freePrefillSlots)
    }
}

/// The members of one pool that serve, by what they count as; each list sorted by instance.
struct PoolMembers: Sendable {
    var prefill: [Member] = []
    var decode: [Member] = []
    var mixed: [Member] = []
    var spares: [Member] = []
    /// Given a role, but not serving.
    var absent: [Member] = []

    var working: Int { prefill.count + decode.count + mixed.count }

    func list(_ role: ServingRole) -> [Member] {
        switch role {
        case .prefill: prefill
        case .decode: decode
        case .mixed: mixed
        case .spare: spares
        }
    }

    /// Workers that count as the role; those that were started as mixed count as both.
    func count(_ role: ServingRole) -> Int { list(role).count + mixed.count }

    /// Workers that the view shows in the role.
    func shown(_ role: ServingRole) -> Int {
        list(role).count { $0.seat.shownRole == role || $0.seat.shownRole == .mixed }
            + mixed.count { $0.seat.shownRole == .mixed }
    }
}

extension ServingRole {
    /// Prefill for decode, decode for prefill.
    var opposite: ServingRole { self == .prefill ? .decode : .prefill }
}

extension InstanceDescription {
    /// Whether it has room for the role at all.
    func can(_ role: ServingRole) -> Bool {
        switch role {
        case .prefill: prefillSlots > 0
        case .decode: decodeSequences > 0
        case .mixed: prefillSlots > 0 && decodeSequences > 0
        case .spare: true
        }
    }
}
