import FileBudget
package import ServiceRuntime

/// Bounds of one HTTP endpoint: of each size, number and wait that a client can influence.
package struct HTTPLimits: Hashable, Sendable {
    /// Bytes of a request's body; beyond is answered with 413.
    package var bodyBytes = 16 << 20
    /// Bytes of all bodies together that are here, until they are answered; beyond is answered
    /// with 503.
    package var allBodyBytes = 512 << 20
    /// Bytes of a request's head; beyond is answered with 400.
    package var headBytes = 32 << 10
    /// Fields of a request's head.
    package var headFields = 128
    /// From the opening of a connection until the first request's head is there.
    package var headTime = Duration.seconds(10)
    /// From the head until the body is there.
    package var bodyTime = Duration.seconds(60)
    /// Between two requests of a connection, the second one's head included.
    package var idleTime = Duration.seconds(75)
    /// How long a client may take less than `unwrittenBytes` of an answer that waits for it.
    package var stallTime = Duration.seconds(30)
    /// Connections at once; further ones are answered with 503.
    package var connections = 2048
    /// Bytes of an answer that the kernel takes for a client that does not read; it keeps books of
    /// twice as many.
    package var kernelBytes = 256 << 10
    /// Running answers may take so long when the endpoint shuts down.
    package var drainTime = Duration.seconds(30)

    /// Connections beyond `connections` that get an answer; further ones are closed unanswered.
    static let refusedConnections = 256
    /// Bytes of an answer that wait here for the kernel to take them; whoever makes the answer
    /// waits until half of them are gone.
    package static let unwrittenBytes = 64 << 10
    /// How long a refused client may go on sending, and how much of it is read.
    static let lingerTime = Duration.seconds(1)
    static let lingerBytes = 256 << 10
    static let retryAfterSeconds = 1
    /// Room made for a body before it comes.
    static let announcedBytes = 64 << 10
    /// Connections that wait to be accepted.
    static let backlog = 1024

    package init() {}

    /// Declares the settings that an operator may want to change.
    package init(_ reader: inout SettingsReader) throws(SettingsError) {
        bodyBytes = try reader.bytes(
            "http-body-limit", default: bodyBytes, in: 1024...(1 << 30),
            "Largest body of a request.")
        allBodyBytes = try reader.bytes(
            "http-bodies-limit", default: allBodyBytes, in: 1024...(1 << 40),
            "Bytes of all requests' bodies at once; further ones get 503.")
        connections = try reader.integer(
            "http-connections", default: connections, in: 1...1_000_000,
            "Client connections at once; further ones get 503.")
        headTime = try reader.duration(
            "http-head-limit", default: headTime, in: .milliseconds(10) ... .seconds(600),
            "Time a new connection has to send its first request's head.")
        bodyTime = try reader.duration(
            "http-body-time-limit", default: bodyTime, in: .milliseconds(10) ... .seconds(3600),
            "Time a client has to send a request's body.")
        idleTime = try reader.duration(
            "http-idle-limit", default: idleTime, in: .milliseconds(10) ... .seconds(3600),
            "Time a connection may wait for its next request.")
        kernelBytes = try reader.bytes(
            "http-send-buffer", default: kernelBytes, in: (4 << 10)...(64 << 20),
            "Bytes of an answer that the kernel takes for a client that does not read.")
        stallTime = try reader.duration(
            "http-stall-limit", default: stallTime, in: .milliseconds(10) ... .seconds(3600),
            "Time a client may take next to nothing of an answer that waits for it; then it is cut "
                + "off.")
    }
}

extension HTTPLimits {
    /// Connections that are served and, beyond them, refused with an answer, if a process may have
    /// so many connections of all kinds: a quarter is left for its other ones.
    func connections(ofFiles files: Int) -> (served: Int, refused: Int) {
        let room = files / 4 * 3 + files % 4 * 3 / 4
        let refused = min(Self.refusedConnections, max(1, room / 8))
        return (min(connections, max(1, room - refused)), refused)
    }
}
