internal import ServingTypes
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// An open TCP socket; any thread may shut it down while others wait on it.
final class StreamSocket: Sendable {
    let file: Int32
    let remoteAddress: NetworkAddress?
    /// Whether both ends are on this host.
    let isSameHost: Bool
    private let hasShutDown = Atomic(false)
    private let reason = Mutex(TransportError.shutDown)
    private let writeWait = Atomic<Int64>(0)

    /// Takes over a non-blocking socket.
    init(file: Int32) {
        _ = Sockets.ignoresBrokenPipes
        self.file = file
        remoteAddress = Sockets.address(of: file, isPeer: true)
        let local = Sockets.address(of: file, isPeer: false)
        isSameHost = remoteAddress.map { $0.isLoopback || $0.host == local?.host } ?? false
    }

    deinit { close(file) }

    /// Time so far in which the socket took nothing although there was something to send.
    var timeWaitingToWrite: Duration { .nanoseconds(writeWait.load(ordering: .relaxed)) }

    var isShutDown: Bool { hasShutDown.load(ordering: .acquiring) }

    /// Ends the connection at once; threads that wait on it throw the reason within milliseconds.
    func shutdown(_ error: TransportError = .shutDown) {
        if !isShutDown { reason.withLock { $0 = error } }
        hasShutDown.store(true, ordering: .releasing)
        Platform.shutdown(file, .both)
    }

    func checkOpen() throws(TransportError) {
        if isShutDown { throw reason.withLock { $0 } }
    }

    /// Waits for the events of `poll` or the connection's end.
    func wait(_ events: Int32, _ deadline: Deadline) throws(TransportError) {
        let start = ContinuousClock.now
        let isReady = Sockets.wait(file, Int16(events), deadline)
        if events == POLLOUT {
            writeWait.add((ContinuousClock.now - start).nanoseconds, ordering: .relaxed)
        }
        try checkOpen()
        guard isReady else { throw .deadline }
    }

    /// Waits for bytes and puts them into the first region; what is more goes into the second.
    ///
    /// - Returns: bytes read into both; 0 if the peer sends no more.
    func read(
        into first: UnsafeMutableRawBufferPointer, then second: UnsafeMutableRawBufferPointer,
        _ deadline: Deadline
    ) throws(TransportError) -> Int {
        while true {
            let count = unsafe Platform.read(file, first, second)
            let code = errno
            try checkOpen()
            if count >= 0 { return count }
            switch code {
            case EINTR: continue
            case EAGAIN: try wait(POLLIN, deadline)
            default: throw .connectionLost(Platform.errorText(code))
            }
        }
    }

    /// Writes all of the bytes.
    func write(_ bytes: UnsafeRawBufferPointer, _ deadline: Deadline) throws(TransportError) {
        var written = 0
        while written < bytes.count {
            let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[written...])
            let count = unsafe Platform.write(file, rest)
            let code = errno
            try checkOpen()
            if count >= 0 {
                written += count
                continue
            }
            switch code {
            case EINTR: continue
            case EAGAIN: try wait(POLLOUT, deadline)
            default: throw .connectionLost(Platform.errorText(code))
            }
        }
    }

    /// Says that nothing follows and waits until the peer has closed, too.
    ///
    /// Closing with bytes unread would make the kernel throw away what the peer has not read yet.
    func finish(_ deadline: Deadline) {
        Platform.shutdown(file, .sending)
        unsafe withUnsafeTemporaryAllocation(byteCount: 16 << 10, alignment: 16) { scrap in
            while !deadline.hasPassed, Sockets.wait(file, Int16(POLLIN), deadline) {
                let count = unsafe Platform.read(file, scrap)
                if count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR) { return }
            }
        }
    }
}
