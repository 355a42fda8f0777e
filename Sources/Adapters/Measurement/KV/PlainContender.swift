import Foundation
import ServingTypes

/// Plain TCP with blocking calls of 1 MiB: nothing encrypted, nothing framed but a length.
struct PlainContender: KVContender {
    static let name = "tcp"

    var name: String { Self.name }
    var floor: KVFloorKind? { nil }

    func openReceiver(_ place: KVPlace) throws -> any KVReceivingEnd {
        try PlainReceiver(place.region)
    }

    func openSender(_ place: KVPlace, port: Int) throws -> any KVSendingEnd {
        try PlainSender(place.region, port: port)
    }
}

/// In front of each transfer, 16 bytes: where it begins, how long it is.
private struct PlainHeader {
    static let byteCount = 16

    let range: Range<Int>

    init(_ range: Range<Int>) { self.range = range }

    /// Nil if it is no range.
    init?(_ bytes: [UInt8]) {
        let start = Self.number(bytes[..<8])
        let count = Self.number(bytes[8...])
        let end = start.addingReportingOverflow(count)
        guard start >= 0, count > 0, !end.overflow else { return nil }
        range = start..<end.partialValue
    }

    var bytes: [UInt8] {
        [range.lowerBound, range.count].flatMap { number in
            (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
        }
    }

    private static func number(_ bytes: ArraySlice<UInt8>) -> Int {
        bytes.reversed().reduce(0) { $0 << 8 | Int($1) }
    }
}

private final class PlainSender: KVSendingEnd {
    private let region: TransferRegion
    private let socket: PlainSocket

    init(_ region: TransferRegion, port: Int) throws {
        self.region = region
        socket = try PlainSocket.connected(toPort: port)
    }

    func transfer(_ range: Range<Int>) throws -> Int {
        try socket.put(PlainHeader(range).bytes)
        try unsafe region.withBytes(range) { bytes in
            try unsafe socket.put(UnsafeRawBufferPointer(bytes))
        }
        guard try socket.take(1) != nil else { throw PlainSocket.ended }
        return range.count
    }

    func close() { socket.shutDown() }
}

private final class PlainReceiver: KVReceivingEnd {
    let port: Int
    private let listener: PlainSocket

    init(_ region: TransferRegion) throws {
        let listener = try PlainSocket.listening()
        self.listener = listener
        port = try listener.port
        let thread = Thread { try? Self.serve(listener, region) }
        thread.name = "plain receiver"
        thread.start()
    }

    /// Serves one connection after the other until the listener is shut down.
    private static func serve(_ listener: PlainSocket, _ region: TransferRegion) throws {
        while true {
            let connection = try listener.accepted()
            while let bytes = try? connection.take(PlainHeader.byteCount),
                let header = PlainHeader(bytes), region.contains(header.range),
                (try? unsafe region.withBytes(header.range, { try unsafe connection.fill($0) }))
                    == true
            {
                try? connection.put([1])
            }
            connection.shutDown()
        }
    }

    func close() { listener.shutDown() }
}

/// A blocking TCP socket on 127.0.0.1.
final class PlainSocket: Sendable {
    static let ended = MeasurementError.transferFailed("the receiver closed the connection")
    /// Bytes handed to the kernel at once.
    private static let callBytes = 1 << 20

    private let file: Int32

    private init(_ file: Int32) throws {
        guard file >= 0 else { throw Self.failure("socket") }
        self.file = file
        var yes: Int32 = 1
        unsafe setsockopt(
            file, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
        _ = fcntl(file, F_SETFD, FD_CLOEXEC)
    }

    deinit { Foundation.close(file) }

    private static func made() throws -> PlainSocket {
        #if canImport(Glibc)
            try PlainSocket(socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
        #else
            try PlainSocket(socket(AF_INET, SOCK_STREAM, 0))
        #endif
    }

    static func listening() throws -> PlainSocket {
        let socket = try made()
        let isListening = unsafe withLoopback(port: 0) { address, length in
            unsafe bind(socket.file, address, length) == 0 && listen(socket.file, 1) == 0
        }
        guard isListening else { throw failure("listen") }
        return socket
    }

    static func connected(toPort port: Int) throws -> PlainSocket {
        let socket = try made()
        try socket.setDeadline(KVMeasurementLimits.transferDeadline)
        let isConnected = unsafe withLoopback(port: port) { address, length in
            unsafe connect(socket.file, address, length) == 0
        }
        guard isConnected else { throw failure("connect") }
        return socket
    }

    func accepted() throws -> PlainSocket { try PlainSocket(accept(file, nil, nil)) }

    var port: Int {
        get throws {
            var address = sockaddr_in()
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let code = unsafe withUnsafeMutablePointer(to: &address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    unsafe getsockname(file, $0, &length)
                }
            }
            guard code == 0 else { throw Self.failure("getsockname") }
            return Int(UInt16(bigEndian: address.sin_port))
        }
    }

    func put(_ bytes: [UInt8]) throws {
        try unsafe bytes.withUnsafeBytes { try unsafe put($0) }
    }

    func put(_ bytes: UnsafeRawBufferPointer) throws {
        var start = 0
        while start < bytes.count {
            let end = min(start + Self.callBytes, bytes.count)
            let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[start..<end])
            let count = unsafe send(file, part.baseAddress, part.count, 0)
            guard count > 0 else {
                if count < 0, errno == EINTR { continue }
                throw Self.failure("send")
            }
            start += count
        }
    }

    /// Fills the whole buffer; false if the connection ended before its first byte.
    func fill(_ buffer: UnsafeMutableRawBufferPointer) throws -> Bool {
        var start = 0
        while start < buffer.count {
            let end = min(start + Self.callBytes, buffer.count)
            let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[start..<end])
            let count = unsafe recv(file, part.baseAddress, part.count, 0)
            guard count > 0 else {
                if count < 0, errno == EINTR { continue }
                if count == 0, start == 0 { return false }
                throw count == 0 ? Self.ended : Self.failure("recv")
            }
            start += count
        }
        return true
    }

    /// So many bytes; nil if the connection ended before the first.
    func take(_ count: Int) throws -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        return try unsafe bytes.withUnsafeMutableBytes { try unsafe fill($0) } ? bytes : nil
    }

    /// Wakes whoever waits on it.
    func shutDown() { _ = shutdown(file, Int32(SHUT_RDWR)) }

    /// A call that waits longer fails.
    private func setDeadline(_ deadline: Duration) throws {
        var time = timeval(tv_sec: Int(deadline.seconds), tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            let code = unsafe setsockopt(
                file, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
            guard code == 0 else { throw Self.failure("setsockopt") }
        }
    }

    private static func withLoopback<Result>(
        port: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    private static func failure(_ call: String) -> MeasurementError {
        .transferFailed("\(call): \(unsafe String(cString: strerror(errno)))")
    }
}
