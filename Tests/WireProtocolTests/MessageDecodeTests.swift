import ServingTypes
import Testing
import WireProtocol

@Suite struct MessageDecodeTests {
    private let empty = ProtobufBytes()
    private var attempt: ProtobufBytes { empty.varint(3, 1) }
    private var secret: [UInt8] { [UInt8](repeating: 7, count: 16) }
    private var fingerprint: [UInt8] { [UInt8](repeating: 9, count: 32) }
    private var hello: ProtobufBytes {
        empty.varint(1, 1).text(2, "home").varint(3, 1).text(4, "gateway-1")
    }
    /// Neutral values; proto3 leaves zeros out, but the repeat penalty can't be zero.
    private var sampling: ProtobufBytes { empty.float(5, 1) }
    private var reserve: ProtobufBytes {
        empty.message(1, attempt).varint(3, 10).message(4, sampling).varint(5, 1000)
    }
    private var description: ProtobufBytes {
        empty.text(1, "decode-worker-1").varint(2, 4).data(10, fingerprint)
    }

    @Test func `hand-made messages are read`() throws {
        #expect(
            try decode(.hello, hello.bytes)
                == .hello(
                    Hello(
                        cluster: "home", role: .gateway, instance: InstanceID("gateway-1"),
                        incarnation: 0, productVersion: "")))
        guard case .reserveKV(let reserve) = try decode(.reserveKV, reserve.bytes) else {
            Issue.record("another message")
            return
        }
        #expect(reserve.terms.deadline == .seconds(1))
        #expect(reserve.terms.maximumNewTokens == 10)
    }

    @Test func `unknown fields are ignored, at any depth`() throws {
        let newer = hello.varint(100, 5).text(101, "new").float(102, 1).double(103, 1)
        #expect(try decode(.hello, newer.bytes) == decode(.hello, hello.bytes))
        let deeper = empty.message(1, attempt.text(99, "new").varint(98, .max))
        #expect(
            try decode(.cancelRequest, deeper.bytes)
                == decode(.cancelRequest, empty.message(1, attempt).bytes))
    }

    @Test func `bytes that are no protobuf are malformed`() {
        for bytes: [UInt8] in [
            [0x08], [0x0a, 5, 1], [0xff], [0x0f, 1], [0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f],
            [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            #expect(throws: WireError.malformed(.hello), "\(bytes)") { try decode(.hello, bytes) }
        }
    }

    @Test func `a message longer than its kind allows is refused unread`() {
        let long = [UInt8](repeating: 0, count: 4097)
        #expect(throws: WireError.controlTooLong(.ping, bytes: 4097, limitBytes: 4096)) {
            try decode(.ping, long)
        }
    }

    @Test func `absent parts are named`() {
        expect(.missing(field: "attempt"), .cancelRequest, empty)
        expect(.missing(field: "sampling"), .reserveKV, empty.message(1, attempt).varint(3, 1))
        expect(.missing(field: "Heartbeat.status"), .heartbeat, empty)
        expect(.missing(field: "Register.description"), .register, empty)
        expect(.missing(field: "Register.status"), .register, empty.message(1, description))
        expect(.missing(field: "ClusterStatus.view"), .clusterStatus, empty)
        expect(
            .missing(field: "KVEnd.first_token"), .kvEnd, empty.message(1, attempt).varint(2, 1))
        expect(
            .missing(field: "GroupMember.status"), .groupView,
            empty.message(3, empty.message(1, description).varint(2, 1)))
        expect(.missing(field: "Hello.cluster"), .hello, empty.varint(3, 1))
        expect(.missing(field: "Hello.instance"), .hello, empty.text(2, "home").varint(3, 1))
        expect(
            .missing(field: "PrefillOffer.decode_host"), .prefillOffer,
            reserve.text(6, "decode-worker-1"))
    }

    @Test func `unknown values of enumerations are refused`() {
        expect(.unknownValue(field: "Hello.role", value: 7), .hello, hello.varint(3, 7))
        expect(.unknownValue(field: "Hello.role", value: 0), .hello, hello.varint(3, 0))
        expect(
            .unknownValue(field: "Hello.role", value: 0xffff_ffff), .hello, hello.varint(3, .max))
        expect(.unknownValue(field: "Hello.role", value: 257), .hello, hello.varint(3, 257))
        expect(.unknownValue(field: "Refusal.code", value: 0), .refusal, empty)
        expect(.unknownValue(field: "Refusal.code", value: 16), .refusal, empty.varint(1, 16))
        expect(
            .unknownValue(field: "TokenBatch.finish", value: 3), .tokenBatch,
            empty.message(1, attempt).varint(4, 3))
        expect(
            .unknownValue(field: "GroupMember.state", value: 5), .groupView,
            empty.message(3, empty.message(1, description).varint(2, 5)))
    }

    @Test func `texts are UTF-8 without NUL and of limited length`() {
        expect(.invalidText(field: "Hello.instance"), .hello, hello.text(4, "adm\0x"))
        expect(.invalidText(field: "Hello.instance"), .hello, hello.text(4, "twelve bytes\0"))
        expect(.invalidText(field: "Hello.instance"), .hello, hello.text(4, "\0"))
        for bytes: [UInt8] in [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xe8, 0xaa]] {
            expect(.invalidText(field: "Hello.cluster"), .hello, hello.data(2, bytes))
        }
        expect(
            .wrongLength(field: "Hello.instance", bytes: 129, limitBytes: 128), .hello,
            hello.text(4, String(repeating: "x", count: 129)))
        expect(
            .wrongLength(field: "Refusal.reason", bytes: 2049, limitBytes: 2048), .refusal,
            empty.varint(1, 1).text(2, String(repeating: "x", count: 2049)))
    }

    @Test func `bytes have their exact length`() {
        expect(
            .wrongLength(field: "Hello.model_fingerprint", bytes: 31, limitBytes: 32), .hello,
            hello.data(6, [UInt8](repeating: 0, count: 31)))
        expect(
            .wrongLength(field: "ReservationGranted.secret", bytes: 0, limitBytes: 16),
            .reservationGranted, empty.message(1, attempt))
        expect(
            .wrongLength(field: "KVOffer.secret", bytes: 17, limitBytes: 16), .kvOffer,
            empty.message(1, attempt).data(2, secret + [0]))
        expect(
            .wrongLength(field: "KVOffer.fingerprint", bytes: 0, limitBytes: 32), .kvOffer,
            empty.message(1, attempt).data(2, secret))
    }

    @Test func `numbers stay in their range`() {
        let memory = UInt64(WireLimits.memoryBytes)
        expect(
            .outOfRange(field: "SlotsOpen.free_prefill_slots"), .slotsOpen, empty.varint(1, 65537))
        expect(
            .outOfRange(field: "KVRoomOpen.free_kv_bytes"), .kvRoomOpen, empty.varint(1, memory + 1)
        )
        expect(.outOfRange(field: "KVRoomOpen.free_kv_bytes"), .kvRoomOpen, empty.varint(1, .max))
        expect(
            .outOfRange(field: "InstanceDescription.control_port"), .register,
            empty.message(1, description.varint(6, 65536)))
        expect(.outOfRange(field: "output_tokens"), .reserveKV, reserve.varint(2, 1 << 20 + 1))
        expect(.outOfRange(field: "maximum_new_tokens"), .reserveKV, reserve.varint(3, 0))
        expect(
            .outOfRange(field: "deadline_milliseconds"), .reserveKV,
            reserve.varint(5, 86_400_001))
        expect(.outOfRange(field: "deadline_milliseconds"), .reserveKV, reserve.varint(5, .max))
        expect(
            .outOfRange(field: "KVChunk.token_count"), .kvChunk, empty.message(1, attempt))
        expect(
            .outOfRange(field: "KVGrant.maximum_chunk_bytes"), .kvGrant,
            empty.message(1, attempt).varint(3, 1 << 30 + 1))
        expect(
            .outOfRange(field: "HealthReport.busy_fraction"), .healthReport, empty.double(3, .nan))
        expect(
            .outOfRange(field: "HealthReport.load_average"), .healthReport,
            empty.double(4, .infinity))
    }

    @Test func `tokens are not negative and log-probabilities are finite`() {
        let batch = empty.message(1, attempt)
        expect(
            .outOfRange(field: "TokenOutput.token"), .tokenBatch,
            batch.message(3, empty.varint(1, .max)))
        expect(
            .outOfRange(field: "TokenOutput.logprob"), .tokenBatch,
            batch.message(3, empty.varint(2, 1).float(3, -.infinity)))
        expect(
            .outOfRange(field: "TokenLogprob.logprob"), .tokenBatch,
            batch.message(3, empty.message(4, empty.float(2, .nan))))
        expect(
            .outOfRange(field: "TokenLogprob.token"), .tokenBatch,
            batch.message(3, empty.message(4, empty.varint(1, .max))))
    }

    @Test func `sampling stays in the ranges of its documentation`() {
        let damaged: [(String, ProtobufBytes)] = [
            ("temperature", sampling.float(1, 2.5)), ("temperature", sampling.float(1, .nan)),
            ("temperature", sampling.float(1, -0.1)), ("top_k", sampling.varint(2, .max)),
            ("top_p", sampling.float(3, 1.1)), ("min_p", sampling.float(4, -1)),
            ("repeat_penalty", sampling.float(5, 0)), ("repeat_penalty", sampling.float(5, 11)),
            ("penalty_window_tokens", sampling.varint(6, .max - 1)),
            ("frequency_penalty", sampling.float(7, 3)),
            ("presence_penalty", sampling.float(8, -3)),
            ("top_logprobs_plus_one", sampling.varint(11, 66)),
        ]
        for (field, sampling) in damaged {
            expect(
                .outOfRange(field: "SamplingParameters.\(field)"), .reserveKV,
                reserve.message(4, sampling))
        }
        expect(
            .outOfRange(field: "LogitBias.bias"), .reserveKV,
            reserve.message(4, empty.message(10, empty.float(2, .infinity))))
        expect(
            .outOfRange(field: "LogitBias.token"), .reserveKV,
            reserve.message(4, empty.message(10, empty.varint(1, .max))))
    }

    @Test func `repetitions are limited`() {
        let outputs = (0...WireLimits.batchTokens).reduce(into: empty.message(1, attempt)) {
            batch, _ in batch = ProtobufBytes(bytes: batch.bytes + [0x1a, 0])
        }
        expect(
            .tooMany(field: "TokenBatch.tokens", count: 4097, limit: 4096), .tokenBatch, outputs)
        let alternatives = (0...64).reduce(empty) { output, _ in output.message(4, empty) }
        expect(
            .tooMany(field: "TokenOutput.alternatives", count: 65, limit: 64), .tokenBatch,
            empty.message(1, attempt).message(3, alternatives))
        let gateways = (0...1024).reduce(into: empty) { status, _ in
            status = ProtobufBytes(bytes: status.bytes + [0x1a, 1, 0x61])
        }
        expect(
            .tooMany(field: "ClusterStatus.gateways", count: 1025, limit: 1024), .clusterStatus,
            gateways)
    }

    /// A megabyte of empty members would become over 60 MB of C structs.
    @Test func `a message that swells in memory is refused at its limit`() {
        let swelling = [[UInt8]](repeating: [0x1a, 2, 0x0a, 0], count: 1 << 18).flatMap(\.self)
        #expect(throws: WireError.needsTooMuchMemory(limitBytes: 8 << 20)) {
            try decode(.groupView, swelling)
        }
        let unknown = [[UInt8]](repeating: [0x7a, 0], count: 2048).flatMap(\.self)
        #expect(throws: WireError.needsTooMuchMemory(limitBytes: 64 << 10)) {
            try decode(.ping, unknown)
        }
    }

    private func expect(
        _ error: WireError, _ kind: MessageKind, _ message: ProtobufBytes,
        location: SourceLocation = #_sourceLocation
    ) {
        #expect(throws: error, sourceLocation: location) { try decode(kind, message.bytes) }
    }
}
