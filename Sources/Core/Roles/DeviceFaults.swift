import ServingTypes

/// The devices of a host that are not well.
struct DeviceFaults {
    struct Fault {
        var grade: DeviceGrade
        /// With the device's id.
        var text: String
    }

    private var faults: [String: Fault] = [:]

    init(_ devices: [DeviceReading]) {
        for device in devices where device.grade > .ok {
            faults[device.id] = Fault(
                grade: device.grade,
                text: "device \(device.id) is \(device.grade.name): \(device.reason)")
        }
    }

    /// The worst fault among the devices that a worker computes on; nil if all are well.
    func worst(of worker: InstanceDescription) -> Fault? {
        guard !faults.isEmpty else { return nil }
        let devices = worker.devices.isEmpty ? [DeviceReading.processors] : worker.devices
        return devices.compactMap { faults[$0] }.max { $0.grade < $1.grade }
    }
}
