package import ServingTypes

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Ports of the loopback interface for processes that must know them before they listen.
package enum FreePort {
    /// A port that nobody listens on; the system does not give it out again soon.
    package static func take() throws(LocalClusterError) -> NetworkAddress {
        #if canImport(Glibc)
            let stream = Int32(SOCK_STREAM.rawValue)
        #else
            let stream = SOCK_STREAM
        #endif
        let file = socket(AF_INET, stream, 0)
        defer { close(file) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe bind(file, address, length) == 0
                    && getsockname(file, address, &length) == 0
            }
        }
        guard file >= 0, isBound else { throw .noPort(code: errno) }
        return NetworkAddress(host: "127.0.0.1", port: Int(UInt16(bigEndian: address.sin_port)))
    }
}
