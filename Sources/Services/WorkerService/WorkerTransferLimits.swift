/// Every bound of KV transfers between workers that is not a decision (`KVHandOverLimits`).
package enum WorkerTransferLimits {
    /// Time to connect and shake hands with a decode-worker.
    package static let connectDeadline: Duration = .seconds(5)
    /// Time an answer may take to leave.
    package static let answerDeadline: Duration = .seconds(10)
    /// Time a chunk may take on the wire; one that stands still is given up much earlier
    /// (`KVHandOverLimits.stallDeadline`).
    package static let chunkDeadline: Duration = .seconds(600)
    /// How often a waiting thread looks whether it still is wanted; a rest between frames is no
    /// fault.
    package static let hearingInterval: Duration = .seconds(60)
    /// Time to find out whether a decode-worker takes memory of this host.
    package static let localConnectDeadline: Duration = .seconds(1)
    /// Time the memory of an announced chunk may take.
    package static let localReceiveDeadline: Duration = .seconds(2)
    /// Decode-workers one prefill-worker keeps connections to.
    package static let maximumDestinations = 256
    /// Bytes of freed KV buffers kept for reuse.
    package static let pooledBufferBytes = 512 << 20
}
