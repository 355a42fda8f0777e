import ServingTypes
import Testing

@Suite struct IdentifierTests {
    @Test func `a peer identity survives the way through its URI`() {
        let identity = PeerIdentity(
            cluster: "home", role: .decodeWorker, instance: InstanceID("decode-worker-2"))
        #expect(identity.description == "pdserve://home/decode-worker/decode-worker-2")
        #expect(PeerIdentity(uri: identity.description) == identity)
    }

    @Test func `an incomplete or foreign URI gives no identity`() {
        for uri in [
            "", "pdserve://", "pdserve://home/decode-worker", "pdserve://home/cook/1",
            "pdserve://home//1", "https://home/gateway/1", "pdserve://home/gateway/1/2",
        ] {
            #expect(PeerIdentity(uri: uri) == nil, "\(uri)")
        }
    }

    @Test func `addresses are read with names, IPv4 and IPv6`() {
        #expect(NetworkAddress("gateway:7400") == NetworkAddress(host: "gateway", port: 7400))
        #expect(NetworkAddress("[::1]:80") == NetworkAddress(host: "::1", port: 80))
        #expect(NetworkAddress(host: "::1", port: 80).description == "[::1]:80")
        for text in ["", "7400", "host:", "host:70000", ":1"] {
            #expect(NetworkAddress(text) == nil, "\(text)")
        }
    }

    @Test func `a secret never shows itself`() {
        let secret = ReservationSecret(high: 4_711, low: 815)
        #expect("\(secret)" == "reservation secret")
        let attempt = AttemptID(request: RequestID(high: 1, low: 2), number: 3)
        let granted = ReservationGranted(attempt: attempt, secret: secret, kvBytes: 6)
        var dumped = ""
        dump((secret, granted), to: &dumped)
        for text in ["\([secret])", String(reflecting: secret), dumped, "\(granted)"] {
            #expect(text.contains("reservation secret"))
            #expect(!text.contains("4711") && !text.contains("815"), "\(text)")
        }
    }

    @Test func `request ids print as 32 digits`() {
        #expect(
            RequestID(high: 1, low: 0xff).description == "000000000000000100000000000000ff")
    }

    @Test func `random numbers depend on seed and position alone and look uniform`() {
        #expect(uniformNumber(seed: 7, outputIndex: 3) == uniformNumber(seed: 7, outputIndex: 3))
        var sum = 0.0
        for seed in UInt64(0)..<100 {
            for index in 0..<100 {
                let number = uniformNumber(seed: seed, outputIndex: index)
                #expect((0..<1).contains(number))
                sum += number
            }
        }
        #expect((0.48...0.52).contains(sum / 10_000), "\(sum)")
    }
}
