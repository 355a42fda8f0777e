import HostProbe
import Logging
package import Roles
package import ServiceLifecycle
package import ServiceRuntime
package import ServiceStart
package import ServingTypes
import Transport

/// Settings of the health-agent.
package struct HealthSettings: Sendable {
    package var common: CommonSettings
    package var scheduler: NetworkAddress
    package var limits = HealthLimits()

    package init(_ reader: inout SettingsReader) throws(SettingsError) {
        common = try CommonSettings(
            &reader, role: .healthAgent,
            adminListen: NetworkAddress(host: "127.0.0.1", port: 7431))
        scheduler = try reader.address(
            "scheduler", default: NetworkAddress(host: "127.0.0.1", port: 7400),
            "Control address of the scheduler.")
        limits.probeInterval = try reader.duration(
            "probe-interval", default: limits.probeInterval,
            in: .milliseconds(50) ... .seconds(60), "Time between two probes of a worker.")
        limits.silenceDeadline = try reader.duration(
            "silence-deadline", default: limits.silenceDeadline,
            in: .milliseconds(200) ... .seconds(300),
            "Time without an answer after which a worker counts as silent.")
        limits.stepDeadline = try reader.duration(
            "step-deadline", default: limits.stepDeadline, in: .seconds(1) ... .seconds(3600),
            "Time one engine iteration may take before the engine counts as hung.")
    }
}

/// Builds the health-agent from its settings.
package enum HealthMain {
    package static func services(
        _ settings: HealthSettings, _ runtime: ServiceRuntime
    ) async throws -> [any Service] {
        let logger = runtime.logger
        let common = settings.common
        let identity = try common.identify(incarnation: .random(in: 1 ... .max))
        let scheduler = try identity.client(
            of: PeerExpectation(.scheduler), at: settings.scheduler, logger: logger)
        let links = identity.links(logger: logger)
        let agent = HealthService(
            scheduler: scheduler, links: links, probe: HostProbe(host: common.hostName),
            host: common.hostName, limits: settings.limits, logger: logger)
        let admin = Administration(common, runtime) {
            agent.isConnected ? nil : "the scheduler is not connected"
        }
        logger.notice("the health-agent is ready", metadata: ["host": "\(common.hostName)"])
        return [agent, admin.endpoint, Announcer(common, admin: admin.endpoint)]
    }
}
