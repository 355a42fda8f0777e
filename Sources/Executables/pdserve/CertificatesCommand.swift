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

    func validate() throws {
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

    private func issue(
        _ role: Role, _ file: String, by authority: CertificateAuthority, hosts: [String]
    ) throws {
        let path = "\(folder)/\(file).pem"
        if !renew, FileManager.default.fileExists(atPath: path) {
            return print("kept \(path)")
        }
        let identity = PeerIdentity(
            cluster: cluster, role: role, instance: InstanceID(anyName ? "*" : file))
        let contents = try authority.issue(identity, file: file, hosts: hosts)
        print("made \(path) for \(contents.identity?.description ?? file)")
    }
}
