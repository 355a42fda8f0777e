import Foundation
import Synchronization
import Testing

@testable import Transport

/// Record for record: what an attacker can do to the bytes, and what the receiver makes of it.
@Suite(.timeLimit(.minutes(1))) struct SealedRecordTests {
    private static let refusals: [TransportError] = [
        .recordRejected(.notAuthentic), .recordRejected(.malformedHeader), RecordOpener.cutOff,
    ]

    @Test func `a stream is sealed as Protocols/README.md says`() throws {
        // Written by another implementation of AES-GCM, by the description alone.
        let expected = """
            0600000056ff0443a5ccda941b4c180fc2db2d7808d8fe225530
            070000004394d7da90c6d0bced9e9d699b262adc8511378241e28b
            0b000000b38de6cbe232a9002fc82aa0c0a34b76a4195eb6191d8a16a3d669
            000000011835a7911f062ca8b89fefcf6e0a98b0
            """
        let payloads = ["sealed", "records", "change keys"].map { Array($0.utf8) }
        let records = try SealedStream.records(of: payloads, recordsPerKey: 2)
        let text = records.joined().map { String(format: "%02x", $0) }.joined()
        #expect(text == expected.filter { !$0.isWhitespace })
        let outcome = try SealedStream.open(records, recordsPerKey: 2)
        #expect(outcome == .init(bytes: payloads.flatMap(\.self), error: .closedByPeer))
    }

    @Test func `no bit of a record can be turned`() throws {
        let record = try #require(SealedStream.records(of: [Array("secret".utf8)]).first)
        for position in record.indices {
            for bit in 0..<8 {
                var bytes = record
                bytes[position] ^= 1 << bit
                let outcome = try SealedStream.open([bytes])
                #expect(outcome.bytes.isEmpty)
                let error = try #require(outcome.error)
                #expect(Self.refusals.contains(error))
                if position >= RecordHeader.byteCount {
                    #expect(error == .recordRejected(.notAuthentic))
                }
            }
        }
    }

    @Test(arguments: [0, 3, 4, 5, 4000, 20_002, 20_003, 20_004, 20_019])
    func `no bit of a record that lands in the caller's memory can be turned`(
        position: Int
    ) throws {
        var record = try #require(SealedStream.records(of: [patternBytes(20_000)]).first)
        #expect(record.count == 20_020)
        record[position] ^= 1
        let outcome = try SealedStream.open([record])
        #expect(outcome.bytes.isEmpty && outcome.untouchedOrZero)
        #expect(outcome.error.map(Self.refusals.contains) == true)
    }

    @Test(arguments: [100, 10_000])
    func `records swapped, repeated or left out are refused`(plainBytes: Int) throws {
        let payloads = (0..<3).map { [UInt8](repeating: UInt8($0), count: plainBytes) }
        let records = try SealedStream.records(of: payloads)
        func refused(_ altered: [[UInt8]], after good: Int) throws {
            let outcome = try SealedStream.open(altered)
            #expect(outcome.bytes == payloads.prefix(good).flatMap(\.self))
            #expect(outcome.error == .recordRejected(.notAuthentic))
        }
        try refused([records[1], records[0], records[2]], after: 0)
        try refused([records[0], records[2], records[1]], after: 1)
        try refused([records[0], records[0], records[1]], after: 1)
        try refused([records[0], records[2]], after: 1)
        try refused([records[1], records[2]], after: 0)
        // The end may not come earlier than it was sealed.
        try refused([records[0], records[3]], after: 1)
    }

    @Test func `a stream cut anywhere does not look finished`() throws {
        let payloads = [[UInt8](repeating: 1, count: 10), [UInt8](repeating: 2, count: 5)]
        let records = try SealedStream.records(of: payloads)
        let bytes = Array(records.joined())
        for length in bytes.indices {
            let outcome = try SealedStream.open([Array(bytes.prefix(length))])
            #expect(outcome.error == RecordOpener.cutOff)
            let whole = length >= 55 ? 15 : length >= 30 ? 10 : 0
            #expect(outcome.bytes == Array(payloads.joined().prefix(whole)))
        }
        #expect(try SealedStream.open([bytes]).error == .closedByPeer)
    }

    @Test func `records of the other direction or another connection are refused`() throws {
        let records = try SealedStream.records(of: [Array("reflected".utf8)])
        let refused = SealedStream.Outcome(bytes: [], error: .recordRejected(.notAuthentic))
        #expect(try SealedStream.open(records, direction: .serverToClient) == refused)
        #expect(try SealedStream.open(records, keys: FixedKeys(seed: 1)) == refused)
    }

    @Test(arguments: [0, 0x0004_0001, 0x0100_0001, 0x0200_0000, 0x0200_0001, .max] as [UInt32])
    func `a header that nobody writes is refused before anything is read`(word: UInt32) throws {
        let bytes = (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) }
        #expect(
            try SealedStream.open([bytes])
                == .init(bytes: [], error: .recordRejected(.malformedHeader)))
    }

    @Test func `after a refusal nothing more is handed out, even if it is authentic`() throws {
        let records = try SealedStream.records(of: [[1], [2]])
        let pair = try SocketPair()
        let opener = try pair.opener()
        var forged = records[0]
        forged[4] ^= 1
        pair.send(forged + records[0] + records[1])
        for _ in 0..<3 {
            #expect(
                failure { _ = try SealedStream.read(opener, count: 10) }
                    == .recordRejected(.notAuthentic))
        }
        #expect(pair.receiver.isShutDown)
    }

    @Test func `keys change after so many records, and none is used by two epochs`() throws {
        let keys = FixedKeys()
        let payloads = (0..<10).map { [UInt8](repeating: $0, count: 7) }
        let records = try SealedStream.records(of: payloads, keys: keys, recordsPerKey: 3)
        #expect(keys.exported == [0, 1, 2, 3])
        #expect(
            try SealedStream.open(records, recordsPerKey: 3)
                == .init(bytes: payloads.flatMap(\.self), error: .closedByPeer))
        // A receiver that counts otherwise has the wrong key from the first change on.
        #expect(
            try SealedStream.open(records, recordsPerKey: 4)
                == .init(
                    bytes: payloads.prefix(3).flatMap(\.self),
                    error: .recordRejected(.notAuthentic)))
    }

    @Test func `a deadline in the middle of a short record loses nothing`() throws {
        let record = try #require(SealedStream.records(of: [Array("patience".utf8)]).first)
        let pair = try SocketPair()
        let opener = try pair.opener()
        for byte in record.dropLast() {
            pair.send([byte])
            #expect(
                failure { _ = try SealedStream.read(opener, count: 8, .milliseconds(1)) }
                    == .deadline)
        }
        pair.send([record[record.count - 1]])
        #expect(try SealedStream.read(opener, count: 3) == Array("pat".utf8))
        #expect(try SealedStream.read(opener, count: 8) == Array("ience".utf8))
    }

    @Test func `a deadline in the middle of a record in the caller's memory is the end`() throws {
        let record = try #require(SealedStream.records(of: [patternBytes(20_000)]).first)
        let pair = try SocketPair()
        let opener = try pair.opener()
        pair.send(Array(record.prefix(10_000)))
        #expect(
            failure { _ = try SealedStream.read(opener, count: 20_000, .milliseconds(20)) }
                == .deadline)
        pair.send(Array(record.dropFirst(10_000)))
        #expect(failure { _ = try SealedStream.read(opener, count: 20_000) } == .deadline)
    }
}
