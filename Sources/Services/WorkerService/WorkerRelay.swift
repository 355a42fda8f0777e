import Calibration
package import InferenceEngine
import KVTransfer
import Logging
import Synchronization
import Transport

/// Carries engine events to the service, which is made after the engine.
package final class WorkerRelay: Sendable {
    private let target = Mutex<Weak>(Weak())

    private struct Weak { weak var service: WorkerService? }

    /// What sees the events until the service is there.
    let calibration = CalibrationTap()

    package init() {}

    package func engineEvent(_ event: EngineEvent) {
        guard let service else { return calibration.engineEvent(event) }
        service.engineEvent(event)
    }

    /// Serves one bulk connection on its own thread until it ends.
    func serve(_ connection: BulkConnection, logger: Logger) {
        guard let service else { return }
        do {
            try service.serveKV(connection, logger: logger)
        } catch {
            logger.error("KV can't be received", metadata: ["reason": "\(error)"])
        }
    }

    var service: WorkerService? { target.withLock { $0.service } }

    func connect(_ service: WorkerService) { target.withLock { $0.service = service } }
}
