import ClusterRules
import FileBudget
import Foundation
import Grouping
import HTTPServer
import Logging
package import Roles
package import ServiceLifecycle
package import ServiceRuntime
package import ServiceStart
package import ServingTypes
import Transport

/// Settings of the scheduler.
package struct SchedulerSettings: Sendable {
    package var common: CommonSettings
    package var listen: NetworkAddress
    package var clusterFile: String?
    package var store: StoreSettings
    package var limits = SchedulerLimits()

    package init(_ reader: inout SettingsReader) throws(SettingsError) {
        common = try CommonSettings(
            &reader, role: .scheduler, adminListen: NetworkAddress(host: "127.0.0.1", port: 7401))
        listen = try reader.address(
            "listen", default: NetworkAddress(host: "127.0.0.1", port: 7400),
            "Address for control connections of all other services.")
        limits.lease = try reader.duration(
            "lease", default: limits.lease, in: .seconds(1) ... .seconds(60),
            "Time without a heartbeat after which a worker leaves the view.")
        clusterFile = try reader.optionalText(
            "cluster-file",
            "YAML file with the cluster's scenarios; it is read again when it changes.")
        store = try StoreSettings(&reader, cluster: common.cluster)
        limits.groups.window = try reader.duration(
            "ratio-window", default: limits.groups.window, in: .seconds(2) ... .seconds(600),
            "Time over which traffic is measured to choose between prefill and decode.")
        limits.groups.settle = try reader.duration(
            "ratio-settle", default: limits.groups.settle, in: .seconds(1) ... .seconds(3600),
            "Time between two changes of a scenario's ratio of prefill to decode.")
        limits.groups.minimumSamples = try reader.integer(
            "ratio-samples", default: limits.groups.minimumSamples, in: 1...10_000,
            "Answers that the window needs before its traffic is judged.")
    }
}

/// Builds the scheduler from its settings.
package enum SchedulerMain {
    package static func services(
        _ settings: SchedulerSettings, _ runtime: ServiceRuntime
    ) async throws -> [any Service] {
        let logger = runtime.logger
        let common = settings.common
        var rules = settings.clusterFile.map { ClusterRulesFile(path: $0) }
        let content = try rules?.read()
        let identity = try common.identify(incarnation: .random(in: 1 ... .max), runtime)
        SchedulerMetrics.describe(in: runtime.metrics)
        StoreLink.describe(in: runtime.metrics)
        let office = try await SchedulerOffice(
            settings, identity: identity, connections: connectionLimit(settings.limits, logger),
            store: try settings.store.open(logger), file: rules, content: content, logger: logger)
        runtime.metrics.observe(
            "scheduler_examined_members",
            "Members looked at since the start: what the scheduler's work grows with."
        ) { Double(office.scheduler?.examinedMembers ?? 0) }
        runtime.metrics.observe(
            "scheduler_awaited_workers",
            "Workers of an earlier scheduler that have not come back yet."
        ) { Double(office.scheduler?.awaitedWorkers ?? 0) }
        var routes = HTTPRoutes()
        routes.add("GET", "/wanted") { _ in
            try WantedReport(office.scheduler?.wanted ?? []).reply()
        }
        let admin = Administration(common, runtime, routes: routes) { office.health }
        office.announce(with: admin.endpoint)
        return [CertificateService(identity.certificates), office, admin.endpoint]
    }

    /// As many connections as the process may have files, so that none fails for want of one.
    private static func connectionLimit(_ limits: SchedulerLimits, _ logger: Logger) -> Int {
        let files = OpenFiles.forConnections
        guard files < limits.maximumConnections else { return limits.maximumConnections }
        logger.notice(
            "open files bound the number of connections; allow more with ulimit -n",
            metadata: [
                "connections": "\(files)", "wanted": "\(limits.maximumConnections)",
            ])
        return files
    }
}
