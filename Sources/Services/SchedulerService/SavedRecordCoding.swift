import ClusterStore
import Foundation
import Grouping
import ServiceStart

/// Records as the store has them: JSON, which people can read, too.
enum SavedRecordCoding {
    /// Rises when older versions of this software would misunderstand the records.
    static let format = 1
    static let formatKey = "format"
    static let rulesKey = "rules"

    struct Format: Codable {
        var format: Int
        /// Of the software that wrote last.
        var version: String
    }

    /// Which cluster file applied; for people, nothing follows from it.
    struct Rules: Codable {
        var bytes: Int
        var hash: String

        /// - Parameter text: nil if there is none.
        init(_ text: String?) {
            bytes = text?.utf8.count ?? 0
            // FNV-1a.
            let sum = (text ?? "").utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { sum, byte in
                (sum ^ UInt64(byte)) &* 0x0000_0100_0000_01b3
            }
            hash = String(sum, radix: 16)
        }
    }

    /// What every term writes first.
    static func header(rules: String?) throws -> [String: [UInt8]?] {
        [
            formatKey: try bytes(Format(format: format, version: Product.version)),
            rulesKey: try bytes(Rules(rules)),
        ]
    }

    static func encode(_ record: SavedRecord) throws -> [UInt8] {
        switch record {
        case .counters(let record): try bytes(record)
        case .scenario(let record): try bytes(record)
        case .group(let record): try bytes(record)
        case .seat(let record): try bytes(record)
        }
    }

    /// Leaves out what it does not understand.
    ///
    /// - Parameter unread: called with the key of each record that can't be read.
    /// - Throws: `StoreError.newerFormat`, before anything is taken over.
    static func decode(
        _ records: [String: [UInt8]], of place: String, unread: (String) -> Void
    ) throws(StoreError) -> [SavedKey: SavedRecord] {
        if let bytes = records[formatKey] {
            guard let found = try? JSONDecoder().decode(Format.self, from: Data(bytes)) else {
                throw .failed(place: place, reason: "its format is not written in it")
            }
            guard found.format <= format else {
                throw .newerFormat(place: place, found: found.format, known: format)
            }
        }
        var decoded: [SavedKey: SavedRecord] = [:]
        for (text, bytes) in records where text != formatKey && text != rulesKey {
            guard let key = SavedKey(text), let record = decode(key, Data(bytes)) else {
                unread(text)
                continue
            }
            decoded[key] = record
        }
        return decoded
    }

    private static func decode(_ key: SavedKey, _ data: Data) -> SavedRecord? {
        let decoder = JSONDecoder()
        return switch key {
        case .counters:
            (try? decoder.decode(SavedCounters.self, from: data)).map { .counters($0) }
        case .scenario:
            (try? decoder.decode(SavedScenario.self, from: data)).map { .scenario($0) }
        case .group: (try? decoder.decode(SavedGroup.self, from: data)).map { .group($0) }
        case .seat: (try? decoder.decode(SavedSeat.self, from: data)).map { .seat($0) }
        }
    }

    private static func bytes(_ value: some Encodable) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(value))
    }
}
