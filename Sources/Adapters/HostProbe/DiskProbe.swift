import Foundation
package import ServingTypes

/// Room on the disks of the folders that this host's services write to.
package final class DiskProbe: DeviceProbe {
    package let name = "disks"
    private let folders: [String]

    package init(folders: [String]) { self.folders = folders }

    package func read() throws(ProbeError) -> [DeviceSample] {
        folders.map { folder in
            var sample = DeviceSample(
                DeviceReading(
                    id: "disk:\(folder)", name: folder, kind: DeviceReading.diskKind,
                    totalMemoryBytes: 0, freeMemoryBytes: 0))
            do {
                let facts = try FileManager.default.attributesOfFileSystem(forPath: folder)
                sample.reading.totalMemoryBytes = (facts[.systemSize] as? UInt64) ?? 0
                sample.reading.freeMemoryBytes = (facts[.systemFreeSize] as? UInt64) ?? 0
            } catch {
                sample.alarms = [
                    DeviceSample.Alarm(.degraded, "the folder can't be looked at: \(error)")
                ]
            }
            return sample
        }
    }
}
