import Foundation
import Testing

@testable import Chaos

/// Real hosts; only root can make them.
@Suite(.serialized) struct NamespaceNetworkTests {
    private static let isPossible = (try? NamespaceNetwork.check()) != nil

    @Test func `who may not make hosts is told what to do`() {
        #expect(NamespaceError.notRoot.description.contains("run it as root"))
        #expect(NamespaceError.toolMissing("nft").description.contains("nftables"))
    }

    @Test(.enabled(if: isPossible, "needs root, ip, nft, tc and nsenter"))
    func `hosts reach each other until something is between them`() throws {
        let network = NamespaceNetwork(hosts: ["left", "right"])
        do {
            try network.setUp()
        } catch .inUse {
            // Another run on this machine; its hosts stay as they are.
            return
        }
        defer { network.tearDown() }
        #expect(try reaches(network))
        let right = network.address(of: "right")
        for fault: NamespaceNetwork.Fault in [
            .drop(addresses: [right], incoming: true, outgoing: true),
            .drop(addresses: [right], incoming: true, outgoing: false),
            .drop(addresses: [right], incoming: false, outgoing: true), .isolate, .down,
        ] {
            try network.apply(fault, to: "left")
            #expect(try !reaches(network, tries: 1), "\(fault)")
            try network.heal("left")
            #expect(try reaches(network), "after \(fault)")
        }
        for fault: NamespaceNetwork.Fault in [.rate(bitsPerSecond: 1_000_000), .loss(300)] {
            try network.apply(fault, to: "left")
            #expect(try reaches(network), "\(fault)")
            try network.heal("left")
        }
        // A second one may not take the place of the first.
        let other = NamespaceNetwork(hosts: ["left"])
        #expect(throws: NamespaceError.inUse) { try other.setUp() }
    }

    /// Whether a TCP connection from the left host to the right one is answered, if only by a no.
    private func reaches(_ network: NamespaceNetwork, tries: Int = 20) throws -> Bool {
        let script = "echo > /dev/tcp/\(network.address(of: "right"))/9"
        for _ in 0..<tries {
            let process = Process()
            let output = Pipe()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            process.arguments =
                network.command(on: "left") + [
                    "timeout", "-s", "KILL", "0.3", "bash", "-c", script,
                ]
            process.standardError = output
            try process.run()
            let words = output.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            if String(decoding: words, as: UTF8.self).contains("refused") { return true }
        }
        return false
    }
}
