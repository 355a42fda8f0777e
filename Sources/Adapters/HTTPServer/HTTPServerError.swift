package import ServiceRuntime
package import ServingTypes

/// Why an endpoint can't serve; the process ends.
package enum HTTPServerError: ServiceFailure, Hashable {
    /// Another process listens there; the user stops it or chooses another address.
    case addressInUse(NetworkAddress)
    /// The address is not of this host, not allowed, or not to be resolved.
    case cannotListen(NetworkAddress, reason: String)
    /// The endpoint ended before it had an address.
    case notRunning

    package var exitCode: ExitCode { self == .notRunning ? .internalError : .unavailable }

    package var description: String {
        switch self {
        case .addressInUse(let address): "\(address) is in use by another process"
        case .cannotListen(let address, let reason): "can't listen on \(address): \(reason)"
        case .notRunning: "the HTTP endpoint is not running"
        }
    }
}
