import ServingTypes
import Testing
import WireProtocol

@Suite struct MessageEncodeTests {
    @Test func `the writer refuses what the reader would refuse`() {
        expect(
            .invalidText(field: "Hello.cluster"),
            .hello(hello(cluster: "a\0b", instance: "gateway-1")))
        expect(.missing(field: "Hello.instance"), .hello(hello(cluster: "home", instance: "")))
        expect(
            .wrongLength(field: "Hello.instance", bytes: 200, limitBytes: 128),
            .hello(hello(cluster: "home", instance: String(repeating: "x", count: 200))))
        expect(
            .outOfRange(field: "SlotsOpen.free_prefill_slots"),
            .slotsOpen(SlotsOpen(freePrefillSlots: -1)))
        expect(
            .outOfRange(field: "KVRoomOpen.free_kv_bytes"),
            .kvRoomOpen(KVRoomOpen(freeKVBytes: .max)))
        for deadline: Duration in [.milliseconds(-1), .seconds(86_401)] {
            expect(.outOfRange(field: "deadline_milliseconds"), reserve { $0.deadline = deadline })
        }
        expect(.outOfRange(field: "maximum_new_tokens"), reserve { $0.maximumNewTokens = 0 })
        expect(
            .outOfRange(field: "SamplingParameters.temperature"),
            reserve { $0.sampling.temperature = .nan })
        expect(
            .outOfRange(field: "SamplingParameters.top_logprobs_plus_one"),
            reserve { $0.sampling.topLogprobs = -1 })
        expect(
            .tooMany(field: "SamplingParameters.logit_bias", count: 4097, limit: 4096),
            reserve {
                $0.sampling.logitBias = [LogitBias](
                    repeating: LogitBias(token: 1, bias: 1), count: 4097)
            })
        expect(.outOfRange(field: "TokenOutput.token"), batch([TokenOutput(token: -1)]))
        expect(
            .outOfRange(field: "TokenOutput.logprob"),
            batch([TokenOutput(token: 1, logprob: -.infinity)]))
    }

    @Test func `a message longer than its kind allows is not written`() {
        let alternatives = [TokenLogprob](
            repeating: TokenLogprob(token: .max, logprob: -1), count: 64)
        let output = TokenOutput(token: 1, alternatives: alternatives)
        #expect {
            try MessageCodec.encode(batch([TokenOutput](repeating: output, count: 400)))
        } throws: { error in
            guard case WireError.controlTooLong(.tokenBatch, let bytes, 262_144) = error else {
                return false
            }
            return bytes > 262_144
        }
    }

    @Test func `the largest group fits`() throws {
        let address = NetworkAddress(host: "10.0.0.200", port: 7400)
        let members = (0..<4096).map { index in
            GroupMember(
                description: InstanceDescription(
                    instance: InstanceID("decode-worker-\(index)"), role: .decodeWorker,
                    incarnation: .max, host: "host-\(index)", controlAddress: address,
                    bulkAddress: address, modelName: "llama-3-8b",
                    fingerprint: ModelFingerprint([UInt8](repeating: 1, count: 32)),
                    contextTokens: 131_072, kvBytesPerToken: 131_072,
                    kvCapacityBytes: 64 << 30, prefillSlots: 4, decodeSequences: 64,
                    device: "H100"),
                state: .serving, status: InstanceStatus())
        }
        let view = ControlMessage.groupView(GroupView(epoch: 1, version: 1, members: members))
        #expect(try decode(.groupView, MessageCodec.encode(view)) == view)
    }

    @Test func `a reason that is too long is cut, a NUL in it becomes a space`() throws {
        let long = String(repeating: "語", count: 1000)
        let bytes = try MessageCodec.encode(.refusal(Refusal(code: .engine, reason: long)))
        guard case .refusal(let refusal) = try decode(.refusal, bytes) else {
            Issue.record("another message")
            return
        }
        #expect(refusal.reason.utf8.count <= WireLimits.reasonBytes)
        #expect(refusal.reason.utf8.count > WireLimits.reasonBytes - 8)
        #expect(refusal.reason.hasPrefix("語語語"))
        let zero = try MessageCodec.encode(.kvAbort(KVAbort(attempt: attempt, reason: "a\0b")))
        #expect(try decode(.kvAbort, zero) == .kvAbort(KVAbort(attempt: attempt, reason: "a b")))
    }

    private let attempt = AttemptID(request: RequestID(high: 1, low: 2), number: 3)

    private func hello(cluster: String, instance: String) -> Hello {
        Hello(
            cluster: cluster, role: .gateway, instance: InstanceID(instance), incarnation: 1,
            productVersion: "1")
    }

    private func reserve(_ change: (inout AttemptTerms) -> Void) -> ControlMessage {
        var terms = AttemptTerms(
            attempt: attempt, outputTokens: 0, maximumNewTokens: 1,
            sampling: SamplingParameters(), deadline: .seconds(1))
        change(&terms)
        return .reserveKV(ReserveKV(terms: terms))
    }

    private func batch(_ tokens: [TokenOutput]) -> ControlMessage {
        .tokenBatch(TokenBatch(attempt: attempt, firstIndex: 0, tokens: tokens))
    }

    private func expect(
        _ error: WireError, _ message: ControlMessage,
        location: SourceLocation = #_sourceLocation
    ) {
        #expect(throws: error, sourceLocation: location) { try MessageCodec.encode(message) }
    }
}
