import ServingTypes

/// A cluster under faults, and what its clients ask.
package struct ChaosSettings: Sendable {
    package var seed: UInt64 = 1
    package var rounds = 10
    package var prefillWorkers = 3
    package var decodeWorkers = 3
    package var gateways = 2
    /// Clients; each asks one question after the other.
    package var users = 8
    /// Different questions.
    package var questions = 24
    /// Time a request may take from its sending to its end.
    package var requestDeadline = Duration.seconds(120)
    /// Time the cluster is given to be whole again after a round.
    package var recoveryDeadline = Duration.seconds(60)
    /// Bytes per second of a slow link.
    package var slowBytesPerSecond = 256 << 10
    /// Pieces of fewer bytes are not damaged: it takes a transfer to be worth it.
    package var smallestDamagedBytes = 512
    /// Whether workers' connections go through relays that can do harm.
    package var hasRelays = true

    package init() {}

    /// Whether this system answers at all of 127/8, where the relays listen.
    package static var canRelay: Bool {
        #if os(Linux)
            true
        #else
            false
        #endif
    }

    /// Time a client waits after a refusal or a failure.
    static let pause = Duration.milliseconds(200)
    /// Answers that went wrong whose details are kept.
    static let keptDetails = 20

    var targets: [ChaosTarget] {
        func some(_ role: Role, _ count: Int) -> [ChaosTarget] {
            count < 1 ? [] : (1...count).map { ChaosTarget(role: role, number: $0) }
        }
        return some(.prefillWorker, prefillWorkers) + some(.decodeWorker, decodeWorkers)
            + some(.gateway, gateways) + some(.scheduler, 1) + some(.healthAgent, 1)
    }

    var relayed: Set<ChaosTarget> {
        guard hasRelays else { return [] }
        return Set(targets.filter { $0.role == .prefillWorker || $0.role == .decodeWorker })
    }

    var plan: ChaosPlan { ChaosPlan(seed: seed, targets: targets, relayed: relayed) }

    /// Loopback address of a worker's relays.
    ///
    /// Others reach it there, and it reaches the scheduler there. Linux answers to all of 127/8.
    static func host(of target: ChaosTarget) -> String {
        "127.0.\(target.role == .prefillWorker ? 1 : 2).\(target.number)"
    }
}
