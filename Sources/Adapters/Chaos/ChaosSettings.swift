package import LocalCluster
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
    /// Delay of a late link, one way.
    package var delay = Duration.milliseconds(40)
    /// Bits per second of a link with a low rate.
    package var slowLinkBits = 4_000_000
    /// Packets of a thousand that are lost.
    package var lostPackets = 30
    /// Where the processes are.
    package enum Network: Sendable {
        /// On the loopback interface; with relays that can do harm, or without.
        case loopback(hasRelays: Bool)
        /// On hosts of their own, which are network namespaces; some have relays, too.
        case namespaces(hasNetem: Bool)
    }

    package var network = Network.loopback(hasRelays: true)
    /// Faults that may happen.
    package var kinds = Set(ChaosFault.allCases)
    /// Faults of one round, at most.
    package var faults = 3
    package var roundDuration = Duration.seconds(8)
    /// The rounds end with it, however many are left.
    package var duration: Duration?

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
    /// Time in which workers must have let go of everything once nobody asks any more; longer than
    /// a silent connection lasts.
    static let quietDeadline = Duration.seconds(60)

    var networkName: String {
        switch network {
        case .loopback(let hasRelays): hasRelays ? "loopback, with relays" : "loopback"
        case .namespaces(let hasNetem):
            "network namespaces" + (hasNetem ? "" : "; this kernel can't delay packets")
        }
    }

    var targets: [ChaosTarget] {
        func some(_ role: Role, _ count: Int) -> [ChaosTarget] {
            count < 1 ? [] : (1...count).map { ChaosTarget(role: role, number: $0) }
        }
        return some(.prefillWorker, prefillWorkers) + some(.decodeWorker, decodeWorkers)
            + some(.gateway, gateways) + some(.scheduler, 1) + some(.healthAgent, 1)
    }

    var relayed: Set<ChaosTarget> {
        let workers = targets.filter { $0.role == .prefillWorker || $0.role == .decodeWorker }
        return switch network {
        case .loopback(let hasRelays): hasRelays ? Set(workers) : []
        case .namespaces: Set(workers.filter { $0.number == 1 })
        }
    }

    /// Processes on hosts of their own; the health-agent is on the scheduler's.
    var networked: Set<ChaosTarget> {
        guard case .namespaces = network else { return [] }
        return Set(targets.filter { $0.role != .healthAgent })
    }

    var plan: ChaosPlan {
        var plan = ChaosPlan(seed: seed, targets: targets, relayed: relayed)
        plan.networked = networked
        if case .namespaces(let hasNetem) = network { plan.hasNetem = hasNetem }
        plan.kinds = kinds
        plan.faults = faults
        plan.roundDuration = roundDuration
        return plan
    }

    /// Address of a worker's relays, in this process's own network.
    ///
    /// Others reach it there, and it reaches the scheduler there. Linux answers to all of 127/8.
    func relayHost(of target: ChaosTarget) -> String {
        let kind = target.role == .prefillWorker ? 1 : 2
        return switch network {
        case .loopback: "127.0.\(kind).\(target.number)"
        case .namespaces: NamespaceNetwork.address(200 + kind)
        }
    }
}

extension ChaosSettings {
    /// Hosts for these processes; nil where all are on this one.
    package func makeNetwork() -> NamespaceNetwork? {
        guard case .namespaces = network else { return nil }
        let names = networked.map(\.processName).sorted()
        return NamespaceNetwork(hosts: names, relays: relayed.map(relayHost).sorted())
    }

    /// Puts the cluster's processes on their hosts.
    package func place(_ cluster: inout LocalCluster.Settings, on network: NamespaceNetwork) {
        for target in targets {
            let name = target.processName
            // The health-agent is beside the scheduler.
            let host =
                target.role == .healthAgent
                ? ChaosTarget(role: .scheduler, number: 1).processName : name
            cluster.commandsByName[name] = network.command(on: host)
            let listen = network.address(of: host) + ":0"
            var arguments: [String] = []
            if target.role == .gateway {
                arguments += ["--http-listen", listen]
            } else {
                arguments += ["--admin-listen", listen]
            }
            if target.role == .prefillWorker || target.role == .decodeWorker {
                arguments += [
                    "--listen", listen, "--bulk-listen", listen, "--local-folder", "none",
                ]
            }
            cluster.argumentsByName[name] = arguments
        }
    }
}
