import NIOCore
import NIOHTTP1
import NIOPosix
package import ServingTypes

/// One kept HTTP/1.1 connection that notes on its event loop when each piece of an answer arrives.
///
/// One request at a time.
package final class TimedConnection: Sendable {
    /// Time to connect.
    static let connectDeadline = TimeAmount.seconds(5)
    /// Largest answer that is kept.
    static let maximumBytes = 64 << 20

    private let channel: any Channel
    private let handler: NIOLoopBound<AnswerHandler>
    private let host: String

    package init(to address: NetworkAddress) async throws {
        let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .connectTimeout(Self.connectDeadline)
        (channel, handler) = try await bootstrap.connect(host: address.host, port: address.port) {
            channel in
            channel.eventLoop.makeCompletedFuture {
                let handler = AnswerHandler()
                try channel.pipeline.syncOperations.addHTTPClientHandlers()
                try channel.pipeline.syncOperations.addHandler(handler)
                return (channel, NIOLoopBound(handler, eventLoop: channel.eventLoop))
            }
        }
        host = address.description
    }

    deinit { channel.close(promise: nil) }

    /// Sends a request and waits for the whole answer.
    ///
    /// Cancelling closes the connection.
    package func call(
        _ method: String, _ path: String, body: [UInt8] = []
    ) async throws -> TimedAnswer {
        var headers = HTTPHeaders([("host", host)])
        if !body.isEmpty {
            headers.add(name: "content-type", value: "application/json")
            headers.add(name: "content-length", value: "\(body.count)")
        }
        let head = HTTPRequestHead(
            version: .http1_1, method: HTTPMethod(rawValue: method), uri: path, headers: headers)
        let content = body.isEmpty ? nil : ByteBuffer(bytes: body)
        let answer = channel.eventLoop.flatSubmit { self.handler.value.send(head, content) }
        do {
            return try await withTaskCancellationHandler {
                try await answer.get()
            } onCancel: {
                channel.close(promise: nil)
            }
        } catch {
            try Task.checkCancellation()
            throw MeasurementError.connectionLost(request: "\(method) \(path)", "\(error)")
        }
    }

    package func close() async { try? await channel.close() }
}

/// An answer and when its pieces came.
package struct TimedAnswer: Sendable {
    package struct Arrival: Sendable {
        /// Bytes of the body that were there.
        var bodyBytes: Int
        /// Since the request was sent.
        var time: Duration
    }

    package var status = 0
    package var body: [UInt8] = []
    package var arrivals: [Arrival] = []
    /// From sending the request to the end of the answer.
    package var total = Duration.zero

    /// When the byte at this offset came.
    func arrival(ofByte offset: Int) -> Duration {
        arrivals.first { $0.bodyBytes > offset }?.time ?? total
    }

    /// When each event of the stream was complete, with its data.
    var events: [(data: ArraySlice<UInt8>, time: Duration)] {
        var events: [(data: ArraySlice<UInt8>, time: Duration)] = []
        var start = 0
        let newline = UInt8(ascii: "\n")
        for index in body.indices.dropFirst()
        where body[index] == newline && body[index - 1] == newline && index > start {
            let event = body[start..<index - 1]
            events.append((event.dropFirst("data: ".utf8.count), arrival(ofByte: index)))
            start = index + 1
        }
        return events
    }
}

/// Collects one answer at a time; lives on its event loop.
private final class AnswerHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private var context: ChannelHandlerContext?
    private var promise: EventLoopPromise<TimedAnswer>?
    private var answer = TimedAnswer()
    private var start = NIODeadline.now()

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func send(_ head: HTTPRequestHead, _ body: ByteBuffer?) -> EventLoopFuture<TimedAnswer> {
        precondition(promise == nil, "one request at a time")
        guard let context, context.channel.isActive else { return Self.closed(context) }
        let promise = context.eventLoop.makePromise(of: TimedAnswer.self)
        self.promise = promise
        answer = TimedAnswer()
        start = .now()
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if let body { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        return promise.futureResult
    }

    private static func closed(_ context: ChannelHandlerContext?) -> EventLoopFuture<TimedAnswer> {
        let loop = context?.eventLoop ?? MultiThreadedEventLoopGroup.singleton.any()
        return loop.makeFailedFuture(ChannelError.ioOnClosedChannel)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): answer.status = Int(head.status.code)
        case .body(let bytes):
            answer.body.append(contentsOf: bytes.readableBytesView)
            answer.arrivals.append(
                TimedAnswer.Arrival(bodyBytes: answer.body.count, time: elapsed))
            if answer.body.count > TimedConnection.maximumBytes {
                fail(MeasurementError.answerTooLarge(limitBytes: TimedConnection.maximumBytes))
                context.close(promise: nil)
            }
        case .end:
            answer.total = elapsed
            let promise = promise.take()
            promise?.succeed(answer)
        }
    }

    private var elapsed: Duration { .nanoseconds((NIODeadline.now() - start).nanoseconds) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(ChannelError.ioOnClosedChannel)
        context.fireChannelInactive()
    }

    private func fail(_ error: any Error) { promise.take()?.fail(error) }
}
