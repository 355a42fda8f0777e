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
    package var schedulers: [NetworkAddress]
    package var limits = HealthLimits()
    package var supervisedFile: String?
    package var folders = ["/"]
    package var nvmlLibrary = NVMLProbe.library
    package var npuTool: String?

    package init(_ reader: inout SettingsReader) throws(SettingsError) {
        common = try CommonSettings(
            &reader, role: .healthAgent,
            adminListen: NetworkAddress(host: "127.0.0.1", port: 7431))
        schedulers = try reader.schedulers()
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
        try readProbes(&reader)
    }

    private mutating func readProbes(
        _ reader: inout SettingsReader
    ) throws(SettingsError) {
        limits.stallDeadline = try reader.duration(
            "stall-deadline", default: limits.stallDeadline, in: .seconds(1) ... .seconds(3600),
            "Time without a new engine iteration while it has work, after which the engine "
                + "counts as hung.")
        limits.killDeadline = try reader.duration(
            "kill-after", default: limits.killDeadline, in: .seconds(1) ... .seconds(3600),
            "Silence after which a supervised worker is killed.")
        limits.canaryInterval = try reader.duration(
            "canary-interval", default: limits.canaryInterval, in: .zero ... .seconds(3600),
            "Time between two requests of a few tokens to a worker that is idle; 0: none.")
        limits.canaryDeadline = try reader.duration(
            "canary-deadline", default: limits.canaryDeadline,
            in: .milliseconds(500) ... .seconds(600),
            "Time an idle worker may take for them; three failures in a row take it down.")
        supervisedFile = try reader.optionalText(
            "supervise",
            "YAML file with worker processes to start and to keep running; see the documentation "
                + "of health-agents.")
        folders = try reader.list(
            "folders", default: folders, "Folders whose disks must have room.")
        nvmlLibrary = try reader.text(
            "nvml-library", default: nvmlLibrary,
            "NVIDIA's management library, used where it is there.")
        npuTool = try reader.optionalText(
            "npu-smi", "Ascend's npu-smi; default: that in PATH, if there is one.")
    }
}

/// Builds the health-agent from its settings.
package enum HealthMain {
    package static func services(
        _ settings: HealthSettings, _ runtime: ServiceRuntime
    ) async throws -> [any Service] {
        let logger = runtime.logger
        let common = settings.common
        let identity = try common.identify(incarnation: .random(in: 1 ... .max), runtime)
        let scheduler = try identity.schedulerClient(at: settings.schedulers, logger: logger)
        let links = identity.links(logger: logger)
        HealthMetrics.describe(in: runtime.metrics)
        let supervisor = try makeSupervisor(settings, runtime)
        let agent = HealthService(
            scheduler: scheduler, links: links, probe: HostProbe(host: common.hostName),
            probes: probes(settings), supervisor: supervisor, host: common.hostName,
            limits: settings.limits, logger: logger)
        let admin = Administration(common, runtime) {
            agent.isConnected ? nil : "the scheduler is not connected"
        }
        logger.notice("the health-agent is ready", metadata: ["host": "\(common.hostName)"])
        let services: [any Service] = [
            CertificateService(identity.certificates), agent, admin.endpoint,
            Announcer(common, admin: admin.endpoint),
        ]
        return services + (supervisor.map { [$0] } ?? [])
    }

    private static func makeSupervisor(
        _ settings: HealthSettings, _ runtime: ServiceRuntime
    ) throws -> Supervisor? {
        guard let file = settings.supervisedFile else { return nil }
        var limits = SupervisionLimits()
        // What remains of the shutdown's time is for killing those that don't end.
        limits.stopDeadline = min(
            limits.stopDeadline, runtime.settings.shutdownLimit * 0.8)
        return Supervisor(
            commands: try SuperviseFile.read(file), host: settings.common.hostName,
            limits: limits, logger: runtime.logger)
    }

    private static func probes(_ settings: HealthSettings) -> [ProbeThread] {
        let deadline = settings.limits.devices.probeDeadline
        var probes = [
            ProbeThread("host", deadline: deadline) { ProcessorProbe() }
        ]
        let folders = settings.folders
        if !folders.isEmpty {
            probes.append(ProbeThread("disks", deadline: deadline) { DiskProbe(folders: folders) })
        }
        let library = settings.nvmlLibrary
        if NVMLProbe.isInstalled(path: library) {
            probes.append(ProbeThread("NVML", deadline: deadline) { NVMLProbe(path: library) })
        }
        if let tool = settings.npuTool ?? NPUProbe.find() {
            probes.append(ProbeThread("npu-smi", deadline: deadline) { NPUProbe(path: tool) })
        }
        return probes
    }
}
