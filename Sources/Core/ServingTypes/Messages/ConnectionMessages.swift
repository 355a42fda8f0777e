/// First message in both directions on every connection.
package struct Hello: Hashable, Sendable {
    /// Version of the wire protocol this product speaks.
    package static let currentVersion: UInt32 = 1

    package var protocolVersion: UInt32
    package var cluster: String
    package var role: Role
    package var instance: InstanceID
    /// Random number of this life of the process.
    package var incarnation: UInt64
    /// Nil for processes without a model.
    package var fingerprint: ModelFingerprint?
    package var productVersion: String

    package init(
        protocolVersion: UInt32 = Hello.currentVersion, cluster: String, role: Role,
        instance: InstanceID, incarnation: UInt64, fingerprint: ModelFingerprint? = nil,
        productVersion: String
    ) {
        self.protocolVersion = protocolVersion
        self.cluster = cluster
        self.role = role
        self.instance = instance
        self.incarnation = incarnation
        self.fingerprint = fingerprint
        self.productVersion = productVersion
    }
}

/// Last message on a connection that one side will not serve.
package struct Refusal: Hashable, Sendable {
    package var code: FailureCode
    /// One sentence for people: what is wrong and what to do.
    package var reason: String

    package init(code: FailureCode, reason: String) {
        self.code = code
        self.reason = reason
    }
}

/// Asks whether the peer is alive; answered by `Pong` with the same number.
package struct Ping: Hashable, Sendable {
    package var number: UInt64

    package init(number: UInt64) { self.number = number }
}

/// Answer to `Ping`; a worker adds its status.
package struct Pong: Hashable, Sendable {
    package var number: UInt64
    package var status: InstanceStatus?

    package init(number: UInt64, status: InstanceStatus? = nil) {
        self.number = number
        self.status = status
    }
}
