import Foundation
import Glibc
import LocalCluster
import ServingTypes

/// Many plain TCP connections that do what no good client does.
final class RawSockets: Sendable {
    let files: [Int32]

    /// Connects without waiting for an answer; those that fail are left out.
    ///
    /// - Parameter receiveBytes: size of the receive buffer; nil: the system's.
    init(_ count: Int, to address: NetworkAddress, receiveBytes: Int32? = nil) {
        files = (0..<count).compactMap { _ in
            let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
            let file = socket(AF_INET, type | Int32(SOCK_NONBLOCK.rawValue), 0)
            guard file >= 0 else { return nil }
            if var bytes = receiveBytes {
                unsafe setsockopt(
                    file, SOL_SOCKET, SO_RCVBUF, &bytes, socklen_t(MemoryLayout<Int32>.size))
            }
            var target = sockaddr_in()
            target.sin_family = sa_family_t(AF_INET)
            target.sin_port = in_port_t(address.port).bigEndian
            target.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
            let code = unsafe withUnsafePointer(to: &target) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    unsafe connect(file, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            if code == 0 || errno == EINPROGRESS { return file }
            close(file)
            return nil
        }
    }

    deinit { for file in files { close(file) } }

    func end() { for file in files { shutdown(file, Int32(SHUT_RDWR)) } }

    /// Sends as much as the kernel takes at once.
    func send(_ text: String) {
        let bytes = Array(text.utf8)
        for file in files {
            unsafe bytes.withUnsafeBytes {
                _ = unsafe Glibc.send(file, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
        }
    }

    /// What has come on the first of them.
    func text() -> String {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let got = files.first.map { unsafe recv($0, &buffer, 65_536, Int32(MSG_DONTWAIT)) } ?? 0
        return String(decoding: buffer[..<max(0, got)], as: UTF8.self)
    }

    /// Takes up to so many bytes of each; how many are over, by end or error.
    @discardableResult
    func receive(_ count: Int) -> Int {
        var ended = 0
        var buffer = [UInt8](repeating: 0, count: count)
        for file in files {
            let got = unsafe recv(file, &buffer, count, Int32(MSG_DONTWAIT))
            if got == 0 || got < 0 && errno != EAGAIN && errno != EINTR { ended += 1 }
        }
        return ended
    }
}

extension ManagedProcess {
    /// Processor time so far, in seconds.
    var processorSeconds: Double {
        let path = "/proc/\(processIdentifier)/stat"
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        let fields = text.split(separator: ")").last.map { $0.split(separator: " ") } ?? []
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12])
        else { return 0 }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    var openFileCount: Int {
        let path = "/proc/\(processIdentifier)/fd"
        return (try? FileManager.default.contentsOfDirectory(atPath: path))?.count ?? 0
    }
}

/// Waits until a condition holds; fails after a minute.
func awaited(_ what: String, _ condition: () async throws -> Bool) async throws {
    let end = ContinuousClock.now + .seconds(60)
    while try await !condition() {
        guard ContinuousClock.now < end else { throw TestFailure("not reached: \(what)") }
        try await Task.sleep(for: .milliseconds(50))
    }
}

/// Runs a program of the system to its end.
func runProgram(_ program: String, _ arguments: String...) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
        throw TestFailure("\(program) \(arguments) ended with \(process.terminationStatus)")
    }
}
