import ArgumentParser
import Foundation
import HTTPClient
import ServingTypes

/// Asks a service whether it is well; for container health checks.
struct HealthcheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "healthcheck",
        abstract: "Exit 0 if GET /health of a service answers 200, otherwise 1.")

    @Argument(help: "Address, for example 127.0.0.1:7401 or http://127.0.0.1:8080/health.")
    var address: String

    func run() async throws {
        let target = try HTTPTarget(address, defaultPath: "/health")
        let (head, body) = try await HTTPCall("GET", target.address, target.path).collect()
        guard head.status == 200 else {
            print(String(decoding: body, as: UTF8.self))
            throw ExitCode(1)
        }
    }
}

/// Host, port and path of a plain HTTP address as people write it.
struct HTTPTarget {
    var address: NetworkAddress
    var path: String

    init(_ text: String, defaultPath: String) throws {
        var rest = text[...]
        if rest.hasPrefix("http://") { rest = rest.dropFirst("http://".count) }
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        guard !rest.hasPrefix("https://"), let address = NetworkAddress(String(rest[..<slash]))
        else {
            throw ValidationError("'\(text)' is not an address like 127.0.0.1:8080.")
        }
        self.address = address
        let path = String(rest[slash...])
        self.path = path.count > 1 ? path : defaultPath
    }
}
