import NIOCore
import NIOHTTP1
import NIOPosix
package import ServingTypes

/// One HTTP/1.1 request over a connection of its own; what the command line tool and tests need.
package struct HTTPCall: Sendable {
    /// Time to connect.
    package static let connectDeadline: Duration = .seconds(5)
    /// Largest answer that is collected; a stream may be longer.
    package static let maximumCollectedBytes = 64 << 20

    /// Status and headers of an answer.
    package struct Head: Sendable {
        package var status: Int
        /// Names in lower case.
        package var headers: [String: String]
    }

    package var method: String
    package var address: NetworkAddress
    package var path: String
    package var headers: [String: String]
    package var body: [UInt8]

    package init(
        _ method: String, _ address: NetworkAddress, _ path: String,
        headers: [String: String] = [:], body: [UInt8] = []
    ) {
        self.method = method
        self.address = address
        self.path = path
        self.headers = headers
        self.body = body
    }

    /// Sends the request and collects the whole answer.
    package func collect() async throws -> (head: Head, body: [UInt8]) {
        var collected: [UInt8] = []
        let head = try await stream { _, chunk in
            collected += chunk
            guard collected.count <= Self.maximumCollectedBytes else {
                throw HTTPCallError.answerTooLarge(limitBytes: Self.maximumCollectedBytes)
            }
        }
        return (head, collected)
    }

    /// Sends the request and hands over the answer as it comes.
    ///
    /// Cancelling closes the connection.
    @discardableResult
    package func stream(
        _ onChunk: (Head, [UInt8]) async throws -> Void
    ) async throws -> Head {
        let channel = try await connect()
        return try await channel.executeThenClose { inbound, outbound in
            var reason: String?
            do {
                try await send(to: outbound)
            } catch let error as ChannelError {
                // A server that refuses may have answered and closed by now.
                reason = "\(error)"
            }
            var head: Head?
            for try await part in inbound {
                switch part {
                case .head(let response):
                    head = Head(
                        status: Int(response.status.code),
                        headers: Dictionary(
                            response.headers.map { ($0.name.lowercased(), $0.value) },
                            uniquingKeysWith: { first, _ in first }))
                case .body(let buffer):
                    if let head { try await onChunk(head, Array(buffer.readableBytesView)) }
                case .end:
                    guard let head else {
                        throw HTTPCallError.noAnswer(address, reason: "it has no head")
                    }
                    return head
                }
            }
            throw HTTPCallError.noAnswer(address, reason: reason ?? "the connection ended")
        }
    }

    private typealias HTTPChannel = NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>

    private func connect() async throws -> HTTPChannel {
        do {
            return try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(.nanoseconds(Self.connectDeadline.nanoseconds))
                .connect(host: address.host, port: address.port) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        return try HTTPChannel(wrappingChannelSynchronously: channel)
                    }
                }
        } catch {
            throw HTTPCallError.notReached(address, reason: "\(error)")
        }
    }

    private func send(
        to outbound: NIOAsyncChannelOutboundWriter<HTTPClientRequestPart>
    ) async throws {
        var fields = HTTPHeaders([
            ("host", address.description), ("content-length", "\(body.count)"),
            ("connection", "close"),
        ])
        for (name, value) in headers { fields.replaceOrAdd(name: name, value: value) }
        let head = HTTPRequestHead(
            version: .http1_1, method: HTTPMethod(rawValue: method), uri: path, headers: fields)
        // All at once: without a body, a quick server answers the head alone and closes.
        let content: [HTTPClientRequestPart] =
            body.isEmpty ? [] : [.body(.byteBuffer(ByteBuffer(bytes: body)))]
        try await outbound.write(contentsOf: [.head(head)] + content + [.end(nil)])
    }
}

/// Why an HTTP call gave no answer; the person or test that called decides what to do.
package enum HTTPCallError: Error, Hashable, Sendable {
    case notReached(NetworkAddress, reason: String)
    /// The connection ended before the answer did.
    case noAnswer(NetworkAddress, reason: String)
    case answerTooLarge(limitBytes: Int)
}
