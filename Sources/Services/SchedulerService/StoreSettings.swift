package import ClusterStore
import Foundation
import Logging
package import ServiceRuntime

/// Where the scheduler keeps what outlives it.
package struct StoreSettings: Sendable {
    package let text: String
    private var options = EtcdStore.Options()

    init(_ reader: inout SettingsReader, cluster: String) throws(SettingsError) {
        text = try reader.text(
            "store", default: "none",
            "What outlives this process, and who leads if there are several: none, sqlite:PATH, "
                + "or etcd:https://HOST:2379[,https://HOST:2379].")
        options.prefix = try reader.text(
            "store-prefix", default: "/pdserve/\(cluster)", "What all keys in etcd begin with.")
        options.authority = try reader.optionalText(
            "store-ca", "PEM file with the authority of etcd's certificates.")
        options.certificate = try reader.optionalText(
            "store-certificate", "PEM certificate with which etcd is called.")
        options.key = try reader.optionalText("store-key", "PEM key of that certificate.")
        options.lease = try reader.duration(
            "store-lease", default: StoreLimits.lease, in: StoreLimits.leases,
            "Time without a sign of life after which another scheduler takes over (etcd).")
    }

    /// Nil if there is none.
    func open(_ logger: Logger) throws(StoreError) -> (any ClusterStore)? {
        try StoreChoice(text).open(options, logger: logger)
    }
}

extension StoreError: ServiceFailure {
    package var exitCode: ExitCode {
        if case .wrongSetting = self { .usage } else { .unavailable }
    }
}
