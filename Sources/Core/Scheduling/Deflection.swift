import ServingTypes

/// Bounds of the choice between a prefill-worker and the decode-worker itself.
package struct DeflectionLimits: Sendable, Hashable {
    /// A rest of so many tokens is computed where its KV is needed: moving it costs more.
    package var tinyTokens = 32
    /// What the decode-worker must gain to be chosen, as a fraction of the prefill-worker's time;
    /// predictions are rough, and its running requests pay.
    package var neededGain = 0.1

    package init() {}
}

/// What is known of a request, a prefill-worker and the decode-worker that will write its answer.
package struct DeflectionCase: Sendable, Hashable {
    package var promptTokens: Int
    package var kvBytesPerToken = 0

    /// Whether any prefill-worker of the group is alive.
    package var hasPrefillWorker = true
    /// Time until a prefill-worker is expected to accept.
    package var queueWait = Duration.zero
    /// Leading tokens the prefill-worker is expected to hold.
    package var hitTokens = 0
    /// Of the prefill-worker; 0: unknown.
    package var prefillTokensPerSecond = 0.0
    /// Between the two; 0: unknown.
    package var linkBytesPerSecond = 0.0

    /// Leading tokens the decode-worker holds.
    package var heldTokens = 0
    /// Of the decode-worker if it did nothing else; 0: unknown.
    package var localTokensPerSecond = 0.0
    /// Prompt tokens it has to compute before these.
    package var localPendingTokens = 0
    /// Sequences that it writes at the same time.
    package var runningSequences = 0
    /// Time of its step without prompt tokens; 0: unknown.
    package var decodeStepMilliseconds = 0.0
    /// Prompt tokens it takes in one step at most.
    package var chunkTokens = 512
    /// Longest time of a step while others are being written.
    package var stepLimit = Duration.milliseconds(160)

    package init(promptTokens: Int) { self.promptTokens = promptTokens }
}

/// Where a prompt is computed, and what both ways were expected to take.
package struct DeflectionChoice: Sendable, Hashable {
    /// On the decode-worker itself, in chunks between its steps.
    package var isLocal: Bool
    /// Expected time to the first token by a prefill-worker; nil: unknown, or there is none.
    package var remote: Duration?
    /// The same on the decode-worker; nil: unknown, or its running requests leave no time.
    package var local: Duration?

    package init(isLocal: Bool, remote: Duration?, local: Duration?) {
        self.isLocal = isLocal
        self.remote = remote
        self.local = local
    }
}

extension DeflectionCase {
    /// Compares the expected times to the first token.
    ///
    /// What is unknown speaks for the prefill-worker, unless there is none or the rest is tiny.
    package func choice(limits: DeflectionLimits = DeflectionLimits()) -> DeflectionChoice {
        var choice = DeflectionChoice(
            isLocal: false, remote: hasPrefillWorker ? remoteTime : nil, local: localTime)
        if !hasPrefillWorker {
            choice.isLocal = true
        } else if restTokens <= limits.tinyTokens {
            // Held up by others' prompts it would not be done at once.
            choice.isLocal = localPendingTokens == 0 && !lacksTime
        } else if let remote = choice.remote, let local = choice.local {
            choice.isLocal = local.seconds < remote.seconds * (1 - limits.neededGain)
        }
        return choice
    }

    /// Prompt tokens the decode-worker would have to compute; the last one always.
    private var restTokens: Int { max(1, promptTokens - heldTokens) }

    /// Waiting, computing what the one does not hold, and moving what the other does not hold.
    ///
    /// An unknown link counts as fast.
    private var remoteTime: Duration? {
        guard prefillTokensPerSecond > 0 else { return nil }
        let computed = Double(max(1, promptTokens - hitTokens)) / prefillTokensPerSecond
        let movedBytes = Double(max(0, promptTokens - heldTokens) * kvBytesPerToken)
        let moved = linkBytesPerSecond > 0 ? movedBytes / linkBytesPerSecond : 0
        return queueWait + .seconds(computed + moved)
    }

    /// Time of a step without prompt tokens in seconds; nil if unknown.
    private var stepSeconds: Double? {
        if runningSequences == 0 { return 0 }
        return decodeStepMilliseconds > 0 ? decodeStepMilliseconds / 1000 : nil
    }

    /// Whether its steps take as long as they may already.
    private var lacksTime: Bool {
        guard runningSequences > 0, let stepSeconds else { return false }
        return stepSeconds >= stepLimit.seconds
    }

    /// Steps of as many prompt tokens as fit beside the running sequences, one after another.
    private var localTime: Duration? {
        guard localTokensPerSecond > 0, let stepSeconds else { return nil }
        let spare = stepLimit.seconds - stepSeconds
        let fitting =
            runningSequences == 0
            ? Double(chunkTokens) : min(Double(chunkTokens), spare * localTokensPerSecond)
        guard fitting >= 1 else { return nil }
        let tokens = Double(localPendingTokens + restTokens)
        let steps = (tokens / fitting.rounded(.down)).rounded(.up)
        return .seconds(steps * stepSeconds + tokens / localTokensPerSecond)
    }
}
