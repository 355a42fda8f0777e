package import ServingTypes

/// Every bound of frames and messages; both directions check them.
package enum WireLimits {
    package static let identifierBytes = InstanceID.maximumBytes
    /// Longest host name of DNS, or a numeric address.
    package static let hostBytes = 255
    /// Path of a Unix socket; the system's own limit is near 108.
    package static let pathBytes = 104
    /// Names of models, devices and products.
    package static let nameBytes = 256
    /// Longer reasons are cut when a message is written: the message matters more.
    package static let reasonBytes = 2 << 10
    /// Tokens of one sequence.
    package static let tokens = 1 << 20
    /// Bytes of memory of one process or host: 1 PiB.
    package static let memoryBytes = 1 << 50
    /// Slots, sequences and cores of one process or host.
    package static let slots = 1 << 16
    /// Time left of a request, and ages.
    package static let durationMilliseconds = 24 * 3_600_000
    /// Path of a model file on a worker's host.
    package static let modelPathBytes = 1 << 10
    /// The cluster file: what its message holds besides the field's own tag and length.
    package static let rulesBytes = MessageKind.clusterRules.maximumControlBytes - 8
    /// Answers to people; longer ones are cut.
    package static let answerBytes = MessageKind.adminReply.maximumControlBytes - 16
    /// Value of one argument of a person's request.
    package static let argumentBytes = 2 << 10
    /// Requests, tokens, or microseconds that a traffic report adds up: as a sum of times, 35
    /// years.
    package static let trafficSum = 1 << 50
    /// Workers of one scenario.
    package static let instances = 1 << 16
    /// A group's share of its scenario's requests.
    package static let weight = 1000

    /// Members of one message.
    ///
    /// With texts of the usual length so many do not fit: views and changes travel in pages.
    package static let members = 4096
    /// Readings of one message, and members that it removes.
    package static let readings = 8192
    /// Groups of one message; a traffic report of so many fits whatever their names.
    package static let groups = 512
    /// The latest decisions in a status.
    package static let decisions = 256
    /// Scenarios and roles in a status.
    package static let wanted = 1024
    package static let upgrades = 64
    package static let arguments = 32
    package static let hosts = 1024
    package static let gateways = 1024
    package static let devices = 256
    package static let findings = 1024
    /// Worker processes that one agent keeps running.
    package static let supervised = 256
    /// Tokens of a canary.
    package static let canaryTokens = 1024
    package static let batchTokens = 4096
    package static let alternatives = 64
    package static let logitBiases = 4096
    package static let logitBias: Float = 1000
    package static let repeatPenalty: Float = 10

    /// Memory that reading or writing one control message may take besides its Swift value.
    ///
    /// The C structs of valid messages take up to eight times their bytes on the wire; a message
    /// of empty parts takes a hundred times, and is refused.
    package static func arenaBytes(_ kind: MessageKind) -> Int {
        min(16 * kind.maximumControlBytes, 8 << 20)
    }
}
