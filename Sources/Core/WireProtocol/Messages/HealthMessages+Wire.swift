import CProtobufC
import CWireMessages
import ServingTypes

extension DeviceReading: @unsafe WireForm {
    init(wire: Pdserve__Wire__DeviceReading) throws(WireError) {
        self.init(
            name: try unsafe readText(
                wire.name, limit: WireLimits.nameBytes, "DeviceReading.name"),
            kind: try unsafe readText(
                wire.kind, limit: WireLimits.nameBytes, "DeviceReading.kind"),
            totalMemoryBytes: unsafe wire.total_memory_bytes,
            freeMemoryBytes: unsafe wire.free_memory_bytes)
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__DeviceReading {
        var wire = unsafe Pdserve__Wire__DeviceReading()
        unsafe pdserve__wire__device_reading__init(&wire)
        unsafe wire.name = try arena.writeText(
            name, limit: WireLimits.nameBytes, "DeviceReading.name")
        unsafe wire.kind = try arena.writeText(
            kind, limit: WireLimits.nameBytes, "DeviceReading.kind")
        unsafe wire.total_memory_bytes = totalMemoryBytes
        unsafe wire.free_memory_bytes = freeMemoryBytes
        return unsafe wire
    }
}

extension WorkerFinding: @unsafe WireForm {
    init(wire: Pdserve__Wire__WorkerFinding) throws(WireError) {
        self.init(
            instance: try unsafe readInstance(wire.instance, "WorkerFinding.instance"),
            incarnation: unsafe wire.incarnation,
            isResponding: unsafe wire.is_responding != 0,
            silentMilliseconds: unsafe wire.silent_milliseconds,
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "WorkerFinding.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__WorkerFinding {
        var wire = unsafe Pdserve__Wire__WorkerFinding()
        unsafe pdserve__wire__worker_finding__init(&wire)
        unsafe wire.instance = try arena.writeInstance(instance, "WorkerFinding.instance")
        unsafe wire.incarnation = incarnation
        unsafe wire.is_responding = isResponding ? 1 : 0
        unsafe wire.silent_milliseconds = silentMilliseconds
        unsafe wire.reason = try arena.writeReason(reason)
        return unsafe wire
    }
}

extension HealthReport: @unsafe WireForm {
    init(wire: Pdserve__Wire__HealthReport) throws(WireError) {
        let host = HostReading(
            host: try unsafe readText(wire.host, limit: WireLimits.hostBytes, "HealthReport.host"),
            cores: unsafe wire.cores,
            busyFraction: try checked(
                unsafe wire.busy_fraction, 0...1, "HealthReport.busy_fraction"),
            loadAverage: try checked(
                unsafe wire.load_average, 0...1e9, "HealthReport.load_average"),
            totalMemoryBytes: unsafe wire.total_memory_bytes,
            availableMemoryBytes: unsafe wire.available_memory_bytes,
            devices: try unsafe readForms(
                wire.devices, count: wire.n_devices, limit: WireLimits.devices,
                "HealthReport.devices"))
        self.init(
            host: host,
            findings: try unsafe readForms(
                wire.findings, count: wire.n_findings, limit: WireLimits.findings,
                "HealthReport.findings"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__HealthReport {
        var wire = unsafe Pdserve__Wire__HealthReport()
        unsafe pdserve__wire__health_report__init(&wire)
        unsafe wire.host = try arena.writeText(
            host.host, limit: WireLimits.hostBytes, "HealthReport.host")
        unsafe wire.cores = host.cores
        unsafe wire.busy_fraction = try checked(
            host.busyFraction, 0...1, "HealthReport.busy_fraction")
        unsafe wire.load_average = try checked(
            host.loadAverage, 0...1e9, "HealthReport.load_average")
        unsafe wire.total_memory_bytes = host.totalMemoryBytes
        unsafe wire.available_memory_bytes = host.availableMemoryBytes
        unsafe wire.devices = try arena.writeForms(
            host.devices, limit: WireLimits.devices, "HealthReport.devices")
        unsafe wire.n_devices = host.devices.count
        unsafe wire.findings = try arena.writeForms(
            findings, limit: WireLimits.findings, "HealthReport.findings")
        unsafe wire.n_findings = findings.count
        return unsafe wire
    }
}
