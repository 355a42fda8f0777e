package import DeviceProfile
package import ServingTypes

/// One simulated worker: what it does and what it computes on.
package struct MachinePlan: Sendable {
    package var name: String
    package var role: ServingRole
    /// Name of the device, for people.
    package var device: String
    package var model: any PerformanceModel
    /// Machines of equal hosts hand KV over in memory; nil: a host of its own.
    package var host: String?
    /// Instead of the model's.
    package var linkBytesPerSecond: Double?

    package init(
        name: String, role: ServingRole, device: String, model: any PerformanceModel,
        host: String? = nil
    ) {
        self.name = name
        self.role = role
        self.device = device
        self.model = model
        self.host = host
    }

    /// So many alike, numbered from 1.
    package static func fleet(
        _ count: Int, _ role: ServingRole, _ curves: DeviceCurves
    ) -> [MachinePlan] {
        fleet(count, role, device: curves.name, model: curves)
    }

    /// So many alike, numbered from `first`.
    package static func fleet(
        _ count: Int, _ role: ServingRole, device: String, model: any PerformanceModel,
        first: Int = 1
    ) -> [MachinePlan] {
        (0..<count).map {
            MachinePlan(
                name: "\(role.name)-\(first + $0)", role: role, device: device, model: model)
        }
    }

    var processRole: Role { role == .prefill ? .prefillWorker : .decodeWorker }
}

/// How much longer iterations take while another machine of the same host computes.
package struct HostContention: Sendable, Hashable {
    /// Times as long, of iterations with prompts and of those without.
    package var prefill = 1.0
    package var decode = 1.0

    package init() {}
}

/// What messages and KV cost on their way, besides the links' rates.
package struct NetworkPlan: Sendable, Hashable {
    /// Time of a control message from process to process, in seconds.
    package var messageSeconds = 0.0003
    /// Time of a request from its arrival until the gateway places it, in seconds.
    package var gatewaySeconds = 0.0
    /// Time of a KV hand-over besides its bytes, in seconds.
    package var handOverSeconds = 0.0003
    /// Wire bytes per byte of KV; below 1 if it is compressed.
    package var wireBytesPerByte = 1.0
    /// Bytes per second of the host's own memory, between machines of one host.
    package var hostBytesPerSecond = 5e9
    /// Time until the loss of a process is noticed, in seconds.
    package var noticeSeconds = 0.01

    package init() {}
}

/// Something that goes wrong with one machine.
package struct MachineFault: Sendable, Hashable {
    package enum Kind: Sendable, Hashable {
        /// The process ends; another takes its place after so many seconds, or none does.
        case lost(backAfterSeconds: Double?)
        /// Everything it computes takes so many times as long.
        case slow(factor: Double, seconds: Double)
        /// Its link carries so many times less.
        case slowLink(factor: Double, seconds: Double)
    }

    package var machine: String
    package var atSeconds: Double
    package var kind: Kind

    package init(machine: String, atSeconds: Double, kind: Kind) {
        self.machine = machine
        self.atSeconds = atSeconds
        self.kind = kind
    }
}
