internal import COpenSSL

/// A protocol above TLS, chosen in the handshake (ALPN, RFC 7301).
///
/// The choice is part of what both sides' Finished messages cover, so nobody between them can
/// change it unnoticed.
enum ApplicationProtocol: String {
    case http1 = "http/1.1"
    case sealedRecords = "pdserve-kv-sealed/1"
    case tlsRecords = "pdserve-kv-tls/1"

    /// A list as it is sent: each name behind its length.
    static func list(_ protocols: [ApplicationProtocol]) -> [UInt8] {
        protocols.flatMap { [UInt8($0.rawValue.utf8.count)] + Array($0.rawValue.utf8) }
    }

    /// What was agreed on; nil if nothing was.
    static func agreed(on connection: OpaquePointer) -> String? {
        var name: UnsafePointer<UInt8>?
        var length: UInt32 = 0
        unsafe SSL_get0_alpn_selected(connection, &name, &length)
        guard length > 0 else { return nil }
        return unsafe String(
            decoding: UnsafeBufferPointer(start: name, count: Int(length)), as: UTF8.self)
    }

    /// Makes a server connection choose by `BulkRecords`.
    static func accept(_ records: BulkRecords, on connection: OpaquePointer) -> Bool {
        let choice = unsafe UnsafeMutableRawPointer(bitPattern: records == .sealed ? 1 : 2)
        return unsafe SSL_set_ex_data(connection, 0, choice) == 1
    }

    /// What a server connection was told by `accept`; empty if nothing.
    private static func accepted(on connection: OpaquePointer?) -> [ApplicationProtocol] {
        switch unsafe SSL_get_ex_data(connection, 0).map({ UInt(bitPattern: $0) }) {
        case 1: BulkRecords.sealed.offer
        case 2: BulkRecords.tls.offer
        default: []
        }
    }

    /// OpenSSL's callback of cluster servers: the server's order counts.
    static let selectRecords:
        @convention(c) (
            OpaquePointer?, UnsafeMutablePointer<UnsafePointer<UInt8>?>?,
            UnsafeMutablePointer<UInt8>?, UnsafePointer<UInt8>?, UInt32, UnsafeMutableRawPointer?
        ) -> Int32 = { connection, chosen, chosenLength, offered, offeredLength, _ in
            unsafe select(
                accepted(on: connection), chosen, chosenLength,
                UnsafeBufferPointer(start: offered, count: Int(offeredLength)))
        }

    /// OpenSSL's callback of HTTPS servers.
    static let selectHTTP:
        @convention(c) (
            OpaquePointer?, UnsafeMutablePointer<UnsafePointer<UInt8>?>?,
            UnsafeMutablePointer<UInt8>?, UnsafePointer<UInt8>?, UInt32, UnsafeMutableRawPointer?
        ) -> Int32 = { _, chosen, chosenLength, offered, offeredLength, _ in
            unsafe select(
                [.http1], chosen, chosenLength,
                UnsafeBufferPointer(start: offered, count: Int(offeredLength)))
        }

    /// Chooses the first of ours that the client offers; without one no protocol is chosen.
    private static func select(
        _ ours: [ApplicationProtocol],
        _ chosen: UnsafeMutablePointer<UnsafePointer<UInt8>?>?,
        _ chosenLength: UnsafeMutablePointer<UInt8>?, _ offered: UnsafeBufferPointer<UInt8>
    ) -> Int32 {
        for name in ours.lazy.map({ Array($0.rawValue.utf8) }) {
            var position = 0
            while position < offered.count {
                let start = position + 1
                let length = unsafe Int(offered[position])
                position = start + length
                guard position <= offered.count else { return SSL_TLSEXT_ERR_ALERT_FATAL }
                let entry = unsafe UnsafeBufferPointer(rebasing: offered[start..<position])
                if unsafe entry.elementsEqual(name) {
                    unsafe chosen?.pointee = entry.baseAddress
                    unsafe chosenLength?.pointee = UInt8(length)
                    return SSL_TLSEXT_ERR_OK
                }
            }
        }
        return SSL_TLSEXT_ERR_NOACK
    }
}
