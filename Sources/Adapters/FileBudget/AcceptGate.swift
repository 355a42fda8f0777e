package import NIOCore

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// Lets a listening channel accept only while files are free, and pause after `accept` failed.
///
/// Connections wait in the kernel meanwhile. It belongs next to the socket, before all other
/// handlers of the server channel.
package final class AcceptGate: ChannelDuplexHandler {
    package typealias InboundIn = any Channel
    package typealias OutboundIn = Never

    /// Connections the kernel may not have got to us are waited for; anything else ends the server.
    private static let passing: Set<Int32> = [EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED]

    private let shortage: FileShortage
    private var retry: Scheduled<Void>?
    /// After a failure the socket is not even polled: it would be ready all the time.
    private var hasStopped = false

    package init(_ shortage: FileShortage) { self.shortage = shortage }

    package func read(context: ChannelHandlerContext) {
        guard retry == nil else { return }
        guard !shortage.checks() else { return later(context) }
        context.read()
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? IOError, Self.passing.contains(error.errnoCode) else {
            context.fireErrorCaught(error)
            return
        }
        guard error.errnoCode != ECONNABORTED else { return }
        shortage.occurred("\(error)")
        hasStopped = true
        // NIO still has its read pending, so it would poll and fail without end.
        try? context.channel.syncOptions?.setOption(.autoRead, value: false)
        if retry == nil { later(context) }
    }

    package func channelInactive(context: ChannelHandlerContext) {
        retry?.cancel()
        retry = nil
        context.fireChannelInactive()
    }

    private func later(_ context: ChannelHandlerContext) {
        retry = context.eventLoop.assumeIsolated().scheduleTask(
            in: .nanoseconds(
                Int64(FileShortage.pause / .nanoseconds(1)))
        ) { self.lookAgain(context) }
    }

    private func lookAgain(_ context: ChannelHandlerContext) {
        retry = nil
        guard context.channel.isActive else { return }
        guard !shortage.goesOn else { return later(context) }
        guard hasStopped else { return read(context: context) }
        hasStopped = false
        try? context.channel.syncOptions?.setOption(.autoRead, value: true)
    }
}
