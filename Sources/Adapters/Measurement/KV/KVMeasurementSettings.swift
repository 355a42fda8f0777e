/// Every bound of `benchmark kv`.
package enum KVMeasurementLimits {
    /// Range of sizes and of the memory on each side, in MiB; a frame carries at most 1 GiB.
    package static let mebibytes = 1...1024
    /// Transfers of the smallest size in a row.
    static let transfers = 64
    package static let rounds = 10_000
    /// One transfer, or one answer of the receiver.
    static let transferDeadline = Duration.seconds(120)
    /// How long a bulk connection may rest between two turns of its contender.
    static let restDeadline = Duration.seconds(24 * 3600)
    /// Memory files that wait for the next transfers of their size.
    static let keptMemoryBytes = 512 << 20
    /// How often a wait looks whether the benchmark was interrupted.
    static let interruptInterval = Duration.milliseconds(100)
    /// Longest line of another program, and all its lines together.
    static let outputBytes = 1 << 20
    /// Bytes of another program's last words that are shown.
    static let lastWordsBytes = 300
    /// Synthetic KV repeats after so many bytes; codecs look at 1 MiB at a time.
    static let patternBytes = 4 << 20
}

/// What `benchmark kv` measures.
package struct KVMeasurementSettings: Sendable {
    /// Where the bytes come from.
    package enum Source: Sendable {
        case synthetic
        /// KV of a prompt, computed by this model; repeated until the memory is full.
        case model(path: String, promptTokens: Int)
    }

    /// Sizes of one transfer in MiB.
    package var sizes: [Int]
    package var rounds: Int
    /// Memory on each side through which transfers rotate, in MiB; at least the largest size.
    package var regionMebibytes: Int
    /// Names out of `KVContenders.names`; the first of all is always measured.
    package var contenders: [String]
    package var peers: [KVPeer]
    /// One run of another program.
    package var peerDeadline: Duration
    package var source: Source
    /// Executable and arguments that call `runKVReceiver`.
    package var receiver: (executable: String, arguments: [String])

    package init(
        sizes: [Int], rounds: Int, regionMebibytes: Int, contenders: [String], peers: [KVPeer],
        peerDeadline: Duration, source: Source,
        receiver: (executable: String, arguments: [String])
    ) {
        self.sizes = sizes
        self.rounds = rounds
        self.regionMebibytes = regionMebibytes
        self.contenders = contenders
        self.peers = peers
        self.peerDeadline = peerDeadline
        self.source = source
        self.receiver = receiver
    }

    /// How many transfers of a size follow each other: some 100 MiB, at least two.
    package static func count(ofMebibytes size: Int) -> Int {
        let wanted = size <= 16 ? 128 / max(size, 1) : 256 / size
        return min(KVMeasurementLimits.transfers, max(2, wanted))
    }

    /// Sizes and counts as other programs are told: `1x64,16x8`.
    package var shapes: String {
        sizes.map { "\($0)x\(Self.count(ofMebibytes: $0))" }.joined(separator: ",")
    }

    var regionBytes: Int { regionMebibytes << 20 }
}
