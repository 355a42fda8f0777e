import Foundation
import ServingTypes
import Synchronization

/// Hosts that are network namespaces of this machine, joined by a bridge.
///
/// Faults are those of a kernel: packets dropped by nftables, a link that is down, a rate by `tc`.
/// One such network exists on a machine at a time. It is taken down by its owner; one whose owner
/// died is removed when the next is set up.
package final class NamespaceNetwork: Sendable {
    /// A host and its place in the subnet.
    struct Host: Sendable {
        var name: String
        var number: Int

        var namespace: String { "\(NamespaceNetwork.prefix)\(number)" }
        /// The bridge's end of its link.
        var link: String { "\(NamespaceNetwork.prefix)v\(number)" }
        var address: String { NamespaceNetwork.address(number) }
    }

    fileprivate static let prefix = "pdchaos"
    private static let bridge = "pdchaosbr"
    private static let lockFile = "/run/pdserve-chaos.lock"
    /// Hosts that one subnet has place for; the bridge has number 1, relays those above 200.
    private static let mostHosts = 190
    /// Name of the link within a namespace.
    private static let inner = "eth0"

    private let hosts: [String: Host]
    private let relays: [String]
    /// Held while the network is there.
    private let lock = Mutex<FileHandle?>(nil)

    /// - Parameters:
    ///   - hosts: names.
    ///   - relays: further addresses of this process.
    package init(hosts: [String], relays: [String] = []) {
        precondition(hosts.count <= Self.mostHosts, "the subnet is too small")
        var all: [String: Host] = [:]
        for (index, name) in hosts.enumerated() {
            all[name] = Host(name: name, number: 10 + index)
        }
        self.hosts = all
        self.relays = relays
    }

    package static func address(_ number: Int) -> String { "10.199.77.\(number)" }

    /// Of the bridge, where clients and relays are.
    package static let ownAddress = address(1)

    /// Where a scheduler listens on a host of its own.
    static let schedulerPort = 7000

    package func address(of host: String) -> String { hosts[host]?.address ?? Self.ownAddress }

    /// What comes before a command that is to run on a host.
    package func command(on host: String) -> [String] {
        hosts[host].map { [Self.enterTool, "--net=/run/netns/\($0.namespace)"] } ?? []
    }

    private static let enterTool = "/usr/bin/nsenter"

    // MARK: Life

    /// Sees whether this process may and can make namespaces.
    package static func check() throws(NamespaceError) {
        guard geteuid() == 0 else { throw .notRoot }
        for tool in ["ip", "nft", "tc", "nsenter"] {
            guard (try? run(["which", tool])) != nil else { throw .toolMissing(tool) }
        }
    }

    /// Removes what an earlier one left, and makes all hosts.
    package func setUp() throws(NamespaceError) {
        try Self.check()
        try takeLock()
        removeAll()
        let subnet = "/24"
        try ip("link", "add", Self.bridge, "type", "bridge")
        try ip("addr", "add", Self.ownAddress + subnet, "dev", Self.bridge)
        for relay in relays { try ip("addr", "add", relay + subnet, "dev", Self.bridge) }
        try ip("link", "set", Self.bridge, "up")
        for host in hosts.values.sorted(by: { $0.number < $1.number }) {
            try ip("netns", "add", host.namespace)
            try ip(
                "link", "add", host.link, "type", "veth", "peer", "name", Self.inner, "netns",
                host.namespace)
            try ip("link", "set", host.link, "master", Self.bridge, "up")
            try inside(host, "ip", "addr", "add", host.address + subnet, "dev", Self.inner)
            try inside(host, "ip", "link", "set", Self.inner, "up")
            try inside(host, "ip", "link", "set", "lo", "up")
            try inside(host, "nft", "add table inet chaos")
            for (chain, hook) in [("in", "input"), ("out", "output")] {
                try inside(
                    host, "nft",
                    "add chain inet chaos \(chain) { type filter hook \(hook) priority -300; }")
            }
        }
    }

    /// Removes all hosts, and ends what still runs there.
    package func tearDown() {
        removeAll()
        lock.withLock { file in
            try? file?.close()
            file = nil
        }
    }

    private func takeLock() throws(NamespaceError) {
        let path = Self.lockFile
        if !FileManager.default.fileExists(atPath: path) {
            _ = FileManager.default.createFile(atPath: path, contents: nil)
        }
        guard let file = FileHandle(forWritingAtPath: path) else {
            throw .failed(command: "open \(path)", words: "it can't be written")
        }
        // The kernel lets go of it when this process ends, however it does.
        guard flock(file.fileDescriptor, LOCK_EX | LOCK_NB) == 0 else { throw .inUse }
        lock.withLock { $0 = file }
    }

    private func removeAll() {
        let names = (try? Self.run(["ip", "netns", "list"])) ?? ""
        for line in names.split(whereSeparator: \.isNewline) {
            guard let name = line.split(separator: " ").first, name.hasPrefix(Self.prefix) else {
                continue
            }
            let processes = (try? Self.run(["ip", "netns", "pids", String(name)])) ?? ""
            for process in processes.split(whereSeparator: \.isWhitespace).compactMap({ Int32($0) })
            {
                kill(process, SIGKILL)
            }
            // Its end of the link goes with it, and so does the bridge's.
            _ = try? Self.run(["ip", "netns", "del", String(name)])
        }
        for host in hosts.values { _ = try? Self.run(["ip", "link", "del", host.link]) }
        _ = try? Self.run(["ip", "link", "del", Self.bridge])
    }

    // MARK: Faults

    /// Whether the kernel can let packets be late.
    package func hasNetem() -> Bool {
        guard let host = hosts.values.first else { return false }
        let qdisc = ["qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
        guard (try? inside(host, ["tc"] + qdisc)) != nil else { return false }
        _ = try? inside(host, "tc", "qdisc", "del", "dev", "lo", "root")
        return true
    }

    /// What a host can suffer.
    package enum Fault: Sendable, Hashable {
        /// Packets to and from these addresses are dropped, or only those of one direction.
        case drop(addresses: [String], incoming: Bool, outgoing: Bool)
        /// All but those of clients.
        case isolate
        case down
        /// Of a thousand packets that come.
        case loss(Int)
        case rate(bitsPerSecond: Int)
        case delay(Duration)
    }

    /// Each host has one fault at a time.
    package func apply(_ fault: Fault, to name: String) throws(NamespaceError) {
        guard let host = hosts[name] else { return }
        switch fault {
        case .drop(let addresses, let incoming, let outgoing):
            let set = "{ \(addresses.joined(separator: ", ")) }"
            if incoming { try rule(host, "in ip saddr \(set) drop") }
            if outgoing { try rule(host, "out ip daddr \(set) drop") }
        case .isolate:
            // Its own addresses pass, too: they are its loopback.
            let set = "{ \(Self.ownAddress), \(host.address), 127.0.0.1 }"
            try rule(host, "in ip saddr != \(set) drop")
            try rule(host, "out ip daddr != \(set) drop")
        case .down: try ip("link", "set", host.link, "down")
        case .loss(let packets):
            try rule(host, "in numgen random mod 1000 < \(packets) drop")
        case .rate(let bits):
            let limit = ["tbf", "rate", "\(bits)bit", "burst", "64kb", "latency", "200ms"]
            try shape(host, limit)
        case .delay(let delay): try shape(host, ["netem", "delay", "\(delay.milliseconds)ms"])
        }
    }

    package func heal(_ name: String) throws(NamespaceError) {
        guard let host = hosts[name] else { return }
        for chain in ["in", "out"] { try inside(host, "nft", "flush chain inet chaos \(chain)") }
        _ = try? inside(host, "tc", "qdisc", "del", "dev", Self.inner, "root")
        _ = try? Self.run(["tc", "qdisc", "del", "dev", host.link, "root"])
        try ip("link", "set", host.link, "up")
    }

    private func rule(_ host: Host, _ words: String) throws(NamespaceError) {
        try inside(host, "nft", "add rule inet chaos \(words)")
    }

    /// Both directions of its link.
    private func shape(_ host: Host, _ qdisc: [String]) throws(NamespaceError) {
        try inside(host, ["tc", "qdisc", "add", "dev", Self.inner, "root"] + qdisc)
        _ = try Self.run(["tc", "qdisc", "add", "dev", host.link, "root"] + qdisc)
    }

    // MARK: Commands

    private func ip(_ arguments: String...) throws(NamespaceError) {
        _ = try Self.run(["ip"] + arguments)
    }

    private func inside(_ host: Host, _ arguments: String...) throws(NamespaceError) {
        try inside(host, arguments)
    }

    private func inside(_ host: Host, _ arguments: [String]) throws(NamespaceError) {
        _ = try Self.run(command(on: host.name) + arguments)
    }

    /// Gives what the command printed.
    private static func run(_ arguments: [String]) throws(NamespaceError) -> String {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = output
        let command = arguments.joined(separator: " ")
        do {
            try process.run()
        } catch {
            throw .failed(command: command, words: "\(error)")
        }
        // Few bytes come, so there is no more to read than a pipe holds.
        let bytes = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        let words = String(decoding: bytes, as: UTF8.self)
        guard process.terminationStatus == 0 else {
            throw .failed(command: command, words: words)
        }
        return words
    }
}

/// Why there are no hosts; the person reads it.
package enum NamespaceError: Error, Sendable, Equatable, CustomStringConvertible {
    case notRoot
    case toolMissing(String)
    case inUse
    case failed(command: String, words: String)

    package var description: String {
        switch self {
        case .notRoot: "network namespaces need root: run it as root, or with --network loopback"
        case .toolMissing(let tool):
            "'\(tool)' is missing: install iproute2, nftables and util-linux"
        case .inUse: "another chaos run has its network namespaces on this machine; wait for it"
        case .failed(let command, let words): "'\(command)' failed: \(words)"
        }
    }
}
