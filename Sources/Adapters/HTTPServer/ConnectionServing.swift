import ChatAPI
import CoreMetrics
import HTTPTypes
import HummingbirdCore
import Logging
import NIOCore
import NIOHTTPTypes
import ServiceRuntime
import ServingTypes
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// Sets connections up and answers their requests, one after the other.
struct ConnectionServing: ServerChildChannel {
    struct Value: ServerChildChannelValue {
        var stream: NIOAsyncChannel<HTTPRequestPart, HTTPResponsePart>
        var connection: HTTPConnection
        var channel: any Channel { stream.channel }
    }

    let routes: HTTPRoutes
    let limits: HTTPLimits
    let connections: OpenConnections
    let logger: Logger
    let prepare: @Sendable (any Channel) throws -> Void
    let count: HTTPCounting

    // MARK: Setting up

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<Value> {
        let admission = connections.add(channel)
        guard admission != .dropped else {
            count.refused("connections")
            channel.close(promise: nil)
            return channel.eventLoop.makeFailedFuture(ChannelError.eof)
        }
        if admission == .refused { count.refused("connections") }
        let refusal: APIError? =
            admission == .refused
            ? .overloaded(
                "Too many connections.", retryAfterSeconds: HTTPLimits.retryAfterSeconds) : nil
        let connection = HTTPConnection()
        let limits = limits
        let configuration = HTTP1Channel.Configuration(
            additionalChannelHandlers: [
                ConnectionGuard(
                    limits: limits, connection: connection, refusal: refusal,
                    connections: connections, count: count)
            ],
            httpDecoderConfiguration: .init(
                maxHeaderFieldSize: limits.headBytes, maxHeaderListSize: limits.headBytes,
                maxHeaderFieldCount: limits.headFields))
        limitSilence(channel)
        limitBuffers(channel)
        do {
            try prepare(channel)
        } catch {
            return channel.eventLoop.makeFailedFuture(error)
        }
        return HTTP1Channel(responder: { _, _, _ in }, configuration: configuration)
            .setup(channel: channel, logger: logger)
            .map { Value(stream: $0, connection: connection) }
    }

    /// Lets the kernel give up a client that vanished without a word, for example by a power cut.
    ///
    /// What little is sent to it fits the kernel's buffers, so no write would ever wait.
    private func limitSilence(_ channel: any Channel) {
        #if os(Linux)
            let option = ChannelOptions.tcpOption(NIOBSDSocket.Option(rawValue: TCP_USER_TIMEOUT))
            let milliseconds = SocketOptionValue(limits.stallTime.milliseconds)
            channel.setOption(option, value: milliseconds).whenFailure { error in
                logger.debug("No time limit for silent clients.", metadata: ["error": "\(error)"])
            }
        #endif
    }

    /// Bounds what is held for a client that does not read.
    ///
    /// The kernel would let its buffer grow to `tcp_wmem`, some MiB.
    private func limitBuffers(_ channel: any Channel) {
        let unwritten = ChannelOptions.Types.WriteBufferWaterMark(
            low: HTTPLimits.unwrittenBytes / 2, high: HTTPLimits.unwrittenBytes)
        channel.setOption(.writeBufferWaterMark, value: unwritten).whenFailure { _ in }
        let bytes = SocketOptionValue(limits.kernelBytes)
        channel.setOption(.socketOption(.so_sndbuf), value: bytes).whenFailure { _ in }
    }

    // MARK: Answering

    func handle(value: Value, logger: Logger) async {
        do {
            try await withTaskCancellationHandler {
                try await value.stream.executeThenClose { inbound, outbound in
                    try await serve(
                        inbound, outbound, value.connection,
                        remoteAddress: value.channel.remoteAddress?.ipAddress ?? "")
                    // Writes what is left; the guard closes soon after.
                    outbound.finish()
                    try await value.channel.closeFuture.get()
                }
            } onCancel: {
                value.channel.close(promise: nil)
            }
        } catch {
            logger.debug("Connection ended early.", metadata: ["error": "\(error)"])
        }
    }

    private func serve(
        _ inbound: NIOAsyncChannelInboundStream<HTTPRequestPart>,
        _ outbound: NIOAsyncChannelOutboundWriter<HTTPResponsePart>, _ connection: HTTPConnection,
        remoteAddress: String
    ) async throws {
        var parts = inbound.makeAsyncIterator()
        while case .head(let head) = try await parts.next() {
            guard let body = try await wholeBody(&parts, head) else { return }
            let isLast = head.headerFields[.connection]?.lowercased() == "close"
            let call = HTTPCall(head, body: body, remoteAddress: remoteAddress)
            try await answer(call, isLast: isLast, outbound, connection)
            if isLast { return }
        }
    }

    /// The body, or nil if the connection ended first; the guard bounds size and time.
    private func wholeBody(
        _ parts: inout NIOAsyncChannelInboundStream<HTTPRequestPart>.AsyncIterator,
        _ head: HTTPRequest
    ) async throws -> [UInt8]? {
        var body: [UInt8] = []
        if let length = head.headerFields[.contentLength].flatMap({ Int($0) }) {
            body.reserveCapacity(min(length, HTTPLimits.announcedBytes))
        }
        while let part = try await parts.next(isolation: #isolation) {
            switch part {
            case .body(let bytes): body.append(contentsOf: bytes.readableBytesView)
            case .end: return body
            case .head: return nil
            }
        }
        return nil
    }

    private func answer(
        _ call: HTTPCall, isLast: Bool,
        _ outbound: NIOAsyncChannelOutboundWriter<HTTPResponsePart>, _ connection: HTTPConnection
    ) async throws {
        let (reply, route) = try await connection.run { try await handle(call) }
        count.request(route, reply.status)
        var head = reply.head(date: HTTPDate.now())
        if isLast { head.headerFields[.connection] = "close" }
        switch reply.body {
        case .bytes(let bytes):
            // Not cancelled when the client has ended its side: it may still be reading.
            let body = call.isHead ? [] : [HTTPResponsePart.body(ByteBuffer(bytes: bytes))]
            try await outbound.write(contentsOf: [.head(head)] + body + [.end(nil)])
        case .stream(let stream):
            try await outbound.write(.head(head))
            do {
                try await connection.run {
                    if !call.isHead { try await write(stream, outbound) }
                    // A sequence that ends because of the cancellation must not look complete.
                    try Task.checkCancellation()
                }
            } catch {
                if connection.hasLeft { count.clientLeft(route) }
                throw error
            }
            try await outbound.write(.end(nil))
        }
    }

    private func write(
        _ stream: HTTPStream, _ outbound: NIOAsyncChannelOutboundWriter<HTTPResponsePart>
    ) async throws {
        try await stream.forEach { chunk in
            guard !chunk.isEmpty else { return }
            try await outbound.write(.body(ByteBuffer(bytes: chunk)))
        }
    }

    private func handle(_ call: HTTPCall) async throws -> (reply: HTTPReply, route: String) {
        var route = "none"
        do {
            let match = try routes.match(call)
            route = match.pattern
            var call = call
            call.rest = match.rest
            return (try await match.handler(call), route)
        } catch let error as APIError {
            return (.error(error), route)
        } catch {
            if Task.isCancelled {
                count.clientLeft(route)
                throw CancellationError()
            }
            logger.error(
                "A handler failed.", metadata: ["route": "\(route)", "error": "\(error)"])
            return (.error(.internalFailure), route)
        }
    }
}

extension HTTPReply {
    func head(date: String?) -> HTTPResponse {
        var fields = HTTPFields()
        for (name, value) in headers {
            guard let name = HTTPField.Name(name) else { continue }
            fields.append(HTTPField(name: name, value: value))
        }
        if case .bytes(let bytes) = body { fields[.contentLength] = String(bytes.count) }
        if let date { fields[.date] = date }
        return HTTPResponse(status: .init(code: status), headerFields: fields)
    }
}

/// Why a connection was ended that a client would have held open.
enum Cut: String, CaseIterable {
    /// It took next to nothing of its answer.
    case stalled
    /// It sent no head, or no body, in time.
    case head, body
}

/// What the endpoint counts.
struct HTTPCounting: Sendable {
    let metrics: (any MetricsFactory)?

    func request(_ route: String, _ status: Int) {
        add("http_requests", [("route", route), ("status", "\(status)")])
    }

    func clientLeft(_ route: String) { add("http_clients_left", [("route", route)]) }

    func refused(_ reason: String) { add("http_refused", [("reason", reason)]) }

    func cut(_ reason: Cut) { add("http_clients_cut", [("reason", reason.rawValue)]) }

    private func add(_ name: String, _ dimensions: [(String, String)]) {
        metrics?.makeCounter(label: name, dimensions: dimensions).increment(by: 1)
    }
}
