package import DeviceProfile
package import Foundation
package import ServingTypes

/// Keeps what was measured of an engine, so that the next start need not measure again.
package struct ProfileStore: Sendable {
    /// What has to be the same for measured times to hold.
    package struct Key: Hashable, Sendable, Codable {
        /// The model's, in hexadecimal digits.
        package var fingerprint: String
        package var device: String
        package var host: String
        package var threads: Int
        package var microBatchTokens: Int
        package var maximumSequences: Int
        package var kvCapacityTokens: Int
        package var kvType: String
        /// Any other setting that changes times.
        package var settings: String

        package init(
            fingerprint: ModelFingerprint, device: String, host: String, threads: Int,
            microBatchTokens: Int, maximumSequences: Int, kvCapacityTokens: Int, kvType: String,
            settings: String
        ) {
            self.fingerprint = Self.hexadecimal(fingerprint.bytes)
            self.device = device
            self.host = host
            self.threads = threads
            self.microBatchTokens = microBatchTokens
            self.maximumSequences = maximumSequences
            self.kvCapacityTokens = kvCapacityTokens
            self.kvType = kvType
            self.settings = settings
        }

        static func hexadecimal(_ bytes: [UInt8]) -> String {
            let digits = Array("0123456789abcdef".utf8)
            return String(
                decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] },
                as: UTF8.self)
        }

        var fileName: String {
            let facts =
                "\(fingerprint)|\(device)|\(host)|\(threads)|\(microBatchTokens)|"
                + "\(maximumSequences)|\(kvCapacityTokens)|\(kvType)|\(settings)"
            var hash = SHA256()
            hash.update(Array(facts.utf8))
            return Self.hexadecimal(Array(hash.finalize().prefix(12))) + ".json"
        }
    }

    /// A file's contents.
    package struct Kept: Hashable, Sendable, Codable {
        /// Of this layout; files of another are measured again.
        package var version: Int
        package var key: Key
        package var curves: MeasuredCurves
        package var measuredAt: Date
        /// Runnable processes per processor, while it was measured.
        package var loadPerProcessor: Double

        package init(
            key: Key, curves: MeasuredCurves, measuredAt: Date, loadPerProcessor: Double
        ) {
            version = ProfileStore.version
            self.key = key
            self.curves = curves
            self.measuredAt = measuredAt
            self.loadPerProcessor = loadPerProcessor
        }
    }

    package static let version = 1
    /// Larger files aren't ours.
    private static let maximumBytes = 4 << 20

    package let folder: URL

    package init(folder: URL) { self.folder = folder }

    /// `$XDG_CACHE_HOME/pdserve/profiles`, or below `~/.cache`; nil without a home.
    package static func usualFolder(_ environment: [String: String]) -> URL? {
        if let cache = environment["XDG_CACHE_HOME"], cache.hasPrefix("/") {
            return URL(fileURLWithPath: cache).appending(path: "pdserve/profiles")
        }
        guard let home = environment["HOME"], home.hasPrefix("/") else { return nil }
        return URL(fileURLWithPath: home).appending(path: ".cache/pdserve/profiles")
    }

    /// What is kept for this key; nil if there is nothing, or nothing that can be read.
    package func kept(_ key: Key) -> Kept? {
        let url = folder.appending(path: key.fileName)
        guard
            let size = try? FileManager.default.attributesOfItem(atPath: url.path)[.size] as? Int,
            size <= Self.maximumBytes, let data = try? Data(contentsOf: url),
            let kept = try? JSONDecoder().decode(Kept.self, from: data),
            kept.version == Self.version, kept.key == key
        else { return nil }
        return kept
    }

    /// Writes the file whole or not at all.
    ///
    /// - Throws: if the folder can't be made or written; nothing is lost but the time to measure.
    package func keep(_ kept: Kept) throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try encoder.encode(kept).write(
            to: folder.appending(path: kept.key.fileName), options: .atomic)
    }
}
