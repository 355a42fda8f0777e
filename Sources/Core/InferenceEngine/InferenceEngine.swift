package import ServingTypes

/// Computes prompts and tokens on one device.
///
/// Commands go in from any thread and return at once; events come out on the engine's own thread,
/// through the sink given when the engine was made. Work runs in iterations of at most one
/// micro-batch: all decoding sequences take part in each, the rest is filled with prompt tokens in
/// order of arrival.
package protocol InferenceEngine: Sendable {
    var description: EngineDescription { get }

    /// Adds a command to the engine's queue.
    ///
    /// The queue is bounded by what the caller keeps open (`maximumSequences`), not by the engine.
    func submit(_ command: EngineCommand)

    /// A block as if its tokens stood from `tokenStart` on; nil if the engine can't say so of it.
    ///
    /// What is computed after it means nothing, but takes the time that any KV would.
    func shifted(_ block: KVBlock, to tokenStart: Int) -> KVBlock?

    /// Iterations since the start and the age of the one that runs; readable from any thread.
    var progress: EngineProgress { get }

    /// Ends the engine's thread after the running iteration and frees the device.
    ///
    /// Returns when it has ended. No event comes after that.
    func shutdown() async
}

extension InferenceEngine {
    package func shifted(_ block: KVBlock, to tokenStart: Int) -> KVBlock? { nil }
}

/// Events of an engine; called on the engine's thread, must return quickly.
package typealias EngineEventSink = @Sendable (EngineEvent) -> Void

/// What an engine has loaded and can hold.
package struct EngineDescription: Sendable, Hashable {
    package var modelName: String
    package var fingerprint: ModelFingerprint
    package var vocabularySize: Int
    /// Longest sequence the model and this engine allow, in tokens.
    package var contextTokens: Int
    /// Tokens of KV that all sequences share.
    package var kvCapacityTokens: Int
    package var kvBytesPerToken: Int
    /// Upper bound of one exported block of `tokens` tokens in bytes: `tokens * kvBytesPerToken`
    /// plus this.
    package var blockOverheadBytesPerToken: Int
    package var blockOverheadBytes: Int
    /// Most tokens in one iteration, and so in one exported block.
    package var microBatchTokens: Int
    /// Sequences open at once, retained ones included.
    package var maximumSequences: Int
    /// Engine and device, for people.
    package var device: String

    package init(
        modelName: String, fingerprint: ModelFingerprint, vocabularySize: Int,
        contextTokens: Int, kvCapacityTokens: Int, kvBytesPerToken: Int,
        blockOverheadBytesPerToken: Int, blockOverheadBytes: Int, microBatchTokens: Int,
        maximumSequences: Int, device: String
    ) {
        self.modelName = modelName
        self.fingerprint = fingerprint
        self.vocabularySize = vocabularySize
        self.contextTokens = contextTokens
        self.kvCapacityTokens = kvCapacityTokens
        self.kvBytesPerToken = kvBytesPerToken
        self.blockOverheadBytesPerToken = blockOverheadBytesPerToken
        self.blockOverheadBytes = blockOverheadBytes
        self.microBatchTokens = microBatchTokens
        self.maximumSequences = maximumSequences
        self.device = device
    }

    /// Largest block of `tokens` tokens that this model can export or import, in bytes.
    package func maximumBlockBytes(tokens: Int) -> Int {
        tokens * (kvBytesPerToken + blockOverheadBytesPerToken) + blockOverheadBytes
    }
}

/// One sequence in one engine; chosen by the caller, unique while the sequence is open.
package struct SequenceID: Hashable, Sendable {
    package var value: UInt64
    package init(_ value: UInt64) { self.value = value }
}

/// What an engine is to do with one sequence.
package struct SequenceJob: Sendable, Hashable {
    package var sequence: SequenceID
    /// Prompt tokens, then tokens generated so far; at least one.
    package var tokens: [TokenID]
    /// How many tokens at the end of `tokens` were generated.
    package var outputTokens: Int
    /// How many leading tokens' KV was imported; at most `tokens.count - 1`.
    ///
    /// The rest is computed.
    package var importedTokens: Int
    package var sampling: SamplingParameters
    /// How many tokens to generate; at least 1.
    package var maximumNewTokens: Int
    /// Emit each computed run's KV as a block, before the token that follows it; KV that was there
    /// before, from `exportedFrom` on, comes first.
    package var exportsKV: Bool
    /// KV of tokens before this position is not exported.
    package var exportedFrom: Int
    /// Keep the KV under the same id when the job finishes, until it is cancelled.
    package var retainsKV: Bool

    package init(
        sequence: SequenceID, tokens: [TokenID], outputTokens: Int = 0, importedTokens: Int = 0,
        sampling: SamplingParameters, maximumNewTokens: Int, exportsKV: Bool = false,
        exportedFrom: Int = 0, retainsKV: Bool = false
    ) {
        self.sequence = sequence
        self.tokens = tokens
        self.outputTokens = outputTokens
        self.importedTokens = importedTokens
        self.sampling = sampling
        self.maximumNewTokens = maximumNewTokens
        self.exportsKV = exportsKV
        self.exportedFrom = exportedFrom
        self.retainsKV = retainsKV
    }
}

/// An order to an engine.
package enum EngineCommand: Sendable {
    /// Adds a block to a sequence; the first block opens it. Blocks come in order, without gaps.
    ///
    /// Answered by `imported`, `blockRefused` or, without room, `failed`: by exactly one of them.
    case importKV(SequenceID, KVBlock)
    /// Begins a sequence with the first `tokens` tokens of a retained one, which stays as it is.
    ///
    /// They share the KV: it takes room once, and lives until the last of them is gone. Answered
    /// like a block: `blockRefused` if so many tokens aren't retained, or a window of theirs is
    /// gone; `failed` if all sequences are open.
    case fork(SequenceID, from: SequenceID, tokens: Int)
    /// Exports KV of a retained sequence from token `from` on, as blocks of at most a micro-batch,
    /// a few between two iterations.
    ///
    /// Answered by `exported` for each, then `exportEnded`; or by `failed`, which closes it. A
    /// cancellation ends it with `cancelled` alone.
    case export(SequenceID, from: Int)
    /// How long an iteration may take while sequences decode: prompts get what is left of it, and
    /// a few tokens at least. Nil: as many prompt tokens as the settings allow.
    case limitStep(Duration?)
    /// Computes what is not imported, then generates. Opens the sequence if no block did.
    ///
    /// Dropped without an event if `importedTokens` don't fit and the sequence's last block was
    /// refused: the caller knows, and sends blocks and job again.
    case run(SequenceJob)
    /// Ends the job of a sequence that decodes, and retains its KV as if it had finished.
    ///
    /// Answered by `held`; ignored if the sequence does not decode, or its job has finished.
    case hold(SequenceID)
    /// Drops a sequence, also a retained one, and frees what KV is its alone before the next
    /// iteration. Unknown sequences are ignored.
    case cancel(SequenceID)
}

/// What an engine reports.
package enum EngineEvent: Sendable {
    /// A block was imported; `tokens` tokens of the sequence are there now.
    case imported(SequenceID, tokens: Int)
    /// A block is damaged or doesn't follow what is there; `expectedToken` would.
    ///
    /// An open sequence stays as it was. If it was not open, it is not now.
    case blockRefused(SequenceID, expectedToken: Int, reason: String)
    /// KV of a run of tokens: computed just now, or asked for by `export`.
    case exported(SequenceID, KVBlock)
    /// All that `export` asked for is out; the sequence stays retained.
    case exportEnded(SequenceID)
    /// A token was sampled. `finish` is set with the last one; the sequence is closed then and
    /// its KV is free. If its job retains the KV, this stays: of all tokens but the last one, whose
    /// KV nobody has computed.
    case token(SequenceID, TokenOutput, finish: FinishReason?)
    /// `hold` has ended its job; the KV of all its tokens but the last one stays.
    case held(SequenceID)
    /// The sequence is closed without a result; its KV is free.
    case failed(SequenceID, EngineError)
    /// The sequence was cancelled; its KV is free.
    case cancelled(SequenceID)
    /// The engine can't go on at all, for example because the device is lost.
    case engineLost(EngineError)
}

/// How far an engine is.
package struct EngineProgress: Sendable, Hashable {
    /// Iterations finished since the start.
    package var steps: UInt64
    /// Age of the running iteration; nil when idle.
    package var stepAge: Duration?
    package var openSequences: Int
    /// KV tokens in use by all sequences; what some of them share counts once.
    package var usedKVTokens: Int
    /// Time of all iterations since the start, without their exports.
    package var computeDuration = Duration.zero
    /// Bytes of all blocks exported since the start, and the engine's time that it took.
    package var exportedKVBytes = 0
    package var exportDuration = Duration.zero
    /// Bytes of all blocks imported since the start, and the engine's time that it took; refused
    /// blocks count with their time only.
    package var importedKVBytes = 0
    package var importDuration = Duration.zero
    /// Prompt tokens computed in iterations without decoding sequences, and their time.
    package var prefillTokens = 0
    package var prefillDuration = Duration.zero
    /// Iterations with decoding sequences, and their time.
    package var decodeSteps = 0
    package var decodeDuration = Duration.zero

    package init(steps: UInt64, stepAge: Duration?, openSequences: Int, usedKVTokens: Int) {
        self.steps = steps
        self.stepAge = stepAge
        self.openSequences = openSequences
        self.usedKVTokens = usedKVTokens
    }
}

/// Why an engine could not load, or a sequence could not go on.
package enum EngineError: Error, Hashable, Sendable {
    /// The model file can't be read or is damaged; the process ends, the operator gives another.
    case modelNotLoaded(path: String, reason: String)
    /// The model keeps state that can't be handed over; the operator chooses another model.
    case modelNotSupported(reason: String)
    /// The device has too little memory for the settings; the operator lowers them.
    case contextNotCreated(reason: String)
    /// All sequences are open, or the KV is full; the worker fails the request, it goes elsewhere.
    case noRoom(neededTokens: Int, freeTokens: Int)
    /// A block can't be used, or a job's KV is of other tokens; the KV is sent again, or the
    /// request starts again.
    case blockRefused(reason: String)
    /// The job's numbers don't fit together; a defect of the caller.
    case invalidJob(reason: String)
    /// The backend reported a failure while computing; the request starts again elsewhere.
    case computeFailed(code: Int32)
    /// The engine is shutting down.
    case shutDown
}
