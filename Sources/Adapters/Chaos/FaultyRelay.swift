import NIOCore
import NIOPosix
package import ServingTypes
import Synchronization

/// Passes TCP connections on to one address, as well or badly as it is told.
///
/// What goes wrong here is what a network does: connections are cut or refused, bytes stand still,
/// come slowly, or come damaged.
package final class FaultyRelay: Sendable {
    /// How bytes are passed on.
    package enum Condition: Hashable, Sendable {
        case healthy
        /// Connections are closed, and new ones closed at once.
        case cut
        /// Nothing passes; connections stay open.
        case stalled
        /// Bytes per second and direction of each connection.
        case slow(Int)
        /// Each piece is passed on so much later.
        case late(Duration)
        /// Every piece of at least so many bytes has one bit turned, another one each time.
        case corrupt(minimumBytes: Int)
    }

    private struct State {
        var condition = Condition.healthy
        var channels: [ObjectIdentifier: any Channel] = [:]
        var damagedPieces = 0
    }

    /// Time to connect to the target.
    private static let connectDeadline = TimeAmount.seconds(5)
    /// Time between two looks whether bytes may pass again.
    private static let stallInterval = Duration.milliseconds(10)

    package let target: NetworkAddress
    private let state = Mutex(State())

    package init(to target: NetworkAddress) { self.target = target }

    package var condition: Condition { state.withLock { $0.condition } }

    /// Pieces that were damaged so far.
    package var damagedPieces: Int { state.withLock { $0.damagedPieces } }

    package func set(_ condition: Condition) {
        let channels = state.withLock { state in
            state.condition = condition
            return condition == .cut ? Array(state.channels.values) : []
        }
        for channel in channels { channel.close(promise: nil) }
    }

    /// Relays until it is cancelled.
    ///
    /// - Throws: if the address can't be bound.
    package func run(at address: NetworkAddress) async throws {
        let server = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            // Nothing is read before somebody takes the connection.
            .childChannelOption(.autoRead, value: false)
            .bind(host: address.host, port: address.port) { channel in
                channel.eventLoop.makeSucceededFuture(Accepted(channel: channel))
            }
        try await withThrowingDiscardingTaskGroup { group in
            try await server.executeThenClose { connections in
                for try await accepted in connections {
                    group.addTask { await self.relay(accepted.channel) }
                }
            }
        }
    }

    /// A connection that may be dropped: one that is wrapped already may not.
    private struct Accepted: Sendable {
        let channel: any Channel
    }

    private typealias Connection = NIOAsyncChannel<ByteBuffer, ByteBuffer>

    /// An end of one side ends the connection: a network's faults are not its user's to see.
    private func relay(_ accepted: any Channel) async {
        do {
            let near = try await accepted.eventLoop.submit {
                let connection = try Connection(wrappingChannelSynchronously: accepted)
                try accepted.syncOptions?.setOption(.autoRead, value: true)
                return connection
            }.get()
            try await near.executeThenClose { nearInbound, nearOutbound in
                guard add(near.channel) else { return }
                defer { remove(near.channel) }
                let far = try await connect()
                try await far.executeThenClose { farInbound, farOutbound in
                    guard add(far.channel) else { return }
                    defer { remove(far.channel) }
                    try await withThrowingTaskGroup(of: Void.self) { group in
                        group.addTask { try await self.pass(nearInbound, to: farOutbound) }
                        group.addTask { try await self.pass(farInbound, to: nearOutbound) }
                        try await group.next()
                        group.cancelAll()
                    }
                }
            }
        } catch {
            // Either end went away; the other is closed with it.
        }
    }

    private func connect() async throws -> Connection {
        try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .connectTimeout(Self.connectDeadline)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .connect(host: target.host, port: target.port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try Connection(wrappingChannelSynchronously: channel)
                }
            }
    }

    private func pass(
        _ inbound: NIOAsyncChannelInboundStream<ByteBuffer>,
        to outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    ) async throws {
        for try await piece in inbound {
            var piece = piece
            while condition == .stalled { try await Task.sleep(for: Self.stallInterval) }
            switch condition {
            case .slow(let bytesPerSecond):
                let seconds = Double(piece.readableBytes) / Double(max(1, bytesPerSecond))
                try await Task.sleep(for: .seconds(seconds))
            case .late(let delay): try await Task.sleep(for: delay)
            case .corrupt(let minimumBytes) where piece.readableBytes >= minimumBytes:
                damage(&piece)
            case .healthy, .cut, .stalled, .corrupt: break
            }
            try await outbound.write(piece)
        }
    }

    /// Turns one bit in the middle.
    private func damage(_ piece: inout ByteBuffer) {
        let index = piece.readerIndex + piece.readableBytes / 2
        guard let byte = piece.getInteger(at: index, as: UInt8.self) else { return }
        let bit = state.withLock { state in
            state.damagedPieces += 1
            return state.damagedPieces % 8
        }
        piece.setInteger(byte ^ 1 << UInt8(bit), at: index)
    }

    private func add(_ channel: any Channel) -> Bool {
        state.withLock { state in
            guard state.condition != .cut else { return false }
            state.channels[ObjectIdentifier(channel)] = channel
            return true
        }
    }

    private func remove(_ channel: any Channel) {
        _ = state.withLock { $0.channels.removeValue(forKey: ObjectIdentifier(channel)) }
    }
}
