import Calibration
package import DeviceProfile
import DeviceProfileFile
package import Foundation
package import ServiceRuntime

/// Settings of how a worker learns how fast it is.
package struct CalibrationSettings: Sendable {
    package enum When: String, Sendable, CaseIterable {
        case never
        /// Unless times of the same model, device and settings are kept.
        case once
        case always
    }

    package var when: When
    package var limit: Duration
    /// Where measured times are kept; nil: nowhere.
    package var folder: URL?
    /// YAML file with devices that the catalogue lacks, or whose figures differ.
    package var devicesPath: String?

    /// The catalogue, and what the file of devices adds.
    package func profiles() throws -> [DeviceProfile] {
        guard let devicesPath else { return DeviceProfile.catalogue }
        do {
            return try DeviceProfileFile.read(path: devicesPath)
        } catch {
            throw SettingsError.invalid(
                source: "device-profiles", value: devicesPath,
                expected: "a file of devices: \(error.problems.joined(separator: "; "))")
        }
    }

    package init(_ reader: inout SettingsReader) throws(SettingsError) {
        when = try reader.choice(
            "calibrate", default: When.once,
            "Whether it measures before it serves how long its engine takes: 'once' for each "
                + "model, device and settings, 'always', or 'never'.")
        limit = try reader.duration(
            "calibration-limit", default: .seconds(5),
            in: .milliseconds(100) ... .seconds(300), "Time to spend on it.")
        let folder = try reader.optionalText(
            "profile-folder",
            "Folder where measured times are kept; 'none': nowhere. Default: pdserve/profiles in "
                + "$XDG_CACHE_HOME or ~/.cache.")
        self.folder =
            switch folder {
            case "none"?: nil
            case let path?: URL(fileURLWithPath: path)
            case nil: ProfileStore.usualFolder(ProcessInfo.processInfo.environment)
            }
        devicesPath = try reader.optionalText(
            "device-profiles",
            "YAML file with devices that the catalogue lacks, or whose figures differ.")
    }
}
