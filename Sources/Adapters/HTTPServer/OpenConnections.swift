import NIOCore
import Synchronization

/// The open connections of an endpoint.
final class OpenConnections: Sendable {
    enum Admission { case served, refused, dropped }

    /// Connections that are served.
    let limit: Int
    private let refusedLimit: Int
    private let open = Mutex<[ObjectIdentifier: any Channel]>([:])
    private let bodyBytes = Atomic<Int>(0)

    /// - Parameter refused: connections beyond those that are served that get an answer.
    init(limit: Int, refused: Int) {
        self.limit = limit
        refusedLimit = refused
    }

    var count: Int { open.withLock { $0.count } }

    /// Adds to the bytes of all bodies, or gives them back; how many there are then.
    func holdsBody(_ bytes: Int) -> Int { bodyBytes.add(bytes, ordering: .relaxed).newValue }

    /// Takes a connection in until its channel closes.
    func add(_ channel: any Channel) -> Admission {
        let id = ObjectIdentifier(channel)
        let admission: Admission = open.withLock { open in
            guard open.count < limit + refusedLimit else { return .dropped }
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
