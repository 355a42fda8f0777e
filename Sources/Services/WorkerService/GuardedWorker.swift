import InferenceEngine
import Logging
import ServiceLifecycle
import ServiceRuntime
import Transport

/// A worker with a watchdog over its engine, its clock and its event loops.
struct GuardedWorker: Service {
    private static let beat = Duration.seconds(1)

    let worker: WorkerService
    private let watchdog: Watchdog

    init(
        _ worker: WorkerService, settings: WatchdogSettings, engine: any InferenceEngine,
        logger: Logger
    ) {
        self.worker = worker
        watchdog = Watchdog(logger: logger)
        if settings.stepLimit > .zero {
            watchdog.watch(
                Watchdog.Part("engine", deadline: settings.stepLimit) {
                    engine.progress.stepAge
                })
        }
        guard settings.loopLimit > .zero else { return }
        let pulse = worker.pulse
        watchdog.watch(Watchdog.Part("clock", deadline: settings.loopLimit) { pulse.age })
        watch(loops: settings.loopLimit)
    }

    private func watch(loops deadline: Duration) {
        let pulses = (0..<EventLoopPulse.count).map { _ in Pulse() }
        EventLoopPulse.start(every: Self.beat) { pulses[$0].beat() }
        for (number, pulse) in pulses.enumerated() {
            watchdog.watch(
                Watchdog.Part("event loop \(number)", deadline: deadline) { pulse.age })
        }
    }

    func run() async throws {
        try await worker.run()
        withExtendedLifetime(watchdog) {}
    }
}
