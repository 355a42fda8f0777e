/// What a process is in its cluster; written in its certificate.
package enum Role: UInt8, Sendable, CaseIterable {
    case gateway = 1
    case scheduler = 2
    case prefillWorker = 3
    case decodeWorker = 4
    case healthAgent = 5
    /// A person's command line tool.
    case administrator = 6

    /// The name in certificates, logs and metrics.
    package var name: String {
        switch self {
        case .gateway: "gateway"
        case .scheduler: "scheduler"
        case .prefillWorker: "prefill-worker"
        case .decodeWorker: "decode-worker"
        case .healthAgent: "health-agent"
        case .administrator: "administrator"
        }
    }

    package init?(name: String) {
        guard let role = Role.allCases.first(where: { $0.name == name }) else { return nil }
        self = role
    }

    package var isWorker: Bool { self == .prefillWorker || self == .decodeWorker }
}

/// Who is at the other end of a connection, read from its verified certificate
/// (`pdserve://<cluster>/<role>/<name>`).
package struct PeerIdentity: Hashable, Sendable, CustomStringConvertible {
    package var cluster: String
    package var role: Role
    package var instance: InstanceID

    package init(cluster: String, role: Role, instance: InstanceID) {
        self.cluster = cluster
        self.role = role
        self.instance = instance
    }

    package var description: String { "pdserve://\(cluster)/\(role.name)/\(instance)" }

    /// The instance name in a certificate that is good for every process of its role, so that a
    /// scaled service needs one certificate only; the process names itself in `Hello`.
    package static let anyInstance = InstanceID("*")

    /// Whether a certificate with this identity lets a process call itself `claimed`.
    package func covers(_ claimed: PeerIdentity) -> Bool {
        cluster == claimed.cluster && role == claimed.role
            && (instance == claimed.instance
                || instance == Self.anyInstance && claimed.instance != Self.anyInstance)
    }

    /// Reads `pdserve://<cluster>/<role>/<name>`; nil if any part is missing, empty or unknown.
    package init?(uri: String) {
        let scheme = "pdserve://"
        guard uri.hasPrefix(scheme) else { return nil }
        let parts = uri.dropFirst(scheme.count).split(
            separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 3, !parts.contains(where: \.isEmpty),
            let role = Role(name: String(parts[1]))
        else { return nil }
        self.init(
            cluster: String(parts[0]), role: role, instance: InstanceID(String(parts[2])))
    }
}

/// A host name or numeric address and a TCP port.
package struct NetworkAddress: Hashable, Sendable, CustomStringConvertible {
    package var host: String
    package var port: Int

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// Whether it can only be this host; a name that resolves to it is not recognised.
    package var isLoopback: Bool {
        host.hasPrefix("127.") || host == "::1" || host == "localhost"
    }

    /// Reads `host:port` or `[v6]:port`; nil if the port is missing or outside 0…65535.
    package init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"),
            let port = Int(text[text.index(after: colon)...]), (0...65535).contains(port)
        else { return nil }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard !host.isEmpty else { return nil }
        self.init(host: String(host), port: port)
    }
}

/// What a worker is and can hold; constant for the life of its process.
package struct InstanceDescription: Hashable, Sendable {
    package var instance: InstanceID
    package var role: Role
    /// Random number of this life of the process; a restart draws another.
    package var incarnation: UInt64
    /// Name of the host it runs on; the health-agent with the same host name probes it.
    package var host: String
    package var controlAddress: NetworkAddress
    package var bulkAddress: NetworkAddress
    package var modelName: String
    package var fingerprint: ModelFingerprint
    /// Longest sequence (prompt and output) in tokens.
    package var contextTokens: Int
    /// KV bytes one token takes.
    package var kvBytesPerToken: Int
    /// KV bytes of all sequences together.
    package var kvCapacityBytes: Int
    /// Prompts it takes at once; 0 if it takes no prefill.
    package var prefillSlots: Int
    /// Sequences it decodes at once; 0 if it takes no decode.
    package var decodeSequences: Int
    /// Name of the engine and its device, for people.
    package var device: String
    /// What it does until the scheduler assigns something else.
    package var initialRole: ServingRole
    /// The scenario it is meant for; empty: any that its model serves.
    package var scenario: String
    /// The model file it has loaded, as a path on its host.
    package var modelPath: String
    /// The devices it computes on, by `DeviceReading.id`; empty: the host's processors.
    package var devices: [String] = []
    /// How fast it should be before anything was measured in service; nil: nothing is known.
    package var predicted: PredictedRates?

    package init(
        instance: InstanceID, role: Role, incarnation: UInt64, host: String,
        controlAddress: NetworkAddress, bulkAddress: NetworkAddress, modelName: String,
        fingerprint: ModelFingerprint, contextTokens: Int, kvBytesPerToken: Int,
        kvCapacityBytes: Int, prefillSlots: Int, decodeSequences: Int, device: String,
        initialRole: ServingRole? = nil, scenario: String = "", modelPath: String = ""
    ) {
        self.instance = instance
        self.role = role
        self.incarnation = incarnation
        self.host = host
        self.controlAddress = controlAddress
        self.bulkAddress = bulkAddress
        self.modelName = modelName
        self.fingerprint = fingerprint
        self.contextTokens = contextTokens
        self.kvBytesPerToken = kvBytesPerToken
        self.kvCapacityBytes = kvCapacityBytes
        self.prefillSlots = prefillSlots
        self.decodeSequences = decodeSequences
        self.device = device
        self.initialRole = initialRole ?? ServingRole(usualFor: role)
        self.scenario = scenario
        self.modelPath = modelPath
    }
}

/// What a worker is doing now; sent with each heartbeat.
package struct InstanceStatus: Hashable, Sendable {
    package var freePrefillSlots = 0
    package var runningSequences = 0
    /// Prompts that its engine computes.
    package var computingPrompts = 0
    package var freeKVBytes = 0
    /// KV bytes held for requests whose transfer or decode has not ended.
    package var reservedKVBytes = 0
    /// Engine iterations since the start; stands still when the engine hangs or is idle.
    package var engineSteps: UInt64 = 0
    /// Age of the oldest unfinished engine iteration in milliseconds; 0 when idle.
    package var stepAgeMilliseconds: UInt64 = 0
    /// Takes no new work and leaves when its work is done.
    package var isDraining = false
    /// What it does now; stays the old role until the last work of that role has ended.
    package var role = ServingRole.spare
    /// Number of the last assignment it has carried out; 0 before the first.
    package var assignment: UInt64 = 0
    /// Prompts it computes itself although it decodes, and the other way round.
    package var localPrefills = 0
    /// Measured rate of prefill; 0 until something was measured.
    package var prefillTokensPerSecond: Double = 0
    /// Measured time of an iteration in which sequences decode; 0 until something was measured.
    package var decodeStepMilliseconds: Double = 0

    package init() {}
}

/// How the scheduler judges a worker.
package enum InstanceState: UInt8, Sendable, CaseIterable {
    case serving = 1
    /// Finishes its work and takes no more.
    case draining = 2
    /// Its connection is gone and its lease has not ended yet, or it missed some beats of its
    /// health-agent: it gets no new work.
    case suspect = 3
    /// A health-agent reports that it makes no progress, or that its device is out.
    case down = 4

    package var name: String {
        switch self {
        case .serving: "serving"
        case .draining: "draining"
        case .suspect: "suspect"
        case .down: "down"
        }
    }
}

/// One worker as the scheduler sees it.
package struct GroupMember: Hashable, Sendable {
    package var description: InstanceDescription
    package var state: InstanceState
    package var status: InstanceStatus
    /// Why the state is not `serving`, or what is wrong with its device though it serves.
    package var reason: String
    /// What gateways may use it for now; `spare` while its role changes.
    package var role: ServingRole
    /// The group it belongs to; nil: it is a spare.
    package var group: GroupID?

    package init(
        description: InstanceDescription, state: InstanceState, status: InstanceStatus,
        reason: String = "", role: ServingRole? = nil, group: GroupID? = nil
    ) {
        self.role = role ?? description.initialRole
        self.group = group
        self.description = description
        self.state = state
        self.status = status
        self.reason = reason
    }
}

/// What a health-agent reads from its host.
package struct HostReading: Hashable, Sendable {
    package var host: String
    package var cores: UInt32
    /// Busy part of all cores since the last reading; range 0…1.
    package var busyFraction: Double
    package var loadAverage: Double
    package var totalMemoryBytes: UInt64
    package var availableMemoryBytes: UInt64
    package var devices: [DeviceReading]

    package init(
        host: String, cores: UInt32, busyFraction: Double, loadAverage: Double,
        totalMemoryBytes: UInt64, availableMemoryBytes: UInt64, devices: [DeviceReading]
    ) {
        self.host = host
        self.cores = cores
        self.busyFraction = busyFraction
        self.loadAverage = loadAverage
        self.totalMemoryBytes = totalMemoryBytes
        self.availableMemoryBytes = availableMemoryBytes
        self.devices = devices
    }
}

/// What a health-agent found when it probed one worker.
package struct WorkerFinding: Hashable, Sendable {
    package var instance: InstanceID
    package var incarnation: UInt64
    /// False once it counts as down.
    package var isResponding: Bool
    /// It still counts as well, and gets no new work until it is clear.
    package var isSuspect: Bool
    /// Milliseconds since the last answer or the last progress, whichever is older.
    package var silentMilliseconds: UInt64
    /// One sentence for people; empty if it is well.
    package var reason: String

    package init(
        instance: InstanceID, incarnation: UInt64, isResponding: Bool, silentMilliseconds: UInt64,
        reason: String, isSuspect: Bool = false
    ) {
        self.instance = instance
        self.incarnation = incarnation
        self.isResponding = isResponding
        self.isSuspect = isSuspect
        self.silentMilliseconds = silentMilliseconds
        self.reason = reason
    }
}
