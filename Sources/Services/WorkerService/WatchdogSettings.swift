package import ServiceRuntime

/// Settings of when a worker counts as ill.
package struct WatchdogSettings: Sendable {
    /// Time one engine iteration may take; zero: any.
    package var stepLimit: Duration
    /// Time the event loops and the worker's own clock may stand still; zero: any.
    package var loopLimit: Duration
    /// Devices whose faults are this worker's.
    package var devices: [String]

    package init(_ reader: inout SettingsReader) throws(SettingsError) {
        stepLimit = try reader.duration(
            "hang-limit", default: .seconds(180), in: .zero ... .seconds(7200),
            "Time one engine iteration may take until the worker ends itself with code 75, to be "
                + "started again; 0: any.")
        loopLimit = try reader.duration(
            "loop-limit", default: .seconds(60), in: .zero ... .seconds(3600),
            "Time the worker's event loops may stand still until it ends itself with code 75; "
                + "0: any.")
        devices = try reader.list(
            "devices", default: [],
            "Devices it computes on, as 'pdserve status' names them (PCI addresses); if one of "
                + "them fails, the worker is taken out. Default: the processors.")
    }
}
