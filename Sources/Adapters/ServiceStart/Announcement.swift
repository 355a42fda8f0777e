package import Foundation
package import ServingTypes

/// Where a process listens, written to a file once its ports are bound.
///
/// One line per address, `kind host:port`; the file appears whole or not at all.
package struct Announcement: Sendable, Hashable {
    package var control: NetworkAddress?
    package var bulk: NetworkAddress?
    package var http: NetworkAddress?
    package var admin: NetworkAddress?

    package init(
        control: NetworkAddress? = nil, bulk: NetworkAddress? = nil,
        http: NetworkAddress? = nil, admin: NetworkAddress? = nil
    ) {
        self.control = control
        self.bulk = bulk
        self.http = http
        self.admin = admin
    }

    /// Reads a file; nil if it is not there yet.
    package init?(file: URL) {
        guard let text = try? String(contentsOf: file, encoding: .utf8) else { return nil }
        self.init()
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: " ")
            guard parts.count == 2 else { continue }
            let address = NetworkAddress(String(parts[1]))
            switch parts[0] {
            case "control": control = address
            case "bulk": bulk = address
            case "http": http = address
            case "admin": admin = address
            default: continue
            }
        }
    }

    package func write(to file: URL) throws {
        let lines = [("control", control), ("bulk", bulk), ("http", http), ("admin", admin)]
            .compactMap { kind, address in address.map { "\(kind) \($0)\n" } }
        try Data(lines.joined().utf8).write(to: file, options: .atomic)
    }
}
