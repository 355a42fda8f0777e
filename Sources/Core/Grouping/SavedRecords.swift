package import ServingTypes

/// Name of a record that outlives the scheduler.
package enum SavedKey: Hashable, Sendable {
    case counters
    case scenario(String)
    case group(GroupID)
    case seat(InstanceID)

    /// As in the store: `seat/decode-worker-1`.
    package var text: String {
        switch self {
        case .counters: "counters"
        case .scenario(let name): "scenario/\(name)"
        case .group(let id): "group/\(id)"
        case .seat(let instance): "seat/\(instance)"
        }
    }

    /// Nil if it is no record of the controller.
    package init?(_ text: String) {
        guard text != "counters" else {
            self = .counters
            return
        }
        guard let slash = text.firstIndex(of: "/") else { return nil }
        let name = String(text[text.index(after: slash)...])
        switch text[..<slash] {
        case "scenario": self = .scenario(name)
        case "group": self = .group(GroupID(name))
        case "seat": self = .seat(InstanceID(name))
        default: return nil
        }
    }
}

/// A record that outlives the scheduler.
package enum SavedRecord: Hashable, Sendable {
    case counters(SavedCounters)
    case scenario(SavedScenario)
    case group(SavedGroup)
    case seat(SavedSeat)
}

package struct SavedCounters: Hashable, Sendable, Codable {
    /// Number of the last assignment.
    package var assignment: UInt64

    package init(assignment: UInt64) { self.assignment = assignment }
}

/// What of a scenario is not in the cluster file.
package struct SavedScenario: Hashable, Sendable, Codable {
    /// Number of its latest group.
    package var lastGroup: Int?
    package var scale: SavedScale?
    package var upgrade: SavedUpgrade?
}

/// Numbers that a person has set.
package struct SavedScale: Hashable, Sendable, Codable {
    package var prefill: Int?
    package var decode: Int?
    package var spares: Int?
    package var groups: Int?
}

package struct SavedUpgrade: Hashable, Sendable, Codable {
    package struct Mover: Hashable, Sendable, Codable {
        package var role: String
        package var incarnation: UInt64
    }

    package var modelName: String
    package var target: String
    package var origin: String
    package var step: Int
    package var settleMilliseconds: Int
    /// Fingerprints that are left behind, in order.
    package var left: [String]
    /// `running`, `paused`, `finished` or `aborted`.
    package var phase: String
    package var reason: String
    package var isGoingBack: Bool
    package var awaitsReturn: Bool
    package var movers: [String: Mover]
    /// What workers that left are to do.
    package var roles: [String: String]
    /// How often workers that missed it were sent to the new model.
    package var lateLoads: [String: Int]
    package var moved: Int
    package var total: Int
}

package struct SavedGroup: Hashable, Sendable, Codable {
    package var scenario: String
    package var modelName: String
    package var fingerprint: String
    package var modelPath: String
    package var state: String
}

/// What a worker is used for.
package struct SavedSeat: Hashable, Sendable, Codable {
    package var scenario: String
    package var modelName: String
    package var fingerprint: String
    package var group: String?
    package var role: String
    /// What it counts as, if it is mixed for a spike.
    package var home: String
    /// Of its assignment; 0: none was sent.
    package var number: UInt64
    package var incarnation: UInt64
    package var isPinned: Bool
    /// The model file it was told to load; empty: the one it has.
    package var loadPath: String
}

// MARK: To and from what the controller works with

extension SavedScale {
    init(_ scale: ScaleOverride) {
        self.init(
            prefill: scale.prefill, decode: scale.decode, spares: scale.spares,
            groups: scale.groups)
    }

    var scale: ScaleOverride {
        ScaleOverride(prefill: prefill, decode: decode, spares: spares, groups: groups)
    }
}

extension SavedGroup {
    init(_ record: GroupRecord) {
        let group = record.group
        self.init(
            scenario: group.scenario, modelName: group.modelName,
            fingerprint: group.fingerprint.hexadecimal, modelPath: group.modelPath,
            state: group.state.name)
    }

    /// Nil if its words are not understood.
    func record(_ id: GroupID, now: MonotonicTime) -> GroupRecord? {
        guard let fingerprint = ModelFingerprint(hexadecimal: fingerprint),
            let state = ServingGroup.State.allCases.first(where: { $0.name == self.state })
        else { return nil }
        var record = GroupRecord(
            group: ServingGroup(
                id: id, scenario: scenario, modelName: modelName, fingerprint: fingerprint,
                modelPath: modelPath, state: state, weight: 0),
            pool: Pool(scenario: scenario, modelName: modelName, fingerprint: fingerprint),
            since: now)
        record.isSetUp = state != .forming
        record.drainingSince = state == .draining ? now : nil
        return record
    }
}

extension SavedSeat {
    init(_ seat: Seat) {
        self.init(
            scenario: seat.pool.scenario, modelName: seat.pool.modelName,
            fingerprint: seat.pool.fingerprint.hexadecimal, group: seat.group?.name,
            role: seat.role.name, home: seat.home.name, number: seat.number,
            incarnation: seat.incarnation, isPinned: seat.isPinned, loadPath: seat.loadPath)
    }

    var pool: Pool? {
        ModelFingerprint(hexadecimal: fingerprint).map {
            Pool(scenario: scenario, modelName: modelName, fingerprint: $0)
        }
    }
}

extension ModelFingerprint {
    var hexadecimal: String {
        bytes.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
    }

    init?(hexadecimal text: String) {
        let digits = text.compactMap { $0.hexDigitValue }
        guard digits.count == 2 * Self.byteCount, text.count == digits.count else { return nil }
        self.init(
            stride(from: 0, to: digits.count, by: 2).map { index in
                UInt8(digits[index] * 16 + digits[index + 1])
            })
    }
}
