import Foundation
import ServingTypes

@testable import Transport

/// A certificate authority in a folder of its own, removed with the last reference.
final class TestCertificates: Sendable {
    let authority: CertificateAuthority

    init(cluster: String = "home") throws {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("pdserve-\(UUID().uuidString)").path
        authority = CertificateAuthority(folder: folder)
        try authority.create(cluster: cluster)
    }

    deinit { try? FileManager.default.removeItem(atPath: authority.folder) }

    func identity(
        _ role: Role, _ name: String = "one", cluster: String = "home",
        validity: CertificateValidity = .process
    ) throws -> TLSIdentity {
        let peer = PeerIdentity(cluster: cluster, role: role, instance: InstanceID(name))
        try authority.issue(peer, hosts: ["localhost", "127.0.0.1"], validity: validity)
        return try TLSIdentity(authority.paths(of: peer.instance))
    }

    func context(
        _ role: Role, _ name: String = "one", cluster: String = "home"
    ) throws -> TLSContext {
        try TLSContext(identity(role, name, cluster: cluster))
    }

    /// A context whose certificate expires while it is in use: valid when read, expired when used.
    func expiredContext(_ role: Role, _ name: String = "old") throws -> TLSContext {
        let peer = PeerIdentity(cluster: "home", role: role, instance: InstanceID(name))
        try authority.issue(
            peer, validity: CertificateValidity(start: .seconds(-7200), length: .seconds(3600)))
        return try TLSContext(TLSIdentity(authority.paths(of: peer.instance), allowsExpired: true))
    }
}

extension Hello {
    static func test(_ role: Role, _ name: String = "one", cluster: String = "home") -> Hello {
        Hello(
            cluster: cluster, role: role, instance: InstanceID(name), incarnation: 7,
            productVersion: "test")
    }
}
