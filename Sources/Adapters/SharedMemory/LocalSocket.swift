import CSharedMemory

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// When waiting ends.
struct Deadline {
    private let end: ContinuousClock.Instant

    init(after duration: Duration) { end = .now + duration }

    var left: Duration { max(.zero, ContinuousClock.now.duration(to: end)) }
    var hasPassed: Bool { end <= .now }

    /// For `poll`; rounded up, so that waiting ends after the deadline and not before.
    var milliseconds: Int32 {
        let left = left
        return left > .zero ? Int32(clamping: left.nanoseconds / 1_000_000 + 1) : 0
    }
}

extension Duration {
    /// The largest number if they are more.
    var nanoseconds: Int {
        let (seconds, attoseconds) = components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, overflowed) = product.addingReportingOverflow(attoseconds / 1_000_000_000)
        return overflow || overflowed ? .max : Int(clamping: sum)
    }
}

/// Calls on unix sockets; all sockets are non-blocking.
enum LocalSocket {
    /// Whether there is something to read or room to write, or the connection's end, in time.
    static func wait(_ file: Int32, _ events: Int32, _ deadline: Deadline) -> Bool {
        while true {
            var entry = pollfd(fd: file, events: Int16(events), revents: 0)
            let code = unsafe poll(&entry, 1, deadline.milliseconds)
            if code > 0 { return true }
            if code == 0, deadline.hasPassed { return false }
            if code < 0, errno != EINTR { return false }
        }
    }

    /// Waits for nothing but time.
    static func pause(_ duration: Duration) {
        _ = poll(nil, 0, Deadline(after: duration).milliseconds)
    }

    /// Throws unless the other process belongs to this process's user.
    static func checkUser(of file: Int32) throws(LocalTransferError) {
        var user: UInt32 = 0
        let code = unsafe local_socket_user(file, &user)
        guard code == 0 else { throw .connectionLost(text(-code)) }
        guard user == geteuid() else { throw .foreignUser(user) }
    }

    static func text(_ code: Int32) -> String { unsafe String(cString: strerror(code)) }
}
