/// Settings that every service has.
package struct RuntimeSettings: Hashable, Sendable {
    package var logLevel: LogLevel
    package var logFormat: LogFormat
    package var shutdownLimit: Duration
    package var exitsWithParent: Bool

    package init(_ reader: inout SettingsReader) throws(SettingsError) {
        logLevel = try reader.choice("log-level", default: .info, "Least level that is logged.")
        logFormat = try reader.choice("log-format", default: .text, "Form of the log lines.")
        shutdownLimit = try reader.duration(
            "shutdown-limit", default: .seconds(30), in: .zero ... .seconds(3600),
            "How long running work may take to end after SIGTERM or SIGINT.")
        exitsWithParent = try reader.bool(
            "exit-with-parent", default: false,
            "End gracefully when the process that started this one is gone.")
    }
}
