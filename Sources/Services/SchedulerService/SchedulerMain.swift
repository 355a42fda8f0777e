import Foundation
import Logging
import Roles
package import ServiceLifecycle
package import ServiceRuntime
package import ServiceStart
package import ServingTypes
import Transport

/// Settings of the scheduler.
package struct SchedulerSettings: Sendable {
    package var common: CommonSettings
    package var listen: NetworkAddress
    package var lease: Duration

    package init(_ reader: inout SettingsReader) throws(SettingsError) {
        common = try CommonSettings(
            &reader, role: .scheduler, adminListen: NetworkAddress(host: "127.0.0.1", port: 7401))
        listen = try reader.address(
            "listen", default: NetworkAddress(host: "127.0.0.1", port: 7400),
            "Address for control connections of all other services.")
        lease = try reader.duration(
            "lease", default: .seconds(3), in: .seconds(1) ... .seconds(60),
            "Time without a heartbeat after which a worker leaves the view.")
    }
}

/// Builds the scheduler from its settings.
package enum SchedulerMain {
    package static func services(
        _ settings: SchedulerSettings, _ runtime: ServiceRuntime
    ) async throws -> [any Service] {
        let logger = runtime.logger
        let common = settings.common
        let identity = try common.identify(incarnation: .random(in: 1 ... .max))
        let listener = try ControlListener(
            address: settings.listen, context: identity.context, hello: identity.hello,
            allowedRoles: [
                .gateway, .prefillWorker, .decodeWorker, .healthAgent, .administrator,
            ], logger: logger)
        let control = try await listener.start()
        var limits = SchedulerLimits()
        limits.lease = settings.lease
        // Rises with each start, as long as the host's clock does not go back.
        let epoch = UInt64(max(1, Date().timeIntervalSince1970 * 1000))
        let scheduler = SchedulerService(
            listener: listener, limits: limits, epoch: epoch, logger: logger)
        let admin = Administration(common, runtime) { nil }
        logger.notice(
            "the scheduler is ready", metadata: ["control": "\(control)"])
        return [
            scheduler, admin.endpoint,
            Announcer(common, control: control, admin: admin.endpoint),
        ]
    }
}
