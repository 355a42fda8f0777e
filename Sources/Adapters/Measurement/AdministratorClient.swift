import Foundation
import LocalCluster
import Logging
import ServiceStart
import ServingTypes
import Transport

extension ControlClient {
    /// An administrator's way to a process of a local cluster.
    static func administrator(
        of cluster: LocalCluster, to role: Role, at address: NetworkAddress
    ) throws -> ControlClient {
        let name = InstanceID(Role.administrator.name)
        let folder = cluster.settings.folder.appending(path: "certificates").path
        let context = try TLSContext(
            TLSIdentity(CertificateAuthority(folder: folder).paths(of: name)))
        let hello = Hello(
            cluster: cluster.settings.cluster, role: .administrator, instance: name,
            incarnation: .random(in: 1 ... .max), productVersion: Product.version)
        return try ControlClient(
            address: address, context: context, hello: hello, expects: PeerExpectation(role),
            logger: Logger(label: "benchmark"))
    }
}
