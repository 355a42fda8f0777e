import HTTPClient
package import LocalCluster
import ServiceStart
import ServingTypes

/// One reading of a process's metrics, in Prometheus' text format.
package struct MetricsReading: Sendable {
    /// By series as written, with its labels.
    private let values: [String: Double]

    /// - Throws: if the process doesn't answer.
    package init(of process: ManagedProcess) async throws {
        guard let address = process.announcement.admin ?? process.announcement.http else {
            self.init(text: "")
            return
        }
        try await self.init(at: address)
    }

    /// - Throws: if nobody answers there, or with something else than metrics.
    init(at address: NetworkAddress) async throws {
        let (head, body) = try await HTTPCall("GET", address, "/metrics").collect()
        let text = String(decoding: body, as: UTF8.self)
        guard head.status == 200 else {
            throw MeasurementError.unexpectedAnswer(
                status: head.status, body: String(text.prefix(300)))
        }
        self.init(text: text)
    }

    /// Lines that are no samples are left out.
    init(text: String) {
        var values: [String: Double] = [:]
        for line in text.split(whereSeparator: \.isNewline) where !line.hasPrefix("#") {
            guard let end = Self.endOfSeries(line) else { continue }
            let series = line[..<end]
            // A time may follow the value.
            let value = line[end...].split(separator: " ").first
            values[String(series)] = value.flatMap { Double($0) }
        }
        self.values = values
    }

    /// Zero for a series that is not there yet.
    subscript(series: String) -> Double { values[series] ?? 0 }

    /// Sum of all series of one name, whatever their labels.
    package func sum(_ name: String) -> Double {
        values.reduce(0) { sum, entry in
            entry.key == name || entry.key.hasPrefix(name + "{") ? sum + entry.value : sum
        }
    }

    /// Where the value begins: behind the labels, whose texts may contain spaces and braces.
    private static func endOfSeries(_ line: Substring) -> Substring.Index? {
        guard let first = line.firstIndex(where: { $0 == "{" || $0 == " " }) else { return nil }
        guard line[first] == "{" else { return first }
        var isQuoted = false
        var isEscaped = false
        for index in line[first...].indices {
            switch line[index] {
            case _ where isEscaped: isEscaped = false
            case "\\" where isQuoted: isEscaped = true
            case "\"": isQuoted.toggle()
            case "}" where !isQuoted: return line.index(after: index)
            default: break
            }
        }
        return nil
    }
}

/// What a process counted between two readings.
struct MetricsRise: Sendable {
    let before: MetricsReading
    let after: MetricsReading

    /// Of one series.
    subscript(series: String) -> Double { after[series] - before[series] }

    /// Of all series of one name.
    func sum(_ name: String) -> Double { after.sum(name) - before.sum(name) }
}
