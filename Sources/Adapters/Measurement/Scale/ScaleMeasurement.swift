import FileBudget
package import Foundation
import LocalCluster
package import Reports
import ServiceRuntime
import ServiceStart
import ServingTypes
import Synchronization
import Transport

/// What a scheduler bears: one real process, and many instances and gateways that are played here.
package final class ScaleMeasurement: Sendable {
    package struct Settings: Sendable {
        package var instances: [Int]
        package var gateways: Int
        package var window: Duration
        /// Of each kind; at most a quarter of the instances.
        package var deaths: Int
        package var executables: URL
        package var folder: URL
        /// The scheduler has a store, and finds its state again after its restart.
        package var keepsState = false

        package init(
            instances: [Int], gateways: Int, window: Duration, deaths: Int, executables: URL,
            folder: URL
        ) {
            self.instances = instances
            self.gateways = gateways
            self.window = window
            self.deaths = deaths
            self.executables = executables
            self.folder = folder
        }
    }

    enum Limits {
        /// Time all instances have to be in every gateway's view.
        static let arrival = Duration.seconds(180)
        /// And to have got something to do after that.
        static let assignment = Duration.seconds(15)
        /// Until registering has calmed down.
        static let calm = Duration.seconds(3)
        /// Time a death has to show in every gateway's view.
        static let departure = Duration.seconds(20)
        /// Between two deaths.
        static let betweenDeaths = Duration.milliseconds(50)
        static let poll = Duration.milliseconds(5)
        /// Files a process needs besides its connections.
        static let otherFiles = 100
        static let statusDeadline = Duration.seconds(20)
    }

    private let settings: Settings
    private let progress: @Sendable (String) -> Void
    private let results: Mutex<ScaleResults>

    package init(settings: Settings, progress: @escaping @Sendable (String) -> Void) {
        self.settings = settings
        self.progress = progress
        results = Mutex(ScaleResults(settings: settings))
    }

    /// What was measured so far.
    package var report: Report { results.withLock { $0.report } }

    /// Measures each number; one that this host does not bear is reported and left out.
    ///
    /// - Throws: if none could be measured.
    package func run() async throws {
        let files = OpenFiles.raiseLimit() ?? Int.max
        var problem: MeasurementError?
        for count in settings.instances {
            do {
                let needed = count + settings.gateways + Limits.otherFiles
                guard needed <= files else {
                    throw MeasurementError.notReached(
                        instances: count,
                        "\(needed) open files are needed, the limit is \(files) (ulimit -Hn)")
                }
                let level = try await measure(count)
                results.withLock { $0.add(level) }
            } catch let error as MeasurementError {
                problem = error
                progress("\(error)")
                results.withLock { $0.findings.append("\(error)") }
            }
        }
        try results.withLock { results throws(MeasurementError) in
            if let problem, results.levels.isEmpty { throw problem }
            results.isComplete = true
        }
    }

    private func measure(_ count: Int) async throws -> ScaleLevel {
        let folder = settings.folder.appending(path: "\(count)")
        var clusterSettings = LocalCluster.Settings(
            executables: settings.executables, folder: folder, modelPath: nil)
        clusterSettings.cluster = "scale"
        if settings.keepsState {
            let store = folder.appending(path: "scheduler.sqlite").path
            clusterSettings.arguments = [.scheduler: ["--store", "sqlite:\(store)"]]
        }
        let certificates = folder.appending(path: "certificates").path
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try DevelopmentCertificates.make(
            in: certificates, cluster: clusterSettings.cluster, hosts: ["localhost", "127.0.0.1"])
        let cluster = LocalCluster(settings: clusterSettings)
        progress("\(count) instances: starting a scheduler in \(folder.path)")
        let scheduler = try await cluster.startScheduler()
        do {
            let address = try Self.address(of: scheduler)
            let services = try PlayedServices(
                cluster: clusterSettings.cluster, scheduler: address, certificates: certificates)
            let trial = ScaleTrial(
                count: count, settings: settings, cluster: cluster, services: services,
                progress: progress)
            let level = try await trial.run()
            await cluster.stop()
            return level
        } catch {
            await cluster.stop()
            throw error
        }
    }

    static func address(of scheduler: ManagedProcess) throws(MeasurementError) -> NetworkAddress {
        guard let address = scheduler.announcement.control else {
            throw .unexpectedAnswer(status: 0, body: "the scheduler has no control address")
        }
        return address
    }
}
