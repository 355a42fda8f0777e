/// What a worker is used for.
///
/// It is assigned by the scheduler and changes while the process lives; `Role` says which
/// executable a process is and never changes.
package enum ServingRole: UInt8, Sendable, CaseIterable {
    case prefill = 1
    case decode = 2
    /// Both at once: Splitwise's mixed pool (arXiv 2311.18677).
    case mixed = 3
    /// Ready, and not used.
    case spare = 4

    package var name: String {
        switch self {
        case .prefill: "prefill"
        case .decode: "decode"
        case .mixed: "mixed"
        case .spare: "spare"
        }
    }

    package init?(name: String) {
        guard let role = ServingRole.allCases.first(where: { $0.name == name }) else { return nil }
        self = role
    }

    /// What a process of this kind does unless somebody says otherwise.
    package init(usualFor role: Role) {
        self =
            switch role {
            case .prefillWorker: .prefill
            case .decodeWorker: .decode
            default: .spare
            }
    }

    package var takesPrompts: Bool { self == .prefill || self == .mixed }
    package var takesSequences: Bool { self == .decode || self == .mixed }
}

/// Name of a group, for example `chat/1`.
package struct GroupID: Hashable, Sendable, Comparable, CustomStringConvertible {
    package let name: String

    package init(_ name: String) { self.name = name }

    package var description: String { name }

    package static func < (left: GroupID, right: GroupID) -> Bool { left.name < right.name }
}

/// The workers that serve one scenario with one model revision.
///
/// Any of its workers that prefills may hand over to any that decodes (P/D-Serve's P/D group).
package struct ServingGroup: Hashable, Sendable {
    package enum State: UInt8, Sendable, CaseIterable {
        /// Its workers are being collected; it takes no requests yet.
        case forming = 1
        case open = 2
        /// Finishes its requests and takes no more.
        case draining = 3

        package var name: String {
            switch self {
            case .forming: "forming"
            case .open: "open"
            case .draining: "draining"
            }
        }
    }

    package var id: GroupID
    package var scenario: String
    package var modelName: String
    package var fingerprint: ModelFingerprint
    /// Path of the model file on the workers' hosts.
    package var modelPath: String
    package var state: State
    /// Its share of the scenario's requests among the open groups; range 0…1000.
    package var weight: Int

    package init(
        id: GroupID, scenario: String, modelName: String, fingerprint: ModelFingerprint,
        modelPath: String = "", state: State = .open, weight: Int = 100
    ) {
        self.id = id
        self.scenario = scenario
        self.modelName = modelName
        self.fingerprint = fingerprint
        self.modelPath = modelPath
        self.state = state
        self.weight = weight
    }
}

/// The workers that serve, as pushed by the scheduler.
///
/// Ordered by (`epoch`, `version`): a receiver keeps the greater one.
package struct GroupView: Hashable, Sendable {
    /// Rises with each start of the scheduler.
    package var epoch: UInt64
    /// Rises with each change within an epoch.
    package var version: UInt64
    /// Sorted by instance.
    package var members: [GroupMember]
    /// Sorted by id; empty in a cluster that was never told of groups.
    package var groups: [ServingGroup]
    /// The rest of this version's members follows in further messages.
    package var isPartial: Bool

    package init(
        epoch: UInt64, version: UInt64, members: [GroupMember], groups: [ServingGroup] = [],
        isPartial: Bool = false
    ) {
        self.epoch = epoch
        self.version = version
        self.members = members
        self.groups = groups
        self.isPartial = isPartial
    }

    package static let empty = GroupView(epoch: 0, version: 0, members: [])

    package func isNewer(than other: GroupView) -> Bool {
        (epoch, version) > (other.epoch, other.version)
    }

    package subscript(instance: InstanceID) -> GroupMember? {
        members.first { $0.description.instance == instance }
    }
}

/// A worker's latest reading.
package struct MemberReading: Hashable, Sendable {
    package var instance: InstanceID
    package var status: InstanceStatus

    package init(instance: InstanceID, status: InstanceStatus) {
        self.instance = instance
        self.status = status
    }
}

/// What changed in a group view; all of it at once.
package struct GroupViewChange: Hashable, Sendable {
    package var epoch: UInt64
    /// The version it applies to; whoever has another one subscribes again.
    package var since: UInt64
    package var version: UInt64
    /// Members that are new, or differ in more than their status.
    package var members: [GroupMember]
    package var removed: [InstanceID]
    package var readings: [MemberReading]
    /// All groups, if any of them changed.
    package var groups: [ServingGroup]?
    /// The rest of this change follows in further messages; it applies when the last has come.
    package var isPartial: Bool

    package init(
        epoch: UInt64, since: UInt64, version: UInt64, members: [GroupMember] = [],
        removed: [InstanceID] = [], readings: [MemberReading] = [], groups: [ServingGroup]? = nil,
        isPartial: Bool = false
    ) {
        self.epoch = epoch
        self.since = since
        self.version = version
        self.members = members
        self.removed = removed
        self.readings = readings
        self.groups = groups
        self.isPartial = isPartial
    }
}
