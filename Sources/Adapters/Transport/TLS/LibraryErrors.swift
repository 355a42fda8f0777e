internal import COpenSSL

/// OpenSSL's error queue of the calling thread, taken out whole.
struct LibraryErrors {
    /// Reasons within libssl, oldest first.
    private(set) var tlsReasons: [Int32] = []
    private(set) var texts: [String] = []

    var text: String { texts.joined(separator: "; ") }

    static func clear() { ERR_clear_error() }

    static func take() -> LibraryErrors {
        var errors = LibraryErrors()
        var data: UnsafePointer<CChar>?
        var flags: Int32 = 0
        while case let code = unsafe ERR_get_error_all(nil, nil, nil, &data, &flags), code != 0 {
            if ERR_GET_LIB(code) == ERR_LIB_SSL { errors.tlsReasons.append(ERR_GET_REASON(code)) }
            var text = reason(of: code)
            if flags & ERR_TXT_STRING != 0, let data = unsafe data {
                let detail = unsafe String(cString: data)
                if !detail.isEmpty { text += " (\(detail))" }
            }
            errors.texts.append(text)
        }
        return errors
    }

    private static func reason(of code: UInt) -> String {
        guard let reason = unsafe ERR_reason_error_string(code) else {
            return "error \(ERR_GET_REASON(code)) of library \(ERR_GET_LIB(code))"
        }
        return unsafe String(cString: reason)
    }

    /// The first fault that says more than that the handshake failed.
    ///
    /// - Parameter connection: OpenSSL's `SSL`.
    func handshakeError(on connection: OpaquePointer) -> TransportError {
        if tlsReasons.contains(SSL_R_CERTIFICATE_VERIFY_FAILED) {
            let result = unsafe SSL_get_verify_result(connection)
            let problem = unsafe String(cString: X509_verify_cert_error_string(result))
            let name = unsafe shownName(on: connection).map { "; it names \($0)" } ?? ""
            return .tls(
                Self.failure(verifyResult: Int32(truncatingIfNeeded: result)),
                isReportedByPeer: false, details: "\(text); \(problem)\(name)")
        }
        for reason in tlsReasons {
            if let (failure, isReportedByPeer) = Self.failure(reason: reason) {
                return .tls(failure, isReportedByPeer: isReportedByPeer, details: text)
            }
        }
        return .tls(.other, isReportedByPeer: false, details: text)
    }

    private static func failure(verifyResult: Int32) -> TLSFailure {
        switch verifyResult {
        case X509_V_ERR_CERT_HAS_EXPIRED: .certificateExpired
        case X509_V_ERR_CERT_REVOKED: .certificateRevoked
        case X509_V_ERR_CERT_NOT_YET_VALID: .certificateNotYetValid
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
            X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
            X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_ERR_CERT_SIGNATURE_FAILURE:
            .unknownAuthority
        default: .certificateUnsuitable
        }
    }

    private static func failure(reason: Int32) -> (TLSFailure, isReportedByPeer: Bool)? {
        switch reason {
        case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED: (.certificateExpired, true)
        case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED: (.certificateRevoked, true)
        case SSL_R_TLSV1_ALERT_UNKNOWN_CA: (.unknownAuthority, true)
        case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED: (.certificateMissing, true)
        case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE,
            SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
            (.certificateUnsuitable, true)
        case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION: (.otherVersion, true)
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: (.certificateMissing, false)
        case SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_NO_PROTOCOLS_AVAILABLE, SSL_R_VERSION_TOO_LOW:
            (.otherVersion, false)
        case SSL_R_WRONG_VERSION_NUMBER, SSL_R_HTTP_REQUEST, SSL_R_HTTPS_PROXY_REQUEST,
            SSL_R_UNKNOWN_PROTOCOL, SSL_R_BAD_RECORD_TYPE, SSL_R_BAD_PROTOCOL_VERSION_NUMBER,
            SSL_R_PACKET_LENGTH_TOO_LONG, SSL_R_RECORD_LENGTH_MISMATCH:
            (.notTLS, false)
        case SSL_R_UNEXPECTED_EOF_WHILE_READING: (.closed, false)
        default: nil
        }
    }
}

/// Throws what OpenSSL reports unless `isDone`.
func check(_ isDone: Bool, _ operation: String) throws(TransportError) {
    guard isDone else { throw .library("\(operation): \(LibraryErrors.take().text)") }
}

/// The C object, or what OpenSSL reports.
func made(_ object: OpaquePointer?, _ operation: String) throws(TransportError) -> OpaquePointer {
    guard let object = unsafe object else {
        throw .library("\(operation): \(LibraryErrors.take().text)")
    }
    return unsafe object
}
