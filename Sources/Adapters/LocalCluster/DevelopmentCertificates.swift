import ServingTypes
package import Transport

/// Certificates for a cluster on one host, or for scaled services: one per role, any name.
package enum DevelopmentCertificates {
    /// Makes the authority if it is missing, and new certificates.
    ///
    /// - Parameter hosts: host names and addresses under which the processes are reached.
    package static func make(
        in folder: String, cluster: String, hosts: [String]
    ) throws(TransportError) {
        let authority = CertificateAuthority(folder: folder)
        if !authority.exists { try authority.create(cluster: cluster) }
        for role in Role.allCases {
            let identity = PeerIdentity(
                cluster: cluster, role: role, instance: PeerIdentity.anyInstance)
            try authority.issue(identity, file: role.name, hosts: hosts)
        }
    }
}
