/// How KV is protected on a bulk connection once both sides have said `Hello`.
///
/// Agreed on in the handshake, by ALPN (RFC 7301): sealed records if both sides want them. Both
/// kinds encrypt and authenticate everything; Protocols/README.md argues for the first.
package enum BulkRecords: String, Sendable, Hashable, CaseIterable {
    /// AES-128-GCM records of up to `TransportLimits.sealedRecordBytes`, opened where they land.
    case sealed
    /// TLS's own records, by OpenSSL.
    case tls

    /// Names in ALPN, the best first.
    var offer: [ApplicationProtocol] {
        switch self {
        case .sealed: [.sealedRecords, .tlsRecords]
        case .tls: [.tlsRecords]
        }
    }
}
