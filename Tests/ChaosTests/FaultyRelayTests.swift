import Chaos
import NIOCore
import NIOPosix
import ServingTypes
import Testing

@Suite(.enabled(if: ChaosSettings.canRelay)) struct FaultyRelayTests {
    private typealias Connection = NIOAsyncChannel<ByteBuffer, ByteBuffer>

    /// An address that answers with what it gets, behind a relay.
    private func withRelay(
        host: String, _ body: (FaultyRelay, NetworkAddress) async throws -> Void
    ) async throws {
        let server = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(EchoHandler())
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(server.localAddress?.port)
        let relay = FaultyRelay(to: NetworkAddress(host: "127.0.0.1", port: port))
        try await withThrowingTaskGroup(of: Void.self) { group in
            let address = NetworkAddress(host: host, port: port)
            group.addTask { try await relay.run(at: address) }
            try await body(relay, address)
            group.cancelAll()
        }
        try await server.close()
    }

    /// Sends bytes and gives what comes back; nil if the connection ends instead.
    private func echo(_ bytes: [UInt8], _ address: NetworkAddress) async throws -> [UInt8]? {
        for _ in 0..<200 {
            if let connection = try? await connect(address) {
                return try? await connection.executeThenClose { inbound, outbound in
                    try await outbound.write(ByteBuffer(bytes: bytes))
                    var got: [UInt8] = []
                    for try await piece in inbound {
                        got += piece.readableBytesView
                        if got.count >= bytes.count { return got }
                    }
                    throw ChannelError.eof
                }
            }
            // The relay is not bound yet.
            try await Task.sleep(for: .milliseconds(20))
        }
        return nil
    }

    private func connect(_ address: NetworkAddress) async throws -> Connection {
        try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .connect(host: address.host, port: address.port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try Connection(wrappingChannelSynchronously: channel)
                }
            }
    }

    @Test func `bytes pass, are refused, damaged and held up as told`() async throws {
        let bytes = (0..<5000).map { UInt8(truncatingIfNeeded: $0) }
        try await withRelay(host: "127.0.9.1") { relay, address in
            #expect(try await echo(bytes, address) == bytes)
            relay.set(.cut)
            #expect(try await echo(bytes, address) == nil)
            relay.set(.corrupt(minimumBytes: 100))
            let damaged = try #require(try await echo(bytes, address))
            #expect(damaged.count == bytes.count && damaged != bytes)
            #expect(relay.damagedPieces > 0)
            #expect(try await echo([1, 2, 3], address) == [1, 2, 3])
            relay.set(.slow(20_000))
            let start = ContinuousClock.now
            #expect(try await echo(bytes, address) == bytes)
            // 5000 bytes at 20 kB/s; on the way back they overlap.
            #expect(ContinuousClock.now - start >= .milliseconds(240))
            relay.set(.stalled)
            async let held = echo(bytes, address)
            try await Task.sleep(for: .milliseconds(100))
            relay.set(.healthy)
            #expect(try await held == bytes)
        }
    }
}

private final class EchoHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        context.writeAndFlush(data, promise: nil)
    }
}
