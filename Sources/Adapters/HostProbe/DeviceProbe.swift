package import ServingTypes

/// Reads the devices of one kind; called on a thread of its own and may block.
package protocol DeviceProbe: AnyObject {
    /// For people, and for the devices' grades.
    var name: String { get }

    /// All devices there are.
    func read() throws(ProbeError) -> [DeviceSample]
}

/// Why a probe has nothing to say; the agent reports it and asks again later.
package enum ProbeError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The driver's tool or library is there and does not work.
    case failed(String)
    /// Its answer is not of a known form.
    case unreadable(String)

    package var description: String {
        switch self {
        case .failed(let reason): reason
        case .unreadable(let text): "the answer can't be read: \(text)"
        }
    }
}

/// Every bound of this module.
package enum ProbeLimits {
    /// Between two readings of one probe.
    package static let interval = Duration.seconds(2)
    /// Time a tool may take until it is killed.
    package static let toolDeadline = Duration.seconds(10)
    /// Output of a tool that is read.
    package static let toolBytes = 1 << 20
    package static let devices = 128
    package static let thermalZones = 256
    /// Time for which a critical error of a device counts.
    package static let errorMemory = Duration.seconds(600)
}
