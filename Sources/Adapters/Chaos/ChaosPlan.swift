import LocalCluster
package import ServingTypes

/// Something that goes wrong.
package enum ChaosFault: String, Hashable, Sendable, CaseIterable {
    /// SIGKILL; the process is started again after a while.
    case kill = "kill -9"
    /// SIGSTOP, then SIGCONT.
    case stop
    /// SIGTERM; the process is started again once it has ended.
    case terminate
    /// The worker's connections are cut and refused, stand still, are slow, damage what they carry,
    /// or carry it late.
    case cut, stall, slow, corrupt, late
    /// No packet passes between the process's host and another one; or only one way.
    case partition
    case oneWay = "one way"
    /// No packet passes between its host and any other, but for those of clients.
    case isolate
    /// The host's link is down.
    case linkDown = "link down"
    /// The host loses some of the packets that come; the link has a low rate; or packets are late.
    case loss, rate, delay

    package var name: String { rawValue }

    /// What must be there for it to happen.
    enum Means { case signals, relay, network, netem }

    var means: Means {
        switch self {
        case .kill, .stop, .terminate: .signals
        case .cut, .stall, .slow, .corrupt, .late: .relay
        case .partition, .oneWay, .isolate, .linkDown, .loss, .rate: .network
        case .delay: .netem
        }
    }
}

/// One process of the cluster that something may happen to.
package struct ChaosTarget: Hashable, Sendable {
    package var role: Role
    /// From 1.
    package var number: Int

    package init(role: Role, number: Int) {
        self.role = role
        self.number = number
    }

    package var name: String { LocalCluster.workerName(role, number) }

    /// Of its process; those of which there is one have no number.
    var processName: String {
        role == .scheduler || role == .healthAgent ? role.name : name
    }
}

/// One fault of one round.
package struct ChaosEvent: Hashable, Sendable {
    /// Since the round began.
    package var at: Duration
    package var fault: ChaosFault
    package var target: ChaosTarget
    /// Until it is healed, or the process is started again.
    package var lasts: Duration
    /// The other side of what happens between two hosts.
    package var peer: ChaosTarget?
    /// What goes one way goes from the peer; else from the target.
    package var isReversed = false

    var words: String {
        let other = peer.map { isReversed ? " from \($0.name)" : " to \($0.name)" } ?? ""
        return "\(fault.name) \(target.name)\(other)"
    }
}

/// The schedule of faults, the same for the same seed.
///
/// At each moment at least one worker of each role is left alone, so that requests can be answered.
package struct ChaosPlan: Sendable {
    package var seed: UInt64
    package var roundDuration = Duration.seconds(8)
    /// Faults of one round, at most.
    package var faults = 3
    package var targets: [ChaosTarget]
    /// Processes whose connections go through a relay.
    package var relayed: Set<ChaosTarget>
    /// Processes on hosts of their own.
    package var networked: Set<ChaosTarget> = []
    /// The kernel can let packets be late.
    package var hasNetem = false
    /// Faults that may happen.
    package var kinds = Set(ChaosFault.allCases)

    package init(seed: UInt64, targets: [ChaosTarget], relayed: Set<ChaosTarget>) {
        self.seed = seed
        self.targets = targets
        self.relayed = relayed
    }

    /// Faults of a round, by time; all are healed when it ends.
    package func events(ofRound round: Int) -> [ChaosEvent] {
        var numbers = SeededGenerator(seed: seed &+ UInt64(round) &* 0x9e37_79b9_7f4a_7c15)
        let whole = Int(roundDuration.milliseconds)
        var events: [ChaosEvent] = []
        var free = targets.shuffled(using: &numbers)
        for _ in 0..<Int.random(in: 1...max(1, faults), using: &numbers) {
            guard
                let index = free.firstIndex(where: { target in
                    free.count { $0.role == target.role } > 1
                        || !Self.mustStay.contains(target.role)
                })
            else { break }
            let target = free.remove(at: index)
            guard let fault = possible(target).randomElement(using: &numbers) else { continue }
            let at = Int.random(in: whole / 20...whole / 3, using: &numbers)
            let lasts = Int.random(in: whole / 20...whole / 2, using: &numbers)
            var event = ChaosEvent(
                at: .milliseconds(at), fault: fault, target: target, lasts: .milliseconds(lasts))
            if fault == .partition || fault == .oneWay {
                event.peer = networked.filter { $0 != target }.sorted { $0.name < $1.name }
                    .randomElement(using: &numbers)
                event.isReversed = .random(using: &numbers)
            }
            events.append(event)
        }
        return events.sorted { ($0.at, $0.target.name) < ($1.at, $1.target.name) }
    }

    /// Whether it can happen to any process.
    func canHappen(_ fault: ChaosFault) -> Bool {
        targets.contains { possible($0).contains(fault) }
    }

    /// What can happen to a process.
    private func possible(_ target: ChaosTarget) -> [ChaosFault] {
        ChaosFault.allCases.filter { fault in
            guard kinds.contains(fault) else { return false }
            let isNetworked = networked.contains(target)
            switch fault.means {
            case .signals: return true
            case .relay: return relayed.contains(target)
            case .network: return isNetworked && reaches(fault, target)
            case .netem: return isNetworked && hasNetem
            }
        }
    }

    /// Whether a fault of the network has an effect there that can be told.
    private func reaches(_ fault: ChaosFault, _ target: ChaosTarget) -> Bool {
        switch fault {
        // A gateway without a link has no clients that could tell.
        case .linkDown: target.role != .gateway
        // Others reach a worker behind relays from the bridge, as clients do.
        case .partition, .oneWay, .isolate: !relayed.contains(target)
        default: true
        }
    }

    /// Roles of which one must be left.
    private static let mustStay: Set<Role> = [.prefillWorker, .decodeWorker, .gateway]
}
