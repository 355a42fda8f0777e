#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// System calls whose names Swift members hide, and what differs between systems.
enum Platform {
    #if canImport(Glibc)
        static let streamSocket = Int32(SOCK_STREAM.rawValue)
    #else
        static let streamSocket = SOCK_STREAM
    #endif

    static func read(_ file: Int32, _ buffer: UnsafeMutableRawBufferPointer) -> Int {
        #if canImport(Glibc)
            unsafe Glibc.read(file, buffer.baseAddress, buffer.count)
        #else
            unsafe Darwin.read(file, buffer.baseAddress, buffer.count)
        #endif
    }

    /// Fills the first region, then the second.
    static func read(
        _ file: Int32, _ first: UnsafeMutableRawBufferPointer,
        _ second: UnsafeMutableRawBufferPointer
    ) -> Int {
        var regions = unsafe (
            iovec(iov_base: first.baseAddress, iov_len: first.count),
            iovec(iov_base: second.baseAddress, iov_len: second.count)
        )
        return unsafe withUnsafeBytes(of: &regions) { bytes in
            unsafe readv(file, bytes.assumingMemoryBound(to: iovec.self).baseAddress, 2)
        }
    }

    static func write(_ file: Int32, _ buffer: UnsafeRawBufferPointer) -> Int {
        #if canImport(Glibc)
            unsafe Glibc.write(file, buffer.baseAddress, buffer.count)
        #else
            unsafe Darwin.write(file, buffer.baseAddress, buffer.count)
        #endif
    }

    static func connect(
        _ file: Int32, _ address: UnsafePointer<sockaddr>, _ length: socklen_t
    ) -> Int32 {
        #if canImport(Glibc)
            unsafe Glibc.connect(file, address, length)
        #else
            unsafe Darwin.connect(file, address, length)
        #endif
    }

    static func listen(_ file: Int32, _ backlog: Int32) -> Int32 {
        #if canImport(Glibc)
            Glibc.listen(file, backlog)
        #else
            Darwin.listen(file, backlog)
        #endif
    }

    static func accept(
        _ file: Int32, _ address: UnsafeMutablePointer<sockaddr>?,
        _ length: UnsafeMutablePointer<socklen_t>?
    ) -> Int32 {
        #if canImport(Glibc)
            unsafe Glibc.accept(file, address, length)
        #else
            unsafe Darwin.accept(file, address, length)
        #endif
    }

    static func shutdown(_ file: Int32, _ direction: Direction) {
        #if canImport(Glibc)
            _ = Glibc.shutdown(file, Int32(direction == .both ? SHUT_RDWR : SHUT_WR))
        #else
            _ = Darwin.shutdown(file, direction == .both ? SHUT_RDWR : SHUT_WR)
        #endif
    }

    enum Direction { case sending, both }

    static func errorText(_ code: Int32) -> String { unsafe String(cString: strerror(code)) }

    /// The text before the first NUL.
    static func text(_ characters: [CChar]) -> String {
        String(
            decoding: characters.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}
