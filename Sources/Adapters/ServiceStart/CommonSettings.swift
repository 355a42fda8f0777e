import Foundation
package import Logging
package import ServiceRuntime
package import ServingTypes
package import Transport

/// Settings that all services share.
package struct CommonSettings: Sendable {
    package let role: Role
    package let cluster: String
    package let hostName: String
    package let adminListen: NetworkAddress
    private let name: String?
    private let certificates: String
    private let certificate: String?
    private let key: String?
    private let revocations: String?
    package let announce: String?

    /// - Parameter adminListen: default address of the process's own endpoint; nil if it has none.
    package init(
        _ reader: inout SettingsReader, role: Role, adminListen: NetworkAddress? = nil
    ) throws(SettingsError) {
        self.role = role
        cluster = try reader.text(
            "cluster", default: "pdserve", "Name of the cluster, as in the certificates.")
        name = try reader.optionalText(
            "name",
            "Name of this process, unique in its cluster; default: the role, or with a "
                + "certificate for any name the role and the machine's host name.")
        hostName = try reader.text(
            "host-name", default: ProcessInfo.processInfo.hostName,
            "Name of this host; a health-agent probes the workers with its own host name.")
        certificates = try reader.text(
            "certificates", default: "certificates",
            "Folder with ca.pem and the .pem and .key of this process or of its role.")
        certificate = try reader.optionalText(
            "certificate", "Certificate file, if it is not in the folder.")
        key = try reader.optionalText("key", "Key file, if it is not in the folder.")
        revocations = try reader.optionalText(
            "certificate-revocations",
            "File with the authority's lists of revoked certificates; default: revoked.pem in the "
                + "folder, as soon as it is there.")
        if let adminListen {
            self.adminListen = try reader.address(
                "admin-listen", default: adminListen, "Address of /live, /health and /metrics.")
        } else {
            self.adminListen = NetworkAddress(host: "127.0.0.1", port: 0)
        }
        announce = try reader.optionalText(
            "announce", "File to write the bound addresses to.")
    }

    /// Loads the certificate and says who this process is.
    package func identify(
        incarnation: UInt64, _ runtime: ServiceRuntime
    ) throws(TransportError) -> ProcessIdentity {
        let folder = URL(fileURLWithPath: certificates)
        func path(_ file: String) -> String { folder.appending(path: file).path }
        let own = name.flatMap { name in
            FileManager.default.fileExists(atPath: path("\(name).pem")) ? name : nil
        }
        let file = own ?? role.name
        let paths = TLSIdentity.Paths(
            authority: path("ca.pem"), certificate: certificate ?? path("\(file).pem"),
            key: key ?? path("\(file).key"), revocations: revocations ?? path("revoked.pem"),
            mayLackRevocations: revocations == nil)
        Self.describe(in: runtime.metrics)
        let certificates = try CertificateWatch(.cluster(paths), logger: runtime.logger)
        runtime.reload.whenRaised { certificates.look(isForced: true) }
        let certified = certificates.context.identity?.instance ?? PeerIdentity.anyInstance
        let fallback =
            certified == PeerIdentity.anyInstance
            ? "\(role.name)-\(ProcessInfo.processInfo.hostName)" : certified.name
        let hello = Hello(
            cluster: cluster, role: role, instance: InstanceID(name ?? fallback),
            incarnation: incarnation, productVersion: Product.version)
        return ProcessIdentity(certificates: certificates, hello: hello)
    }

    private static func describe(in registry: MetricsRegistry) {
        for (name, help) in [
            (
                "certificate_expires_seconds",
                "Time until the certificate, the authority's, the list of revocations or the "
                    + "certificate for HTTPS ends; negative once it has."
            ),
            ("certificate_reloads", "Changed certificate files that were read, by outcome."),
            ("connections_refused", "Peers that this process refused, by reason."),
            (
                "connections_ended",
                "Open connections that were ended because the peer's certificate holds no more."
            ),
        ] { registry.describe(name, help) }
    }

    /// Writes the addresses to the file that was asked for, if there is room on its disk.
    ///
    /// - Returns: false if there is none: the process can serve all the same.
    /// - Throws: what an operator has to mend, such as a missing folder.
    package func write(_ announcement: Announcement) throws -> Bool {
        guard let announce else { return true }
        do {
            try announcement.write(to: URL(fileURLWithPath: announce))
            return true
        } catch let error as CocoaError where error.code == .fileWriteOutOfSpace {
            return false
        }
    }

    /// The address others reach this process at.
    ///
    /// - Parameters:
    ///   - bound: where it listens; a wildcard address says nothing to others.
    ///   - advertised: host the operator names; nil if none.
    package static func reachable(
        _ bound: NetworkAddress, advertised: String?
    ) -> NetworkAddress {
        let isWildcard = ["0.0.0.0", "::"].contains(bound.host)
        let host = advertised ?? (isWildcard ? ProcessInfo.processInfo.hostName : bound.host)
        return NetworkAddress(host: host, port: bound.port)
    }
}

extension SettingsReader {
    /// Where the schedulers are, the usual leader first.
    package mutating func schedulers() throws(SettingsError) -> [NetworkAddress] {
        try addresses(
            "scheduler", default: [NetworkAddress(host: "127.0.0.1", port: 7400)],
            "Control addresses of the schedulers, separated by commas; one of them leads.")
    }
}

/// Who a process is: its certificate, ready to use, and its greeting.
package struct ProcessIdentity: Sendable {
    package let certificates: CertificateWatch
    package var hello: Hello

    package var context: TLSContext { certificates.context }

    /// A connection to another process that is kept up.
    package func client(
        of peer: PeerExpectation, at address: NetworkAddress, logger: Logger
    ) throws(TransportError) -> ControlClient {
        try ControlClient(
            address: address, context: context, hello: hello, expects: peer, logger: logger)
    }

    /// A connection to the scheduler, which is the one of these addresses that leads.
    package func schedulerClient(
        at addresses: [NetworkAddress], logger: Logger
    ) throws(TransportError) -> ControlClient {
        try ControlClient(
            addresses: addresses, context: context, hello: hello,
            expects: PeerExpectation(.scheduler), logger: logger)
    }

    /// Connections to workers that come and go.
    package func links(logger: Logger) -> LinkSet {
        LinkSet(logger: logger) { instance, role, address throws(TransportError) in
            try client(
                of: PeerExpectation(role, instance: instance), at: address, logger: logger)
        }
    }
}
