import Foundation
import Glibc
import HTTPServer
import Logging
import ServiceLifecycle
import ServiceRuntime
import ServingTypes
import Testing

/// A blocking TCP client that sends what it is told, right or wrong; for use in `onThread`.
final class RawClient: Sendable {
    let descriptor: Int32

    init(_ port: Int, receiveBufferBytes: Int32? = nil) {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        if var bytes = receiveBufferBytes {
            _ = unsafe setsockopt(
                descriptor, SOL_SOCKET, SO_RCVBUF, &bytes, socklen_t(MemoryLayout<Int32>.size))
        }
        var one: Int32 = 1
        _ = unsafe setsockopt(
            descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        let result = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        #expect(result == 0 || errno == ECONNREFUSED, "connect: \(errno)")
        setTimeout(seconds: 10)
    }

    deinit { Glibc.close(descriptor) }

    func setTimeout(seconds: Int) {
        var time = timeval(tv_sec: seconds, tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, size)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, size)
    }

    /// How many bytes went out before an error.
    @discardableResult func send(_ text: String) -> Int { send(Array(text.utf8)) }

    @discardableResult func send(_ bytes: [UInt8]) -> Int {
        var sent = 0
        while sent < bytes.count {
            let count = unsafe bytes[sent...].withUnsafeBytes {
                unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count <= 0 { break }
            sent += count
        }
        return sent
    }

    /// What came; empty at the end of the stream, nil after an error or 10 s of silence.
    func receive() -> String? {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = unsafe buffer.withUnsafeMutableBytes {
            unsafe recv(descriptor, $0.baseAddress, $0.count, 0)
        }
        return count < 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
    }

    /// Everything up to and including the mark, or as much as came.
    func receive(through mark: String) -> String {
        var text = ""
        while !text.contains(mark) {
            guard let more = receive(), !more.isEmpty else { break }
            text += more
        }
        return text
    }

    func receiveAll() -> String {
        var text = ""
        while let more = receive(), !more.isEmpty { text += more }
        return text
    }

    /// Head and body of one answer with a length.
    func receiveAnswer() -> (head: String, body: String) {
        var text = receive(through: "\r\n\r\n")
        guard let end = text.range(of: "\r\n\r\n") else { return (text, "") }
        let head = String(text[..<end.lowerBound])
        let length =
            head.lowercased().split(separator: "\r\n")
            .first { $0.hasPrefix("content-length:") }
            .flatMap { Int($0.dropFirst(15).filter(\.isNumber)) } ?? 0
        while text.utf8.count - head.utf8.count - 4 < length {
            guard let more = receive(), !more.isEmpty else { break }
            text += more
        }
        return (head, String(text.dropFirst(head.count + 2).drop { $0 == "\r\n" }))
    }

    func endSending() { shutdown(descriptor, Int32(SHUT_WR)) }
    func close() { shutdown(descriptor, Int32(SHUT_RDWR)) }

    /// Closes with a reset instead of an orderly end.
    func reset() {
        var linger = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(
            descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<linger>.size))
        // Connecting to nothing ends the connection and keeps the descriptor for `deinit`.
        var nothing = sockaddr()
        nothing.sa_family = sa_family_t(AF_UNSPEC)
        _ = unsafe connect(descriptor, &nothing, socklen_t(MemoryLayout<sockaddr>.size))
    }

    func get(_ path: String, headers: String = "") {
        send("GET \(path) HTTP/1.1\r\nHost: x\r\n\(headers)\r\n")
    }

    func post(_ path: String, _ body: String) {
        send(
            "POST \(path) HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
    }
}

/// Runs blocking code on a thread of its own; those of tasks and of Dispatch are few.
func onThread<Value: Sendable>(_ work: @escaping @Sendable () -> Value) async -> Value {
    await withCheckedContinuation { continuation in
        Thread.detachNewThread { continuation.resume(returning: work()) }
    }
}

/// Runs an endpoint around a test; returns after its graceful shutdown.
func withEndpoint(
    _ routes: HTTPRoutes, limits: HTTPLimits = HTTPLimits(), metrics: MetricsRegistry? = nil,
    _ test: (HTTPEndpoint, Int, ServiceGroup) async throws -> Void
) async throws {
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let endpoint = HTTPEndpoint(
        address: NetworkAddress(host: "127.0.0.1", port: 0), limits: limits, routes: routes,
        logger: logger, metrics: metrics)
    let group = ServiceGroup(services: [endpoint], gracefulShutdownSignals: [], logger: logger)
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await group.run() }
        let port = try await endpoint.boundAddress().port
        do {
            try await test(endpoint, port, group)
        } catch {
            await group.triggerGracefulShutdown()
            throw error
        }
        await group.triggerGracefulShutdown()
        try await tasks.waitForAll()
    }
}

/// Waits until a condition holds, for at most five seconds.
func eventually(_ condition: () async -> Bool) async -> Bool {
    for _ in 0..<1000 {
        if await condition() { return true }
        try? await Task.sleep(for: .milliseconds(5))
    }
    return false
}
