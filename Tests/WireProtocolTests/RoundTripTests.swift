import ServingTypes
import Testing
import WireProtocol

@Suite struct RoundTripTests {
    @Test(arguments: MessageKind.allCases)
    func `a message of any content survives encoding`(_ kind: MessageKind) throws {
        let seed = UInt64.random(in: .min ... .max)
        print("round trip of \(kind): seed \(seed)")
        var samples = SampleMessages(seed: seed)
        for _ in 0..<200 {
            let message = samples.message(kind)
            #expect(message.kind == kind)
            let bytes = try MessageCodec.encode(message)
            let decoded = try decode(kind, bytes)
            #expect(decoded == message, "seed \(seed)")
        }
    }
}

/// Decodes an array.
func decode(_ kind: MessageKind, _ bytes: [UInt8]) throws(WireError) -> ControlMessage {
    try unsafe bytes.withUnsafeBufferPointer { (bytes) throws(WireError) in
        try unsafe MessageCodec.decode(kind, UnsafeRawBufferPointer(bytes))
    }
}
