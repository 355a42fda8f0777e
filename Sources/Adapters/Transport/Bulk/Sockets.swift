internal import FileBudget
internal import ServingTypes

#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// TCP sockets as the system gives them; all are non-blocking.
enum Sockets {
    /// OpenSSL writes with `write`, so a closed peer would end the process.
    static let ignoresBrokenPipes: Bool = {
        signal(SIGPIPE, SIG_IGN)
        return true
    }()

    static let filesAreScarce = "too few files are free; allow more open files (ulimit -n)"

    static func connect(
        to address: NetworkAddress, deadline: Deadline
    ) throws(TransportError) -> Int32 {
        guard !OpenFiles.areVeryScarce else {
            throw .connectFailed(address: address, problem: filesAreScarce)
        }
        var problem = "no address"
        for candidate in try resolve(address, isPassive: false) {
            do throws(SystemError) {
                return try connect(candidate, deadline)
            } catch {
                problem = error.text
            }
        }
        throw .connectFailed(address: address, problem: problem)
    }

    private static func connect(
        _ candidate: SocketAddress, _ deadline: Deadline
    ) throws(SystemError) -> Int32 {
        let file = try makeSocket(candidate)
        do throws(SystemError) {
            let code = unsafe candidate.withPointer { address, length in
                unsafe Platform.connect(file, address, length)
            }
            if code != 0 {
                guard errno == EINPROGRESS || errno == EINTR else { throw SystemError() }
                guard wait(file, Int16(POLLOUT), deadline) else { throw SystemError(ETIMEDOUT) }
                var fault: Int32 = 0
                var length = socklen_t(MemoryLayout<Int32>.size)
                unsafe getsockopt(file, SOL_SOCKET, SO_ERROR, &fault, &length)
                guard fault == 0 else { throw SystemError(fault) }
            }
            return file
        } catch {
            close(file)
            throw error
        }
    }

    static func listen(on address: NetworkAddress) throws(TransportError) -> Int32 {
        var problem = "no address"
        for candidate in try resolve(address, isPassive: true) {
            do throws(SystemError) {
                let file = try makeSocket(candidate)
                let isBound = unsafe candidate.withPointer { address, length in
                    unsafe bind(file, address, length)
                }
                if isBound == 0, Platform.listen(file, TransportLimits.acceptBacklog) == 0 {
                    return file
                }
                let error = SystemError()
                close(file)
                throw error
            } catch {
                problem = error.text
            }
        }
        throw .listenFailed(address: address, problem: problem)
    }

    /// The next connection; nil if none waits, or it is gone already.
    static func accept(_ listener: Int32) throws(SystemError) -> Int32? {
        let file = unsafe Platform.accept(listener, nil, nil)
        guard file >= 0 else {
            let transient = [EAGAIN, EWOULDBLOCK, EINTR, ECONNABORTED]
            guard transient.contains(errno) else { throw SystemError() }
            return nil
        }
        prepare(file)
        return file
    }

    /// Whether the events, or the connection's end, came before the deadline.
    static func wait(_ file: Int32, _ events: Int16, _ deadline: Deadline) -> Bool {
        while true {
            var entry = pollfd(fd: file, events: events, revents: 0)
            let code = unsafe poll(&entry, 1, deadline.milliseconds)
            if code > 0 { return true }
            if code == 0, deadline.hasPassed { return false }
            if code < 0, errno != EINTR { return false }
        }
    }

    /// Waits without end for a connection, or for anything on `alarm`.
    static func waitForConnection(_ listener: Int32, alarm: Int32) {
        let entries = [listener, alarm].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        var waiting = entries
        while unsafe poll(&waiting, nfds_t(waiting.count), -1) < 0, errno == EINTR {
            waiting = entries
        }
    }

    /// Two ends of a pipe: what is written into the second can be read from the first.
    static func makeAlarm() throws(SystemError) -> (bell: Int32, button: Int32) {
        var files: [Int32] = [-1, -1]
        guard unsafe pipe(&files) == 0 else { throw SystemError() }
        for file in files { _ = fcntl(file, F_SETFD, FD_CLOEXEC) }
        return (files[0], files[1])
    }

    /// Address and port of this or the other end; nil if the socket is gone.
    static func address(of file: Int32, isPeer: Bool) -> NetworkAddress? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let code = unsafe withUnsafeMutablePointer(to: &storage) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe isPeer
                    ? getpeername(file, address, &length) : getsockname(file, address, &length)
            }
        }
        guard code == 0 else { return nil }
        return SocketAddress(storage: storage, length: length, family: 0).networkAddress
    }

    private static func makeSocket(_ address: SocketAddress) throws(SystemError) -> Int32 {
        let file = socket(address.family, Platform.streamSocket, 0)
        guard file >= 0 else { throw SystemError() }
        prepare(file)
        var yes: Int32 = 1
        unsafe setsockopt(
            file, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        return file
    }

    private static func prepare(_ file: Int32) {
        _ = fcntl(file, F_SETFL, fcntl(file, F_GETFL) | O_NONBLOCK)
        _ = fcntl(file, F_SETFD, FD_CLOEXEC)
        var yes: Int32 = 1
        let size = socklen_t(MemoryLayout<Int32>.size)
        unsafe setsockopt(file, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, size)
        unsafe setsockopt(file, SOL_SOCKET, SO_KEEPALIVE, &yes, size)
        #if canImport(Glibc)
            var idle = TransportLimits.keepAliveIdleSeconds
            var interval = TransportLimits.keepAliveIntervalSeconds
            var probes = TransportLimits.keepAliveProbes
            unsafe setsockopt(file, Int32(IPPROTO_TCP), TCP_KEEPIDLE, &idle, size)
            unsafe setsockopt(file, Int32(IPPROTO_TCP), TCP_KEEPINTVL, &interval, size)
            unsafe setsockopt(file, Int32(IPPROTO_TCP), TCP_KEEPCNT, &probes, size)
        #endif
    }

    private static func resolve(
        _ address: NetworkAddress, isPassive: Bool
    ) throws(TransportError) -> [SocketAddress] {
        var hints = unsafe addrinfo()
        unsafe hints.ai_socktype = Platform.streamSocket
        if isPassive { unsafe hints.ai_flags = AI_PASSIVE }
        var list: UnsafeMutablePointer<addrinfo>?
        let code = unsafe getaddrinfo(address.host, "\(address.port)", &hints, &list)
        guard code == 0 else {
            let problem = unsafe String(cString: gai_strerror(code))
            if isPassive { throw .listenFailed(address: address, problem: problem) }
            throw .connectFailed(address: address, problem: problem)
        }
        defer { unsafe freeaddrinfo(list) }
        var found: [SocketAddress] = []
        var entry = unsafe list
        while let current = unsafe entry {
            if let address = unsafe SocketAddress(current.pointee) { found.append(address) }
            unsafe entry = current.pointee.ai_next
        }
        return found
    }
}

/// What a system call reported.
struct SystemError: Error {
    let code: Int32

    init(_ code: Int32 = errno) { self.code = code }

    var text: String { Platform.errorText(code) }
}

/// A socket address of either family.
private struct SocketAddress {
    private var storage: sockaddr_storage
    private let length: socklen_t
    let family: Int32

    init(storage: sockaddr_storage, length: socklen_t, family: Int32) {
        self.storage = storage
        self.length = length
        self.family = family
    }

    init?(_ info: addrinfo) {
        let size = unsafe Int(info.ai_addrlen)
        guard let address = unsafe info.ai_addr, size <= MemoryLayout<sockaddr_storage>.size else {
            return nil
        }
        storage = sockaddr_storage()
        unsafe withUnsafeMutableBytes(of: &storage) { bytes in
            unsafe bytes.copyMemory(from: UnsafeRawBufferPointer(start: address, count: size))
        }
        length = unsafe info.ai_addrlen
        family = unsafe info.ai_family
    }

    func withPointer<Result>(
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        unsafe withUnsafePointer(to: storage) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe body(address, length)
            }
        }
    }

    var networkAddress: NetworkAddress? {
        var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        var port = [CChar](repeating: 0, count: Int(NI_MAXSERV))
        let code = unsafe withPointer { address, length in
            unsafe getnameinfo(
                address, length, &host, socklen_t(host.count), &port, socklen_t(port.count),
                NI_NUMERICHOST | NI_NUMERICSERV)
        }
        guard code == 0, let number = Int(Platform.text(port)) else { return nil }
        return NetworkAddress(host: Platform.text(host), port: number)
    }
}
