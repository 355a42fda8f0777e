package import Logging
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// How log lines look.
package enum LogFormat: String, CaseIterable, Sendable {
    /// `2026-01-31T12:00:00.123Z info gateway Sentence. key=value`
    case text
    /// One JSON object per line.
    case json
}

/// Levels by the names of the setting.
package enum LogLevel: String, CaseIterable, Sendable {
    case trace, debug, info, notice, warning, error, critical

    package var level: Logger.Level { Logger.Level(rawValue: rawValue) ?? .info }
}

/// Writes one line per event, in one piece, to standard error.
package struct ServiceLogHandler: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?
    package var logLevel: Logger.Level
    private let label: String
    private let format: LogFormat
    private let write: @Sendable (String) -> Void

    /// - Parameters:
    ///   - label: the service's name.
    ///   - write: takes whole lines.
    package init(
        label: String, level: Logger.Level, format: LogFormat,
        write: @escaping @Sendable (String) -> Void = writeToStandardError
    ) {
        self.label = label
        self.logLevel = level
        self.format = format
        self.write = write
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var fields = metadata
        if let provided = metadataProvider?.get() {
            fields.merge(provided) { _, new in new }
        }
        if let own = event.metadata { fields.merge(own) { _, new in new } }
        if let error = event.error { fields["error"] = "\(error)" }
        let pairs = fields.sorted { $0.key < $1.key }
        let time = WallClock.now().text
        switch format {
        case .text: write(textLine(event, time, pairs))
        case .json: write(jsonLine(event, time, pairs))
        }
    }

    private func textLine(
        _ event: LogEvent, _ time: String, _ pairs: [(key: String, value: Logger.MetadataValue)]
    ) -> String {
        var line = "\(time) \(event.level.rawValue) \(label) \(oneLine(event.message.description))"
        for (key, value) in pairs { line += " \(key)=\(quotedIfNeeded(value.description))" }
        return line + "\n"
    }

    private func oneLine(_ text: String) -> String {
        text.unicodeScalars.contains { $0.value < 0x20 } ? jsonEscaped(text) : text
    }

    private func quotedIfNeeded(_ text: String) -> String {
        let isPlain =
            !text.isEmpty
            && text.unicodeScalars.allSatisfy { $0.value > 0x20 && $0 != "\"" && $0 != "=" }
        return isPlain ? text : "\"\(jsonEscaped(text))\""
    }

    private func jsonLine(
        _ event: LogEvent, _ time: String, _ pairs: [(key: String, value: Logger.MetadataValue)]
    ) -> String {
        var members = [
            ("time", time), ("level", event.level.rawValue), ("service", label),
            ("message", event.message.description),
        ]
        let taken = Set(members.map(\.0))
        for (key, value) in pairs {
            members.append((taken.contains(key) ? "metadata.\(key)" : key, value.description))
        }
        let text = members.map { "\"\(jsonEscaped($0))\":\"\(jsonEscaped($1))\"" }
        return "{\(text.joined(separator: ","))}\n"
    }
}

/// The inside of a JSON string; also for quoted values in text lines.
package func jsonEscaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": result += "\\\""
        case "\\": result += "\\\\"
        case "\n": result += "\\n"
        case "\r": result += "\\r"
        case "\t": result += "\\t"
        case _ where scalar.value < 0x20:
            let digits = String(scalar.value, radix: 16)
            result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result
}

/// Writes to file descriptor 2; what can't be written is lost.
package func writeToStandardError(_ text: String) { write(text, to: STDERR_FILENO) }

/// Writes to file descriptor 1.
package func writeToStandardOutput(_ text: String) { write(text, to: STDOUT_FILENO) }

private func write(_ text: String, to descriptor: Int32) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
        let count = unsafe rest.withUnsafeBytes { buffer in
            unsafe write(descriptor, buffer.baseAddress, buffer.count)
        }
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return }
        rest = rest.dropFirst(count)
    }
}
