import Foundation
import ServingTypes
import Testing

@testable import Transport

@Suite struct TLSSessionTests {
    let certificates: TestCertificates
    init() throws { certificates = try TestCertificates() }

    private func pair(
        client: TLSContext, server: TLSContext, serverName: String? = nil,
        recordsPerKey: Int = TransportLimits.recordsPerKey
    ) throws -> (client: TLSSession, server: TLSSession) {
        (
            try TLSSession(
                context: client, side: .client(serverName: serverName),
                recordsPerKey: recordsPerKey),
            try TLSSession(context: server, side: .server, recordsPerKey: recordsPerKey)
        )
    }

    /// Carries ciphertext both ways until neither side has any; stops at the first error.
    private func connect(
        _ client: TLSSession, _ server: TLSSession, pieceBytes: Int = .max
    ) -> (client: TransportError?, server: TransportError?) {
        var errors: (client: TransportError?, server: TransportError?) = (nil, nil)
        func step(_ session: TLSSession, _ error: inout TransportError?) {
            guard error == nil else { return }
            do throws(TransportError) {
                try session.handshake()
                if session.isEstablished { _ = try readAll(session) }
            } catch let fault { error = fault }
        }
        func carry(_ from: TLSSession, _ to: TLSSession, _ error: inout TransportError?) -> Bool {
            let bytes = from.takeCiphertext()
            var rest = bytes[...]
            while !rest.isEmpty {
                let piece = Array(rest.prefix(pieceBytes))
                rest = rest.dropFirst(piece.count)
                do throws(TransportError) { try to.receive(piece) } catch { Issue.record(error) }
                step(to, &error)
            }
            return !bytes.isEmpty
        }
        step(client, &errors.client)
        while carry(client, server, &errors.server) || carry(server, client, &errors.client) {}
        return errors
    }

    private func readAll(_ session: TLSSession) throws(TransportError) -> [UInt8] {
        var all: [UInt8] = []
        while true {
            var buffer = [UInt8](repeating: 0, count: 16 << 10)
            var reading = TLSSession.Reading.needsMore
            var span = buffer.mutableSpan
            var bytes = unsafe span.mutableBytes
            try unsafe bytes.withUnsafeMutableBytes { target throws(TransportError) in
                reading = try unsafe session.read(into: target)
            }
            guard case .bytes(let count) = reading else { return all }
            all += buffer.prefix(count)
        }
    }

    @Test(arguments: [1, 7, Int.max])
    func `two sessions agree however their bytes are cut`(pieceBytes: Int) throws {
        let (client, server) = try pair(
            client: certificates.context(.gateway), server: certificates.context(.scheduler, "s"))
        let errors = connect(client, server, pieceBytes: pieceBytes)
        #expect(errors.client == nil && errors.server == nil)
        #expect(client.isEstablished && server.isEstablished)
        #expect(client.peerIdentity?.description == "pdserve://home/scheduler/s")
        #expect(server.peerIdentity?.description == "pdserve://home/gateway/one")

        let text = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        try client.write(text)
        var received: [UInt8] = []
        var rest = client.takeCiphertext()[...]
        while !rest.isEmpty {
            let piece = Array(rest.prefix(pieceBytes))
            rest = rest.dropFirst(piece.count)
            try server.receive(piece)
            received += try readAll(server)
        }
        #expect(received == text)
    }

    @Test func `keys are renewed in mid-stream without loss`() throws {
        let (client, server) = try pair(
            client: certificates.context(.gateway), server: certificates.context(.scheduler, "s"),
            recordsPerKey: 3)
        _ = connect(client, server)
        for round in 0..<20 {
            try client.write([UInt8](repeating: UInt8(round), count: 20_000))
            try server.receive(client.takeCiphertext())
            #expect(try readAll(server) == [UInt8](repeating: UInt8(round), count: 20_000))
        }
    }

    @Test func `a changed byte is noticed`() throws {
        let (client, server) = try pair(
            client: certificates.context(.gateway), server: certificates.context(.scheduler, "s"))
        _ = connect(client, server)
        try client.write([1, 2, 3])
        var bytes = client.takeCiphertext()
        bytes[bytes.count - 1] ^= 1
        try server.receive(bytes)
        #expect(throws: TransportError.self) { try readAll(server) }
    }

    @Test func `the end is told`() throws {
        let (client, server) = try pair(
            client: certificates.context(.gateway), server: certificates.context(.scheduler, "s"))
        _ = connect(client, server)
        client.close()
        try server.receive(client.takeCiphertext())
        var buffer = [UInt8](repeating: 0, count: 16)
        let reading = try unsafe buffer.withUnsafeMutableBytes { try unsafe server.read(into: $0) }
        #expect(reading == .closed)
    }

    @Test func `an expired certificate is named on both sides`() throws {
        let (client, server) = try pair(
            client: certificates.expiredContext(.gateway),
            server: certificates.context(.scheduler, "s"))
        let errors = connect(client, server)
        #expect(isTLS(errors.server, .certificateExpired, isReportedByPeer: false))
        #expect(isTLS(errors.client, .certificateExpired, isReportedByPeer: true))
        #expect(
            "\(try #require(errors.server))".hasPrefix(
                "the peer's certificate has expired; issue it again"))
    }

    @Test func `another authority is named on both sides`() throws {
        let others = try TestCertificates()
        let (client, server) = try pair(
            client: certificates.context(.gateway), server: others.context(.scheduler, "s"))
        let errors = connect(client, server)
        #expect(isTLS(errors.client, .unknownAuthority, isReportedByPeer: false))
        #expect(isTLS(errors.server, .unknownAuthority, isReportedByPeer: true))
    }

    @Test func `without a certificate the cluster refuses and HTTPS serves`() throws {
        let server = try certificates.identity(.gateway, "g")
        let paths = certificates.authority.paths(of: server.peer.instance)
        let client = try TLSContext.client(authorityPath: paths.authority)

        let refused = try pair(client: client, server: TLSContext(server))
        #expect(
            isTLS(
                connect(refused.client, refused.server).server, .certificateMissing,
                isReportedByPeer: false))

        let https = try TLSContext.httpsServer(
            certificatePath: paths.certificate, keyPath: paths.key)
        let served = try pair(client: client, server: https, serverName: "localhost")
        let errors = connect(served.client, served.server)
        #expect(errors.client == nil && errors.server == nil)
        #expect(served.server.isEstablished && served.server.peerIdentity == nil)
        #expect(served.server.applicationProtocol == "http/1.1")
        #expect(served.client.applicationProtocol == "http/1.1")

        let misnamed = try pair(client: client, server: https, serverName: "elsewhere")
        #expect(
            isTLS(
                connect(misnamed.client, misnamed.server).client, .certificateUnsuitable,
                isReportedByPeer: false))
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n",
        String(repeating: "\u{0}\u{1}garbage", count: 100),
    ])
    func `bytes that are not TLS are called so`(text: String) throws {
        let server = try TLSSession(context: certificates.context(.gateway), side: .server)
        try server.receive(Array(text.utf8))
        let error = #expect(throws: TransportError.self) { try server.handshake() }
        #expect(isTLS(error, .notTLS, isReportedByPeer: false), "\(String(describing: error))")
    }
}

/// Whether an error is this TLS failure, whatever OpenSSL adds in words.
func isTLS(
    _ error: TransportError?, _ failure: TLSFailure, isReportedByPeer: Bool
) -> Bool {
    guard case .tls(let actual, let reported, let details) = error else { return false }
    return actual == failure && reported == isReportedByPeer && !details.isEmpty
}
