import ServingTypes
import Testing
import WireProtocol

@Suite struct FrameTests {
    private let ping = ControlMessage.ping(Ping(number: 0x0102))
    private let attempt = AttemptID(request: RequestID(high: 1, low: 2), number: 3)
    private var reserve: ControlMessage {
        .reserveKV(
            ReserveKV(
                terms: AttemptTerms(
                    attempt: attempt, outputTokens: 0, maximumNewTokens: 1,
                    sampling: SamplingParameters(), deadline: .seconds(1))))
    }

    @Test func `the header lies as the picture in the documentation`() throws {
        let frame = try encodeFrame(ping, stream: 0xaabb_ccdd, flags: [.last, .error])
        #expect(Array(frame[0..<4]) == Array("PDKV".utf8))
        #expect(Array(frame[4..<8]) == [1, 3, 12, 0])
        #expect(Array(frame[8..<12]) == [0xdd, 0xcc, 0xbb, 0xaa])
        #expect(Array(frame[12..<16]) == [3, 0, 0, 0])
        #expect(Array(frame[16..<24]) == [UInt8](repeating: 0, count: 8))
        #expect(Array(frame[32...]) == [8, 0x82, 2])
        let header = try header(frame)
        #expect(
            header
                == FrameHeader(
                    kind: .ping, flags: [.last, .error], stream: 0xaabb_ccdd, controlBytes: 3,
                    controlChecksum: CRC32C.checksum([8, 0x82, 2])))
    }

    @Test func `damaged and foreign headers are refused`() throws {
        let frame = try encodeFrame(ping)
        expect(.notAFrame, changed(frame, 0, 0x51))
        expect(.headerDamaged, changed(frame, 9, 1, repairs: false))
        expect(.headerDamaged, changed(frame, 28, frame[28] ^ 1, repairs: false))
        expect(.unsupportedVersion(2), changed(frame, 4, 2))
        expect(.unknownKind(0), changed(frame, 5, 0))
        expect(.unknownKind(255), changed(frame, 5, 255))
        expect(.unknownFlags(16), changed(frame, 6, 16))
        expect(.unknownFlags(0x8000), changed(frame, 7, 0x80))
        expect(
            .controlTooLong(.ping, bytes: 4099, limitBytes: 4096), changed(frame, 13, 16))
    }

    @Test func `payload flag, payload length and kind agree`() throws {
        let frame = try encodeFrame(ping)
        expect(.payloadDisagrees(.ping), changed(frame, 6, 1))
        expect(.payloadDisagrees(.ping), changed(frame, 6, 2))
        expect(.payloadDisagrees(.ping), changed(frame, 16, 4))
        expect(.payloadDisagrees(.ping), changed(frame, 23, 0x80))
        let reserve = try encodeFrame(reserve, payloadBytes: 8, flags: .payloadChecksums)
        #expect(try header(reserve).flags == [.payload, .payloadChecksums])
        expect(.payloadDisagrees(.reserveKV), changed(reserve, 16, 0))
        expect(.payloadDisagrees(.reserveKV), changed(reserve, 6, 0))
        expect(
            .payloadTooLong(.reserveKV, bytes: (1 << 63) + 8, limitBytes: 4 << 20),
            changed(reserve, 23, 0x80))
        expect(
            .payloadTooLong(.reserveKV, bytes: (64 << 16) + 8, limitBytes: 4 << 20),
            changed(reserve, 18, 64))
    }

    @Test func `the writer refuses a payload that its kind can't have`() {
        #expect(throws: WireError.payloadDisagrees(.ping)) {
            try encodeFrame(ping, payloadBytes: 4)
        }
        #expect(throws: WireError.payloadDisagrees(.reserveKV)) { try encodeFrame(reserve) }
        #expect(throws: WireError.payloadDisagrees(.ping)) {
            try encodeFrame(ping, flags: .payloadChecksums)
        }
        #expect(
            throws: WireError.payloadTooLong(
                .reserveKV, bytes: 5 << 20, limitBytes: 4 << 20)
        ) {
            try encodeFrame(reserve, payloadBytes: 5 << 20)
        }
    }

    @Test func `a control message that is not the header's is refused`() throws {
        let header = try header(encodeFrame(ping))
        for control: [UInt8] in [[8, 0x82, 3], [8, 1], []] {
            #expect(throws: WireError.controlDamaged(.ping)) {
                try unsafe control.withUnsafeBytes { unsafe try header.message(control: $0) }
            }
        }
    }

    @Test func `another version is answered as such, all else as a fault of the protocol`() {
        #expect(WireError.unsupportedVersion(2).failureCode == .version)
        #expect(WireError.malformed(.ping).failureCode == .protocol)
    }

    @Test func `tokens survive as payload`() throws {
        let tokens: [TokenID] = [0, 1, .max, 128_255]
        let bytes = TokenPayload.encode(tokens)
        #expect(bytes.count == 16)
        #expect(Array(bytes[12...]) == [0xff, 0xf4, 1, 0])
        #expect(try TokenPayload.decode(bytes) == tokens)
        #expect(try TokenPayload.decode([UInt8]()) == [])
    }

    @Test func `negative or cut tokens are refused`() {
        #expect(throws: WireError.outOfRange(field: "tokens")) {
            try TokenPayload.decode([1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])
        }
        let limit = WireLimits.tokens * 4
        #expect(throws: WireError.wrongLength(field: "tokens", bytes: 5, limitBytes: limit)) {
            try TokenPayload.decode([1, 0, 0, 0, 0])
        }
    }

    /// The frame with one byte set, and a corrected header checksum unless told otherwise.
    private func changed(
        _ frame: [UInt8], _ index: Int, _ byte: UInt8, repairs: Bool = true
    ) -> [UInt8] {
        var frame = frame
        frame[index] = byte
        if repairs {
            let checksum = CRC32C.checksum(Array(frame[..<28]))
            for part in 0..<4 {
                frame[28 + part] = UInt8(truncatingIfNeeded: checksum >> (8 * part))
            }
        }
        return frame
    }

    private func expect(
        _ error: WireError, _ frame: [UInt8], location: SourceLocation = #_sourceLocation
    ) {
        #expect(throws: error, sourceLocation: location) { try header(frame) }
    }
}

func header(_ frame: [UInt8]) throws(WireError) -> FrameHeader {
    try unsafe frame.withUnsafeBufferPointer { (frame) throws(WireError) in
        try unsafe FrameHeader(bytes: UnsafeRawBufferPointer(frame))
    }
}
