import ArgumentParser
import Foundation
import ServingTypes
import Transport

/// Makes a certificate authority and certificates for every role.
struct CertificatesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "certificates",
        abstract: "Make a certificate authority and a certificate for each process.",
        discussion: """
            Without --name, one certificate per role is made, named like the role. A worker \
            certificate for '*' is valid for any name of its role, for scaled services. The \
            authority is made once and kept, and so are certificates unless --renew is given.

            --revoke puts all certificates of a process onto the list of revocations, revoked.pem, \
            which running processes take up when it is put beside their certificates. Write the \
            list anew before it ends, with --renew-revocations.
            """)

    @Option(help: "Folder for the files; made if it is missing.")
    var folder: String

    @Option(help: "Name of the cluster; processes of another cluster are refused.")
    var cluster = "pdserve"

    @Option(help: "Host names and addresses, separated by commas, under which they are reached.")
    var host = "localhost,127.0.0.1"

    @Option(help: "Make a certificate for this role only (with --name).")
    var role: String?

    @Option(help: "Name of one process (with --role).")
    var name: String?

    @Flag(help: "Make certificates that are valid for any process name of their role.")
    var anyName = false

    @Flag(help: "Replace certificates that exist; without it they are kept.")
    var renew = false

    @Option(help: "Revoke all certificates of this process, or of this role's '*'.")
    var revoke: String?

    @Flag(help: "Write the list of revocations anew, with a later end.")
    var renewRevocations = false

    @Option(help: "Days until the list of revocations should be written anew.")
    var revocationDays = 30

    func validate() throws {
        guard (1...3650).contains(revocationDays) else {
            throw ValidationError("--revocation-days is a number from 1 to 3650.")
        }
        guard revoke == nil && !renewRevocations || role == nil && !renew else {
            throw ValidationError("Revoke first, then make new certificates in a call of its own.")
        }
        guard (role == nil) == (name == nil) else {
            throw ValidationError("--role and --name go together.")
        }
        if let role, Role(name: role) == nil {
            let known = Role.allCases.map(\.name).joined(separator: ", ")
            throw ValidationError("'\(role)' is no role; there are \(known).")
        }
    }

    func run() throws {
        let authority = CertificateAuthority(folder: folder)
        guard revoke == nil && !renewRevocations else { return try writeRevocations(authority) }
        if !authority.exists {
            try authority.create(cluster: cluster)
            print("made the authority \(authority.certificatePath)")
        }
        let hosts = host.split(separator: ",").map(String.init)
        if let role = role.flatMap(Role.init(name:)), let name {
            try issue(role, name, by: authority, hosts: hosts)
        } else {
            for role in Role.allCases { try issue(role, role.name, by: authority, hosts: hosts) }
        }
    }

    private func writeRevocations(_ authority: CertificateAuthority) throws {
        let validity = CertificateValidity(
            start: .zero, length: .seconds(revocationDays * 86_400))
        let done =
            if let revoke {
                try authority.revoke(revoke, validity: validity)
            } else {
                try authority.renewRevocations(validity: validity)
            }
        if let revoke { print("revoked \(done.revoked) certificate(s) of \(revoke)") }
        print(
            "made \(authority.revocationsPath): \(done.listed) certificate(s) for "
                + "\(revocationDays) days")
    }

    private func issue(
        _ role: Role, _ file: String, by authority: CertificateAuthority, hosts: [String]
    ) throws {
        let path = "\(folder)/\(file).pem"
        if !renew, FileManager.default.fileExists(atPath: path) {
            let isRevoked = try authority.isRevoked(InstanceID(file))
            let hint = isRevoked ? ", which is revoked; --renew makes another" : ""
            return print("kept \(path)\(hint)")
        }
        let identity = PeerIdentity(
            cluster: cluster, role: role, instance: InstanceID(anyName ? "*" : file))
        let contents = try authority.issue(identity, file: file, hosts: hosts)
        print("made \(path) for \(contents.identity?.description ?? file)")
    }
}
