internal import COpenSSL
package import ServingTypes

#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// What a certificate says, for people and for checks.
package struct CertificateContents: Sendable, Hashable {
    /// Nil for a CA and for certificates of other systems.
    package var identity: PeerIdentity?
    package var hostNames: [String]
    /// Numeric addresses.
    package var addresses: [String]
    package var isAuthority: Bool
    /// Seconds since 1970.
    package var notBefore: Int64
    /// Seconds since 1970.
    package var notAfter: Int64

    /// Reads the first certificate of a PEM file.
    package init(path: String) throws(TransportError) {
        guard let certificate = try Certificate.all(inPEM: Files.read(path)).first else {
            throw .file(path: path, problem: "holds no PEM certificate")
        }
        self.init(certificate)
    }

    init(_ certificate: Certificate) {
        let names = certificate.alternativeNames()
        identity = certificate.identity
        hostNames = names.compactMap { if case .host(let name) = $0 { name } else { nil } }
        addresses = names.compactMap { if case .address(let name) = $0 { name } else { nil } }
        isAuthority = unsafe X509_check_ca(certificate.pointer) == 1
        notBefore = unsafe seconds(X509_get0_notBefore(certificate.pointer))
        notAfter = unsafe seconds(X509_get0_notAfter(certificate.pointer))
    }

    /// Whole days left, negative once it has expired.
    package var daysLeft: Int {
        Int((Double(notAfter - Int64(time(nil))) / 86_400).rounded(.down))
    }
}

/// One entry of a certificate's subject alternative names.
enum AlternativeName: Equatable {
    case uri(String)
    case host(String)
    case address(String)
}

extension Certificate {
    /// The one `pdserve://` name; nil if there is none, several or a malformed one.
    var identity: PeerIdentity? {
        let uris = alternativeNames().compactMap { name -> String? in
            if case .uri(let uri) = name, uri.hasPrefix("pdserve://") { uri } else { nil }
        }
        guard uris.count == 1 else { return nil }
        return PeerIdentity(uri: uris[0])
    }

    /// The `pdserve://` name, otherwise the subject.
    var name: String {
        if let identity { return identity.description }
        var text = [CChar](repeating: 0, count: TransportLimits.subjectBytes)
        let subject = unsafe X509_get_subject_name(pointer)
        // It writes what is no letter as hexadecimal digits.
        _ = unsafe X509_NAME_oneline(subject, &text, Int32(text.count))
        return Platform.text(text)
    }

    /// Seconds since 1970.
    var notAfter: Int64 { unsafe seconds(X509_get0_notAfter(pointer)) }

    /// At most `TransportLimits.certificateNames` of them, unreadable ones left out.
    func alternativeNames() -> [AlternativeName] {
        guard
            let names = unsafe X509_get_ext_d2i(pointer, NID_subject_alt_name, nil, nil)
        else {
            LibraryErrors.clear()
            return []
        }
        let list = OpaquePointer(names)
        defer { unsafe GENERAL_NAMES_free(list) }
        let count = min(unsafe shim_names_count(list), Int32(TransportLimits.certificateNames))
        return (0..<max(count, 0)).compactMap { index in
            guard let name = unsafe shim_names_at(list, index) else { return nil }
            return unsafe alternativeName(name)
        }
    }
}

private func alternativeName(_ name: UnsafeMutablePointer<GENERAL_NAME>) -> AlternativeName? {
    var type: Int32 = 0
    guard let value = unsafe GENERAL_NAME_get0_value(name, &type) else { return nil }
    guard [GEN_URI, GEN_DNS, GEN_IPADD].contains(type) else { return nil }
    let string = unsafe value.assumingMemoryBound(to: ASN1_STRING.self)
    let bytes = unsafe [UInt8](
        UnsafeBufferPointer(
            start: ASN1_STRING_get0_data(string), count: Int(ASN1_STRING_length(string))))
    if type == GEN_IPADD { return numericAddress(bytes).map(AlternativeName.address) }
    // A NUL or a non-ASCII letter has no place in these names and could hide a longer one.
    guard bytes.allSatisfy({ (0x21...0x7e).contains($0) }) else { return nil }
    let text = String(decoding: bytes, as: UTF8.self)
    return type == GEN_URI ? .uri(text) : .host(text)
}

private func numericAddress(_ bytes: [UInt8]) -> String? {
    let family: Int32
    switch bytes.count {
    case 4: family = AF_INET
    case 16: family = AF_INET6
    default: return nil
    }
    var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
    guard unsafe inet_ntop(family, bytes, &text, socklen_t(text.count)) != nil else { return nil }
    return Platform.text(text)
}

/// Seconds since 1970; 0 for a time that can't be read.
func seconds(_ time: UnsafePointer<ASN1_TIME>?) -> Int64 {
    var parts = unsafe tm()
    guard unsafe ASN1_TIME_to_tm(time, &parts) == 1 else { return 0 }
    return unsafe Int64(timegm(&parts))
}
