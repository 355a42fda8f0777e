/// Every bound of this module.
package enum TransportLimits {
    // Connections.

    /// Time for TLS and `Hello` together once a listener has begun with them; on the side that
    /// connects, for TCP and for each wait after the peer's first answer.
    package static let handshake = Duration.seconds(5)
    /// Time for which a connection waits for its handshake to begin: ten thousand that come at once
    /// take a busy processor most of it.
    package static let handshakeWait = Duration.seconds(120)
    /// Time a peer has for its first bytes; until then it costs a listener nothing but a file.
    static let firstBytes = Duration.seconds(15)
    /// A deadline that this process itself reaches so late is given once more: what the peer sent
    /// meanwhile is still unread.
    static let ownDelay = Duration.milliseconds(500)
    /// Handshakes that a control listener has in progress.
    ///
    /// Enough to keep the processors busy over a slow network, and so few that each ends long
    /// before its deadline.
    package static let handshakes = 128
    /// Connections that wait for their handshake; more are closed at once.
    static let handshakesWaiting = 16_384
    /// Bytes taken from a peer whose handshake has not begun; longer than any `ClientHello`.
    static let bytesBeforePlace = 16 << 10
    /// A control connection without any inbound frame for this long is closed; peers beat every
    /// second.
    package static let idle = Duration.seconds(30)
    /// The same for a peer that another may follow: one that hangs is left sooner then.
    ///
    /// Also the time its handshake may wait.
    static let idleOfSeveral = Duration.seconds(10)
    /// After this long a silent one of them is asked for a sign of life.
    static let silenceAsked = Duration.seconds(1)
    /// After this long the others are tried beside it.
    static let silenceDoubted = Duration.seconds(2)
    /// Between two looks whether such a peer is silent.
    static let silenceLook = Duration.milliseconds(250)
    /// How long a closing side waits for the peer to have read everything.
    package static let closeLinger = Duration.milliseconds(500)
    /// Open connections of one control listener; more are closed at once.
    package static let controlConnections = 4096
    /// Open connections, and so threads, of one bulk listener; more are closed at once.
    package static let bulkConnections = 256
    /// Connections the kernel holds for a listener that has not accepted them yet.
    ///
    /// After a start of the scheduler all services of a large cluster connect at once.
    static let acceptBacklog: Int32 = 4096

    // A bulk connection that rests may have lost its peer without a word: the system asks after
    // 30 s, and ends the connection 30 s later.

    static let keepAliveIdleSeconds: Int32 = 30
    static let keepAliveIntervalSeconds: Int32 = 10
    static let keepAliveProbes: Int32 = 3

    // Reconnection.

    /// A first connection is made after a part of this, by chance: those that are started together
    /// don't connect together.
    package static let firstConnectionSpread = Duration.milliseconds(200)
    package static let firstBackoff = Duration.milliseconds(100)
    /// Each pause is so many times as long as the one before.
    static let backoffGrowth = 2
    /// Part of a pause that is left out, at most, by chance.
    static let backoffJitter = 0.75
    package static let longestBackoff = Duration.seconds(5)
    /// The same for each of several addresses: who takes over is found soon, and an address where
    /// nobody listens refuses at little cost.
    static let longestBackoffOfSeveral = Duration.milliseconds(500)
    /// Pause after a refusal that only an operator can mend.
    package static let permanentRefusalBackoff = Duration.seconds(30)
    /// A session that held this long makes the next pause short again.
    static let steadySession = Duration.seconds(5)

    // Bytes.

    /// Bytes a control session holds for a peer that does not read; above it the session ends.
    package static let waitingBytes = 16 << 20
    /// Frames a control session holds for a caller that does not read; then the socket waits.
    static let waitingFrames = 16
    /// Plaintext encrypted in one go; with record overhead it stays below 64 KiB, which malloc
    /// serves from its heap.
    static let sealedChunkBytes = 48 << 10
    /// Plaintext taken out of OpenSSL in one go: one TLS record.
    static let openedChunkBytes = 16 << 10
    /// Plaintext a TLS handler holds before its handshake has ended.
    static let bytesBeforeHandshake = 1 << 20
    /// TLS records sent under one key: 64 GiB of full ones, a sixth of AES-GCM's limit
    /// (RFC 8446, 5.5).
    static let recordsPerKey = 1 << 22
    /// What is sealed and sent, or received and opened, of a longer record at a time.
    ///
    /// Both sides work at once then. A multiple of the cipher's block.
    static let sealedPartBytes = 64 << 10
    /// Longest plaintext of a sealed record.
    static let sealedRecordBytes = 256 << 10
    /// Sealed records under one key: 64 GiB of the longest ones, far below AES-GCM's limits.
    static let sealedRecordsPerKey: UInt64 = 1 << 18
    /// Sealed records shorter than this are collected until a longer one or the frame's end.
    static let gatheredBytes = 4 << 10
    /// Sealed records shorter than this never go straight into the caller's memory.
    static let directBytes = 4 << 10
    /// Bytes of following records that are read together with a record's end.
    static let sealedReadAheadBytes = 4 << 10
    /// Longest PEM file read.
    static let certificateFileBytes = 1 << 20
    /// Longest `issued.pem` read: more than 60,000 certificates.
    static let issuedFileBytes = 64 << 20
    /// Bytes of a certificate's subject that are shown.
    static let subjectBytes = 256

    // Certificates that change, end or are revoked.

    /// Between two looks at the certificate files and at the peers' certificates of open
    /// connections.
    package static let certificateInterval = Duration.seconds(3)
    /// A certificate with less time left is warned of, if that is not the most of its life.
    static let certificateWarning = Duration.seconds(14 * 86_400)
    /// A certificate of a short life is warned of in this part of it, the last one.
    static let certificateWarningPart = 5
    /// Between two warnings of the same kind.
    static let certificateWarningInterval = Duration.seconds(86_400)

    // Refused peers.

    /// Lines in the log about peers refused for one reason, within `refusalWindow`.
    static let refusalLines = 5
    static let refusalWindow = Duration.seconds(10)

    /// Names in one certificate that are looked at.
    static let certificateNames = 64
}
