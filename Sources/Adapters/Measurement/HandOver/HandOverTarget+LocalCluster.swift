package import LocalCluster
import ServiceStart
import ServingTypes

extension LocalCluster {
    /// The first gateway and the first worker of each kind.
    package var handOverTarget: HandOverTarget {
        get throws {
            guard let gateway = httpAddress, let prefill = processes(of: .prefillWorker).first,
                let decode = processes(of: .decodeWorker).first,
                let prefillMetrics = prefill.announcement.admin,
                let decodeMetrics = decode.announcement.admin
            else { throw MeasurementError.unexpectedAnswer(status: 0, body: "no cluster") }
            return HandOverTarget(
                gateway: gateway, prefillMetrics: prefillMetrics, decodeMetrics: decodeMetrics,
                prefillProcess: prefill.processIdentifier,
                decodeProcess: decode.processIdentifier)
        }
    }
}
