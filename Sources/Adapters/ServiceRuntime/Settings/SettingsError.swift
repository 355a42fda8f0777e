/// Why a service can't start with its settings; the executable prints it and exits.
package enum SettingsError: Error, Hashable {
    /// `--help` or `--version`: print the text on standard output and exit with success.
    case textRequested(String)
    /// A flag or a key of the settings file that the service does not have.
    case unknown(source: String, suggestion: String?)
    /// An argument that belongs to no flag.
    case strayArgument(String)
    /// A value of the wrong form or out of its range.
    case invalid(source: String, value: String, expected: String)
    case missing(key: String, expected: String)
    /// The settings file can't be read.
    case unreadableFile(path: String, reason: String)
    /// The settings file is not YAML, or not a table of values.
    case malformedFile(path: String, reason: String)
}

extension SettingsError: ServiceFailure {
    package var exitCode: ExitCode {
        switch self {
        case .textRequested: .success
        case .unreadableFile: .unavailable
        default: .usage
        }
    }

    package var description: String {
        switch self {
        case .textRequested(let text): text
        case .unknown(let source, let suggestion):
            "\(source) is unknown"
                + (suggestion.map { "; did you mean \($0)?" } ?? "; --help shows what there is")
        case .strayArgument(let argument):
            "the argument '\(argument)' belongs to no flag; settings are given as --key value"
        case .invalid(let source, let value, let expected):
            "\(source) must be \(expected), but it is '\(value)'"
        case .missing(let key, let expected):
            "--\(key) is required: \(expected)"
        case .unreadableFile(let path, let reason):
            "the settings file \(path) can't be read: \(reason)"
        case .malformedFile(let path, let reason):
            "the settings file \(path) is not valid: \(reason)"
        }
    }
}
