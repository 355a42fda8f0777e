/// Every bound of KV transfers between workers.
package enum WorkerTransferLimits {
    /// Time to connect and shake hands with a decode-worker.
    package static let connectDeadline: Duration = .seconds(5)
    /// Time a decode-worker may take to answer an offer or the end of a transfer.
    package static let answerDeadline: Duration = .seconds(10)
    /// Time one chunk may take on the wire.
    package static let chunkDeadline: Duration = .seconds(60)
    /// A connection that carried nothing for this long is closed.
    package static let idleDeadline: Duration = .seconds(300)
    /// Decode-workers one prefill-worker keeps connections to.
    package static let maximumDestinations = 256
    /// Bytes of freed KV buffers kept for reuse.
    package static let pooledBufferBytes = 512 << 20
}
