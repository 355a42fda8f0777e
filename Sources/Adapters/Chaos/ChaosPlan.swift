package import ServingTypes

/// Something that goes wrong.
package enum ChaosFault: Hashable, Sendable, CaseIterable {
    /// SIGKILL; the process is started again after a while.
    case kill
    /// SIGSTOP, then SIGCONT.
    case stop
    /// SIGTERM; the process is started again once it has ended.
    case terminate
    /// The worker's network: connections are cut and refused, stand still, are slow, or damage
    /// what they carry.
    case cut
    case stall
    case slow
    case corrupt

    package var name: String {
        switch self {
        case .kill: "kill -9"
        case .stop: "stop"
        case .terminate: "terminate"
        case .cut: "cut"
        case .stall: "stall"
        case .slow: "slow"
        case .corrupt: "corrupt"
        }
    }

    var needsNetwork: Bool {
        switch self {
        case .kill, .stop, .terminate: false
        case .cut, .stall, .slow, .corrupt: true
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

    package var name: String { "\(role.name)-\(number)" }
}

/// One fault of one round.
package struct ChaosEvent: Hashable, Sendable {
    /// Since the round began.
    package var at: Duration
    package var fault: ChaosFault
    package var target: ChaosTarget
    /// Until it is healed, or the process is started again.
    package var lasts: Duration
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
            let isRelayed = relayed.contains(target)
            let possible = ChaosFault.allCases.filter { isRelayed || !$0.needsNetwork }
            guard let fault = possible.randomElement(using: &numbers) else { break }
            let at = Int.random(in: whole / 20...whole / 3, using: &numbers)
            let lasts = Int.random(in: whole / 20...whole / 2, using: &numbers)
            events.append(
                ChaosEvent(
                    at: .milliseconds(at), fault: fault, target: target,
                    lasts: .milliseconds(lasts)))
        }
        return events.sorted { ($0.at, $0.target.name) < ($1.at, $1.target.name) }
    }

    /// Roles of which one must be left.
    private static let mustStay: Set<Role> = [.prefillWorker, .decodeWorker, .gateway]
}
