/// Why a connection or a request was refused or ended, as it travels between processes.
package enum FailureCode: UInt8, Sendable, CaseIterable {
    /// Bytes or messages that the protocol does not allow; the connection is closed.
    case `protocol` = 1
    /// The peer speaks another protocol version; upgrade the older side.
    case version = 2
    /// The peer belongs to another cluster.
    case cluster = 3
    /// The peer's certificate does not allow this message or this connection.
    case role = 4
    /// The peer serves another model, model revision or KV layout.
    case model = 5
    /// All slots are taken; another worker is tried.
    case busy = 6
    /// The decode-worker has no room for the sequence's KV; another one is tried, then it waits.
    case noKVRoom = 7
    /// Prompt and output exceed the context; the client must shorten them.
    case tooLong = 8
    /// The worker finishes its work and takes no more; another one is tried.
    case draining = 9
    /// The time for this step is over; the gateway starts another attempt or gives up.
    case deadline = 10
    /// The receiver does not know the request, or its attempt is older than the current one.
    case unknownRequest = 11
    /// The KV did not arrive whole; the gateway starts another attempt.
    case transfer = 12
    /// The engine failed; the gateway starts another attempt.
    case engine = 13
    /// The client or the gateway ended the request.
    case cancelled = 14
    /// A value is out of range; nobody tries again.
    case invalid = 15
}
