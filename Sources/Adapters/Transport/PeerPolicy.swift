package import ServingTypes
internal import WireProtocol

/// Whom a client wants to meet.
package struct PeerExpectation: Sendable, Hashable {
    package var roles: Set<Role>
    /// Nil if any process of the roles will do.
    package var instance: InstanceID?

    package init(_ role: Role, instance: InstanceID? = nil) {
        self.init(anyOf: [role], instance: instance)
    }

    package init(anyOf roles: Set<Role>, instance: InstanceID? = nil) {
        self.roles = roles
        self.instance = instance
    }
}

/// A further check of a peer's `Hello`, such as of its model; gives what to tell the peer if not.
package typealias HelloCheck = @Sendable (Hello) -> Refusal?

/// What this side says of itself and whom it accepts; the same for control and bulk connections.
struct PeerPolicy: Sendable {
    let hello: Hello
    private let roles: Set<Role>
    private let instance: InstanceID?
    private let accepts: HelloCheck?

    init(
        context: TLSContext, hello: Hello, roles: Set<Role>, instance: InstanceID? = nil,
        accepts: HelloCheck?
    ) throws(TransportError) {
        let own = PeerIdentity(cluster: hello.cluster, role: hello.role, instance: hello.instance)
        guard let certified = context.identity, certified.covers(own) else {
            throw .ownIdentity(
                certificate: context.identity?.description ?? "nobody", hello: own.description)
        }
        self.hello = hello
        self.roles = roles
        self.instance = instance
        self.accepts = accepts
    }

    /// Checks what the peer's certificate says.
    func check(_ identity: PeerIdentity?) throws(TransportError) -> PeerIdentity {
        guard let identity else { throw .noIdentity }
        guard identity.cluster == hello.cluster else {
            throw .otherCluster(expected: hello.cluster, actual: identity.cluster)
        }
        guard roles.contains(identity.role) else { throw .roleNotAllowed(identity.role) }
        let isNamed = identity.instance != PeerIdentity.anyInstance
        if isNamed, let instance, instance != identity.instance {
            throw .otherInstance(expected: instance, actual: identity.instance)
        }
        return identity
    }

    /// Checks the peer's first message.
    func check(
        _ first: ControlMessage, from identity: PeerIdentity
    ) throws(TransportError) -> Hello {
        let theirs: Hello
        switch first {
        case .hello(let hello): theirs = hello
        case .refusal(let refusal): throw .refused(refusal)
        default: throw .helloMissing(first.kind)
        }
        guard theirs.protocolVersion == hello.protocolVersion else {
            throw .otherVersion(expected: hello.protocolVersion, actual: theirs.protocolVersion)
        }
        let claimed = PeerIdentity(
            cluster: theirs.cluster, role: theirs.role, instance: theirs.instance)
        guard identity.covers(claimed) else {
            throw .helloDiffers(
                certificate: identity.description, hello: claimed.description)
        }
        if let instance, instance != claimed.instance {
            throw .otherInstance(expected: instance, actual: claimed.instance)
        }
        if let refusal = accepts?(theirs) { throw .notAccepted(refusal) }
        return theirs
    }
}

/// Which messages travel on a connection once both have said `Hello`.
enum ConnectionKind {
    case control, bulk

    func check(_ message: ControlMessage, from role: Role) throws(TransportError) {
        if case .refusal(let refusal) = message { throw .refused(refusal) }
        let kind = message.kind
        guard kind != .hello, kind.isBulk == (self == .bulk), kind.isAllowed(from: role) else {
            throw .messageNotAllowed(kind, role)
        }
    }
}

extension TransportError {
    /// What a wrong frame from a peer means.
    static func received(_ error: WireError, from role: Role?) -> TransportError {
        if case .kindNotAllowed(let kind) = error, let role {
            return .messageNotAllowed(kind, role)
        }
        return .malformed(error)
    }
}

/// The bytes of a refusal; nil only if the text can't be written.
func refusalFrame(_ error: TransportError) -> [UInt8]? {
    guard let refusal = error.refusal else { return nil }
    return try? encodeFrame(.refusal(refusal))
}
