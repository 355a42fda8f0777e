import ClusterFile
package import DeviceProfile
import Foundation

/// A file of devices: those that the catalogue lacks, and figures that differ from it (YAML).
package enum DeviceProfileFile {
    /// All that is wrong with a file, or why it can't be read.
    package struct Failure: Error, Hashable, Sendable {
        package var problems: [String]
    }

    /// Devices in one file.
    package static let maximumDevices = 256

    /// The file's devices, then those of the catalogue that it doesn't replace.
    package static func read(path: String) throws(Failure) -> [DeviceProfile] {
        let text: String
        do {
            text = try String(contentsOf: URL(fileURLWithPath: path), encoding: .utf8)
        } catch {
            throw Failure(problems: ["'\(path)' can't be read as UTF-8 text"])
        }
        return try parse(text)
    }

    package static func parse(_ text: String) throws(Failure) -> [DeviceProfile] {
        do throws(ClusterFile.Failure) {
            guard let root = try ClusterFile.root(of: text) else { return DeviceProfile.catalogue }
            var problems = ProblemList()
            let own = devices(root, &problems)
            try problems.check()
            let names = Set(own.map { $0.name.lowercased() })
            return own
                + DeviceProfile.catalogue.filter { !names.contains($0.name.lowercased()) }
        } catch {
            throw Failure(problems: error.problems)
        }
    }

    private static func devices(
        _ root: FileValue, _ problems: inout ProblemList
    ) -> [DeviceProfile] {
        guard let members = root.members else {
            problems.add(root, "\(root.shown) is no table; write 'devices:' with a list below")
            return []
        }
        var devices: [DeviceProfile] = []
        for (name, value) in members {
            guard name == "devices" else {
                problems.addUnknown(name, value, among: ["devices"])
                continue
            }
            guard let elements = value.elements, elements.count <= maximumDevices else {
                problems.add(
                    value, "\(value.shown) is no list of at most \(maximumDevices) devices")
                continue
            }
            for element in elements {
                if let device = DeviceEntry(element, &problems)?.profile(&problems) {
                    devices.append(device)
                }
            }
        }
        return devices
    }
}
