/// How a process ends, after sysexits.h.
package enum ExitCode: Int32, Sendable {
    case success = 0
    /// Wrong settings.
    case usage = 64
    /// Something outside is missing or taken, for example a port or a file.
    case unavailable = 69
    /// A fault of the program.
    case internalError = 70
    /// It hung and ended itself, or was told to; another start is expected to help.
    case hung = 75
}

/// An error that may end a service, with a sentence for its user.
package protocol ServiceFailure: Error, CustomStringConvertible {
    var exitCode: ExitCode { get }
}
