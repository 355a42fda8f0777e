import Foundation
import ServingTypes

/// One case, run once in every way.
struct ServeObservation: Sendable {
    var direct = TokenTimes()
    /// First token of the direct run that also writes the KV to memory.
    var exporting = Duration.zero
    var streamed = TokenTimes()
    var complete = Duration.zero
    var transfer: TransferReading?
}

/// What the prefill-worker counted during one request; nil if it sent no KV to its end.
struct TransferReading: Sendable {
    let rawBytes: Double
    let wireBytes: Double
    /// From the offer to the receiver's last word, the prompt's computation included.
    let seconds: Double

    init?(before: MetricsReading, after: MetricsReading) {
        func rise(_ series: String) -> Double { after[series] - before[series] }
        guard rise("prefill_kv_transfer_seconds_count") == 1 else { return nil }
        rawBytes = rise("prefill_kv_raw_bytes_total")
        wireBytes = rise("prefill_kv_wire_bytes_total")
        seconds = rise("prefill_kv_transfer_seconds_sum")
    }
}

/// Requests that ran side by side.
struct StreamsRun: Sendable {
    var times: [TokenTimes]
    var wall: Duration

    var tokensPerSecond: Double {
        Double(times.reduce(0) { $0 + $1.tokenCount }) / max(wall.seconds, 1e-9)
    }
}

/// Everything `benchmark serve` has measured, by case, in the order of the rounds.
struct ServeResults: Sendable {
    struct Streams: Sendable {
        var servedRate = Samples()
        var directRate = Samples()
        var first = Samples()
        var perToken = Samples()
        var directFirst = Samples()
        var directPerToken = Samples()
    }

    let settings: ServeSettings
    let loadBefore = ProcessReadings.loadAverage
    var device = ""
    var parameterCount = 0
    var isComplete = false
    var observations: [ServeCase: [ServeObservation]] = [:]
    var streams: [Int: Streams] = [:]
    var costs: [Int: MessageCosts] = [:]
    /// Round trips of `GET /health`: HTTP without any work behind it.
    var health = Samples()
    /// Round trips of a ping on a control connection.
    var echo = Samples()
    var memoryBefore: [String: Int] = [:]
    var memoryAfter: [String: Int] = [:]
    var memoryPeak: [String: Int] = [:]

    init(settings: ServeSettings) { self.settings = settings }

    mutating func add(_ observation: ServeObservation, to one: ServeCase) {
        observations[one, default: []].append(observation)
    }

    mutating func addCosts(_ prompt: [TokenID]) throws {
        try costs[prompt.count, default: MessageCosts()].measure(prompt)
    }

    mutating func add(_ served: StreamsRun, _ direct: StreamsRun, streams count: Int) {
        var entry = streams[count] ?? Streams()
        entry.servedRate.add(served.tokensPerSecond)
        entry.directRate.add(direct.tokensPerSecond)
        for times in served.times {
            entry.first.add(times.first)
            if let time = times.timePerToken { entry.perToken.add(time) }
        }
        for times in direct.times {
            entry.directFirst.add(times.first)
            if let time = times.timePerToken { entry.directPerToken.add(time) }
        }
        streams[count] = entry
    }

    // MARK: Reading

    var cases: [ServeCase] {
        observations.keys.sorted {
            ($0.promptTokens, $0.newTokens) < ($1.promptTokens, $1.newTokens)
        }
    }

    /// A number of each round in which it is there.
    func samples(_ one: ServeCase, _ value: (ServeObservation) -> Duration?) -> Samples {
        Samples((observations[one] ?? []).compactMap { value($0)?.seconds })
    }

    func readings(_ one: ServeCase, _ value: (TransferReading) -> Double) -> Samples {
        Samples((observations[one] ?? []).compactMap { $0.transfer.map(value) })
    }
}
