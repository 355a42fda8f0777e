import CProtobufC
import CWireMessages
import ServingTypes

/// What a device may show: more than any does, and finite.
private let shown = 0...1e6

extension DeviceReading: @unsafe WireForm {
    init(wire: Pdserve__Wire__DeviceReading) throws(WireError) {
        self.init(
            id: try unsafe readText(wire.id, limit: WireLimits.nameBytes, "DeviceReading.id"),
            name: try unsafe readText(
                wire.name, limit: WireLimits.nameBytes, "DeviceReading.name"),
            kind: try unsafe readText(
                wire.kind, limit: WireLimits.nameBytes, "DeviceReading.kind"),
            totalMemoryBytes: unsafe wire.total_memory_bytes,
            freeMemoryBytes: unsafe wire.free_memory_bytes)
        grade =
            try readOptionalValue(unsafe wire.grade.rawValue, "DeviceReading.grade") ?? .ok
        reason = try unsafe readText(
            wire.reason, limit: WireLimits.reasonBytes, "DeviceReading.reason")
        busyFraction = try checked(
            unsafe wire.busy_fraction, 0...1, "DeviceReading.busy_fraction")
        temperatureCelsius = try checked(
            unsafe wire.temperature_celsius, shown, "DeviceReading.temperature_celsius")
        powerWatts = try checked(unsafe wire.power_watts, shown, "DeviceReading.power_watts")
        correctedErrors = unsafe wire.corrected_errors
        uncorrectedErrors = unsafe wire.uncorrected_errors
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__DeviceReading {
        var wire = unsafe Pdserve__Wire__DeviceReading()
        unsafe pdserve__wire__device_reading__init(&wire)
        unsafe wire.id = try arena.writeText(
            id, limit: WireLimits.nameBytes, "DeviceReading.id")
        unsafe wire.name = try arena.writeText(
            name, limit: WireLimits.nameBytes, "DeviceReading.name")
        unsafe wire.kind = try arena.writeText(
            kind, limit: WireLimits.nameBytes, "DeviceReading.kind")
        unsafe wire.total_memory_bytes = totalMemoryBytes
        unsafe wire.free_memory_bytes = freeMemoryBytes
        unsafe wire.grade = Pdserve__Wire__DeviceGrade(UInt32(grade.rawValue))
        unsafe wire.reason = try arena.writeReason(reason)
        unsafe wire.busy_fraction = try checked(
            busyFraction, 0...1, "DeviceReading.busy_fraction")
        unsafe wire.temperature_celsius = try checked(
            temperatureCelsius, shown, "DeviceReading.temperature_celsius")
        unsafe wire.power_watts = try checked(powerWatts, shown, "DeviceReading.power_watts")
        unsafe wire.corrected_errors = correctedErrors
        unsafe wire.uncorrected_errors = uncorrectedErrors
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
                wire.reason, limit: WireLimits.reasonBytes, "WorkerFinding.reason"),
            isSuspect: unsafe wire.is_suspect != 0)
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__WorkerFinding {
        var wire = unsafe Pdserve__Wire__WorkerFinding()
        unsafe pdserve__wire__worker_finding__init(&wire)
        unsafe wire.instance = try arena.writeInstance(instance, "WorkerFinding.instance")
        unsafe wire.incarnation = incarnation
        unsafe wire.is_responding = isResponding ? 1 : 0
        unsafe wire.silent_milliseconds = silentMilliseconds
        unsafe wire.reason = try arena.writeReason(reason)
        unsafe wire.is_suspect = isSuspect ? 1 : 0
        return unsafe wire
    }
}

extension SupervisedProcess: @unsafe WireForm {
    init(wire: Pdserve__Wire__SupervisedProcess) throws(WireError) {
        self.init(
            name: try unsafe readText(
                wire.name, limit: WireLimits.identifierBytes, "SupervisedProcess.name"),
            state: try readValue(unsafe wire.state.rawValue, "SupervisedProcess.state"),
            restarts: try unsafe read(
                wire.restarts, 0...Int(UInt32.max), "SupervisedProcess.restarts"),
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "SupervisedProcess.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__SupervisedProcess {
        var wire = unsafe Pdserve__Wire__SupervisedProcess()
        unsafe pdserve__wire__supervised_process__init(&wire)
        unsafe wire.name = try arena.writeText(
            name, limit: WireLimits.identifierBytes, "SupervisedProcess.name")
        unsafe wire.state = Pdserve__Wire__SupervisedState(UInt32(state.rawValue))
        unsafe wire.restarts = try write32(
            restarts, 0...Int(UInt32.max), "SupervisedProcess.restarts")
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
                "HealthReport.findings"),
            supervised: try unsafe readForms(
                wire.supervised, count: wire.n_supervised, limit: WireLimits.supervised,
                "HealthReport.supervised"))
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
        unsafe wire.supervised = try arena.writeForms(
            supervised, limit: WireLimits.supervised, "HealthReport.supervised")
        unsafe wire.n_supervised = supervised.count
        return unsafe wire
    }
}
