import Dispatch
import Foundation
import Logging
import ServingTypes
import Synchronization
import Testing

@testable import Transport

let loopback = NetworkAddress(host: "127.0.0.1", port: 0)

/// Keeps the lines that a logger gets.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    private let stream: AsyncStream<String>
    private let continuation: AsyncStream<String>.Continuation

    init() { (stream, continuation) = AsyncStream.makeStream() }

    var logger: Logger { Logger(label: "test") { _ in Handler(lines: self) } }
    var all: [String] { lines.withLock(\.self) }

    /// Waits for a line that has this in it.
    func line(containing text: String) async -> String? {
        if let line = all.first(where: { $0.contains(text) }) { return line }
        for await line in stream where line.contains(text) { return line }
        return nil
    }

    fileprivate func add(_ line: String) {
        lines.withLock { $0.append(line) }
        continuation.yield(line)
    }

    private struct Handler: LogHandler {
        let lines: LogLines
        var metadata = Logger.Metadata()
        var logLevel = Logger.Level.trace

        subscript(metadataKey key: String) -> Logger.MetadataValue? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            lines.add("\(event.level) \(event.message) \(event.metadata ?? [:])")
        }
    }
}

/// The error that this throws.
func failure(_ body: () throws -> Void) -> TransportError? {
    do {
        try body()
        return nil
    } catch { return error as? TransportError }
}

/// Runs blocking work on a thread of its own.
func onThread<Value: Sendable>(
    _ body: @escaping @Sendable () throws -> Value
) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        Thread { continuation.resume(with: Result(catching: body)) }.start()
    }
}

/// A TCP client that speaks whatever it is told: sends, then reads until the peer closes.
func speak(_ bytes: [UInt8], to address: NetworkAddress) async throws -> [UInt8] {
    try await onThread {
        let deadline = Deadline(after: .seconds(5))
        let file = try Sockets.connect(to: address, deadline: deadline)
        defer { close(file) }
        _ = unsafe bytes.withUnsafeBytes { unsafe Platform.write(file, $0) }
        var answer: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while Sockets.wait(file, Int16(POLLIN), deadline) {
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe Platform.read(file, $0) }
            guard count > 0 else { return answer }
            answer += buffer.prefix(count)
        }
        throw TransportError.deadline
    }
}

/// What a peer may say that is not TLS 1.3.
enum ForeignSpeech {
    static let http = Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8)

    /// A ClientHello of TLS 1.2 without extensions (RFC 5246, 7.4.1.2).
    static let tls12: [UInt8] = {
        let hello: [UInt8] =
            [3, 3] + [UInt8](repeating: 7, count: 32) + [0, 0, 2, 0xc0, 0x2b, 1, 0]
        let handshake: [UInt8] = [1, 0, 0, UInt8(hello.count)] + hello
        return [0x16, 3, 1, 0, UInt8(handshake.count)] + handshake
    }()

    /// A fatal alert, protocol_version (RFC 8446, 6).
    static let versionAlert: [UInt8] = [0x15, 3, 3, 0, 2, 2, 70]
}

extension AttemptID {
    static let test = AttemptID(request: RequestID(high: 1, low: 2), number: 3)
}
