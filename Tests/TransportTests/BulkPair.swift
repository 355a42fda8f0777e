import Foundation
import ServingTypes
import Testing

@testable import Transport

/// Both ends of a bulk connection over loopback, without `Hello`.
enum BulkPair {
    /// - Parameter isSealed: false leaves both directions in TLS for the time being.
    static func make(
        _ certificates: TestCertificates, _ records: BulkRecords,
        recordsPerKey: Int = TransportLimits.recordsPerKey,
        recordsPerSealedKey: UInt64 = TransportLimits.sealedRecordsPerKey, isSealed: Bool = true
    ) async throws -> (client: BulkSocket, server: BulkSocket) {
        let file = try Sockets.listen(on: loopback)
        defer { close(file) }
        let address = try #require(Sockets.address(of: file, isPeer: false))
        let deadline = Deadline(after: .seconds(5))
        let client = try BulkSocket(
            file: Sockets.connect(to: address, deadline: deadline),
            context: certificates.context(.prefillWorker), side: .client(serverName: nil),
            records: records, recordsPerKey: recordsPerKey,
            recordsPerSealedKey: recordsPerSealedKey)
        #expect(Sockets.wait(file, Int16(POLLIN), deadline))
        let server = try BulkSocket(
            file: #require(try Sockets.accept(file)),
            context: certificates.context(.decodeWorker, "d"), side: .server, records: records,
            recordsPerKey: recordsPerKey, recordsPerSealedKey: recordsPerSealedKey)
        async let shaken: Void = onThread { try client.handshake(deadline) }
        try await onThread { try server.handshake(deadline) }
        try await shaken
        for socket in [client, server] {
            #expect(socket.records == records)
            guard isSealed else { continue }
            try socket.sealWriting()
            try socket.sealReading()
        }
        return (client, server)
    }
}

/// Bytes that repeat after a prime length, so that a piece in a wrong place shows.
func patternBytes(_ count: Int) -> [UInt8] {
    let pattern = (0..<65_521).map { UInt8(truncatingIfNeeded: ($0 &* 0x9E37_79B9) >> 13) }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count + pattern.count)
    while bytes.count < count { bytes += pattern }
    bytes.removeSubrange(count...)
    return bytes
}
