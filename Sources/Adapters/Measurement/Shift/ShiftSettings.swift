package import ServingTypes

/// One kind of traffic for some time.
package struct ShiftPhase: Sendable {
    package var promptTokens: Int
    package var newTokens: Int
    package var duration: Duration

    package init(promptTokens: Int, newTokens: Int, duration: Duration) {
        self.promptTokens = promptTokens
        self.newTokens = newTokens
        self.duration = duration
    }
}

/// What `benchmark shift` compares.
package enum ShiftMode: String, Sendable, CaseIterable {
    case asStarted = "as-started"
    case automatic
}

/// A cluster of simulated engines, and the traffic whose kind changes.
package struct ShiftSettings: Sendable {
    package var prefillWorkers = 4
    package var decodeWorkers = 2
    /// Long prompts and short answers.
    package var first = ShiftPhase(promptTokens: 2000, newTokens: 20, duration: .seconds(40))
    /// Short prompts and long answers.
    package var second = ShiftPhase(promptTokens: 100, newTokens: 200, duration: .seconds(60))
    /// Clients; each sends its next request when it has its answer.
    package var users = 16
    package var ttftLimit = Duration.seconds(10)
    package var tpotLimit = Duration.milliseconds(100)
    /// Times as fast as the simulated device.
    package var speed = 0.25
    /// Requests that a worker takes at once, by role.
    package var prefillSlots = 2
    package var decodeSequences = 4
    /// Time over which the scheduler measures traffic.
    package var window = Duration.seconds(8)
    /// Answers that it needs in that time.
    package var samples = 6
    /// Time between two steps of the scheduler.
    package var settle = Duration.seconds(4)
    /// Of the prompts' contents.
    package var seed: UInt64 = 1

    package init() {}

    /// Bytes of simulated KV per token: few, so that copying takes no processor time to speak of.
    static let kvBytesPerToken = 16
    /// Time between two looks at the cluster.
    static let watchInterval = Duration.milliseconds(250)

    package var phases: [ShiftPhase] { [first, second] }

    var duration: Duration { first.duration + second.duration }

    /// The parts of a run that are compared, in seconds since its start.
    var parts: [(name: String, from: Double, to: Double)] {
        let change = first.duration.seconds
        let middle = change + second.duration.seconds / 2
        return [
            ("before", change / 2, change), ("during", change, middle),
            ("after", middle, duration.seconds),
        ]
    }

    /// The cluster file of one run.
    package func clusterFile(_ mode: ShiftMode) -> String {
        func milliseconds(_ duration: Duration) -> String {
            "\(Int((duration.seconds * 1000).rounded()))ms"
        }
        return """
            scenarios:
              - name: shift
                limits: {ttft: \(milliseconds(ttftLimit)), tpot: \(milliseconds(tpotLimit))}
                ratio: \(mode.rawValue)

            """
    }

    /// Arguments of the processes, by role.
    package var arguments: [Role: [String]] {
        let longest = phases.map { $0.promptTokens + $0.newTokens }.max() ?? 0
        let sequences = prefillSlots + decodeSequences
        let worker = [
            "--simulated-speed", "\(speed)",
            "--simulated-kv-bytes", "\(Self.kvBytesPerToken)",
            "--prefill-slots", "\(prefillSlots)", "--decode-sequences", "\(decodeSequences)",
            "--kept-sequences", "\(sequences)", "--kv-tokens",
            "\(max(64, 2 * sequences * longest))",
        ]
        return [
            .scheduler: [
                "--ratio-window", "\(Int(window.seconds))s",
                "--ratio-settle", "\(Int(settle.seconds))s",
                "--ratio-samples", "\(samples)",
            ],
            .prefillWorker: worker, .decodeWorker: worker,
        ]
    }
}
