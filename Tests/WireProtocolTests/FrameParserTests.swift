import ServingTypes
import Testing
import WireProtocol

@Suite struct FrameParserTests {
    @Test func `frames come out whole, however the bytes were cut`() throws {
        let seed = UInt64.random(in: .min ... .max)
        var random = SeededGenerator(seed: seed)
        var samples = SampleMessages(seed: seed)
        var expected: [Frame] = []
        var bytes: [UInt8] = []
        for stream in UInt32(0)..<100 {
            let kind = MessageKind.allCases[random.below(MessageKind.allCases.count)]
            if kind.isBulk { continue }
            let payload = kind.carriesPayload ? [UInt8](0...UInt8(random.below(255))) : []
            let message = samples.message(kind)
            let frame = try encodeFrame(message, stream: stream, payloadBytes: payload.count)
            expected.append(Frame(header: try header(frame), message: message, payload: payload))
            bytes += frame + payload
        }
        for longest in [1, 31, 1000, 1 << 20] {
            var parser = FrameParser()
            var frames: [Frame] = []
            var start = 0
            while start < bytes.count {
                let end = min(start + 1 + random.below(longest), bytes.count)
                parser.append(Array(bytes[start..<end]))
                start = end
                while let frame = try parser.next() { frames.append(frame) }
            }
            #expect(frames == expected, "seed \(seed)")
            #expect(parser.isAtFrameBoundary)
        }
    }

    @Test func `an error stays`() throws {
        var parser = FrameParser()
        let ping = try encodeFrame(.ping(Ping(number: 1)))
        parser.append(ping + [UInt8](repeating: 0x50, count: 32))
        #expect(try parser.next()?.message == .ping(Ping(number: 1)))
        for _ in 0..<2 {
            #expect(throws: WireError.notAFrame) { try parser.next() }
            parser.append(ping)
        }
        #expect(parser.bufferedBytes == 0)
        #expect(!parser.isAtFrameBoundary)
    }

    @Test func `a kind that is not allowed is refused by its header`() throws {
        var parser = FrameParser(allowedKinds: [.hello, .refusal])
        parser.append(Array(try encodeFrame(.ping(Ping(number: 1)))[..<32]))
        #expect(throws: WireError.kindNotAllowed(.ping)) { try parser.next() }
    }

    @Test func `an announced payload beyond the connection's limit is refused by its header`()
        throws
    {
        var samples = SampleMessages(seed: 1)
        var parser = FrameParser(maximumPayloadBytes: 100)
        parser.append(
            Array(try encodeFrame(samples.message(.reserveKV), payloadBytes: 104)[..<32]))
        #expect(
            throws: WireError.payloadTooLong(.reserveKV, bytes: 104, limitBytes: 100)
        ) { try parser.next() }
    }

    @Test func `an announced payload takes no memory before it comes`() throws {
        var samples = SampleMessages(seed: 1)
        var parsers = [FrameParser](repeating: FrameParser(), count: 100)
        let frame = try encodeFrame(samples.message(.reserveKV), payloadBytes: 4 << 20)
        let before = peakResidentBytes()
        for index in parsers.indices {
            parsers[index].append(frame)
            #expect(try parsers[index].next() == nil)
            #expect(parsers[index].bufferedBytes == frame.count)
        }
        // 400 MiB are announced; other tests run at the same time.
        #expect(peakResidentBytes() - before < 100 << 20)
    }
}
