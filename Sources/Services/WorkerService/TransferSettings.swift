import Foundation
import InferenceEngine
package import KVHandOver
package import KVTransfer
import Logging
import ServiceRuntime
import ServiceStart
import ServingTypes
import SharedMemory
package import Transport

/// Settings of a worker's KV transfers.
package struct TransferSettings: Sendable {
    /// Bounds of decisions; the keys set only `connections`.
    package var handOver = KVHandOverLimits()
    package var records: BulkRecords
    package var landingMiB: Int
    package var localFolder: String?
    package var compression: CompressionMode
    package var checksums: Bool

    init(_ reader: inout SettingsReader) throws(SettingsError) {
        handOver.connections = try reader.integer(
            "kv-connections", default: 1, in: 1...16,
            "Connections to each worker that decodes; each takes up to a core on both sides.")
        records = try reader.choice(
            "kv-records", default: BulkRecords.sealed,
            "How KV is encrypted between workers: 'sealed' is faster, 'tls' leaves it to "
                + "OpenSSL's TLS; 'tls' if either side says so.")
        landingMiB = try reader.integer(
            "kv-landing", default: 1024, in: 0...(1 << 20),
            "MiB of KV that may have arrived, or be on its way, and not be in the engine.")
        localFolder = try reader.optionalText(
            "local-folder",
            "Folder of the socket through which workers of this host pass KV as memory; "
                + "'none': always over the network. Default: one in the temporary folder.")
        compression = try reader.choice(
            "kv-compression", default: CompressionMode.auto,
            "Compression of KV that travels; 'auto': where measured rates say that it pays, "
                + "never on the same host, 'on': always.")
        checksums = try reader.bool(
            "kv-checksums", default: false,
            "Give pieces of KV that travel raw a checksum too; compressed ones always have one, "
                + "and a block's own is checked when it is imported.")
    }

    /// Folder of the local socket; nil if KV never goes through memory.
    var localDirectory: String? {
        guard SharedMemorySource.isSupported, localFolder != "none" else { return nil }
        if let localFolder { return localFolder }
        return FileManager.default.temporaryDirectory
            .appendingPathComponent("pdserve-\(getuid())").path
    }

    /// Where other workers of this host pass memory; nil if none is taken.
    ///
    /// Without it KV comes over the network, so a folder that can't be used is no reason to stop.
    func localListener(of instance: InstanceID, logger: Logger) -> LocalListener? {
        guard let localDirectory else { return nil }
        do throws(LocalTransferError) {
            return try LocalListener(
                directory: localDirectory, name: "\(instance.name)-\(getpid())",
                logger: logger)
        } catch {
            logger.warning(
                "workers of this host can't pass KV as memory; it comes over the network",
                metadata: ["folder": "\(localDirectory)", "reason": "\(error)"])
            return nil
        }
    }
}

extension WorkerSettings {
    /// What exported KV is written into.
    var exportMemory: any KVMemorySource {
        transfers.localDirectory != nil ? SharedMemorySource() : OrdinaryKVMemory()
    }
}
