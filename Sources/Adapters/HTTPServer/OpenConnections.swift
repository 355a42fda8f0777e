import NIOCore
import Synchronization

/// The open connections of an endpoint.
final class OpenConnections: Sendable {
    enum Admission { case served, refused, dropped }

    private let limit: Int
    private let open = Mutex<[ObjectIdentifier: any Channel]>([:])

    init(limit: Int) { self.limit = limit }

    var count: Int { open.withLock { $0.count } }

    /// Takes a connection in until its channel closes.
    func add(_ channel: any Channel) -> Admission {
        let id = ObjectIdentifier(channel)
        let admission: Admission = open.withLock { open in
            guard open.count < limit + HTTPLimits.refusedConnections else { return .dropped }
            open[id] = channel
            return open.count <= limit ? .served : .refused
        }
        if admission != .dropped {
            channel.closeFuture.whenComplete { _ in self.open.withLock { $0[id] = nil } }
        }
        return admission
    }

    func closeAll() {
        for channel in open.withLock({ Array($0.values) }) { channel.close(promise: nil) }
    }
}
