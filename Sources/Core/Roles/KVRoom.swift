import InferenceEngine
import ServingTypes

/// The KV of a worker's engine: what runs has been promised its room, what is kept has the rest.
///
/// What kept sequences share is counted once. What runs is counted whole, also where it shares KV
/// with others, so that there is at least as much room as is counted.
struct KVRoom: Sendable {
    let capacityTokens: Int
    private let maximumKeptTokens: Int
    private(set) var kept: KeptSequences
    /// Of kept sequences.
    private var ledger = KVLedger()
    /// Keeps nothing any more.
    private var isClosed = false

    init(limits: WorkerLimits) {
        capacityTokens = limits.kvCapacityTokens
        maximumKeptTokens = limits.keptTokens
        kept = KeptSequences(limit: limits.keptSequences)
    }

    var keptTokens: Int { ledger.usedTokens }

    /// Kept KV with which a prompt begins.
    mutating func find(for tokens: [TokenID], block: Int = 1) -> KeptSequences.Hit? {
        kept.find(for: tokens, block: block)
    }

    /// Makes room for a sequence and begins it with what was found; kept ones make way.
    ///
    /// - Parameters:
    ///   - neededTokens: longest it can get; fits beside `usedTokens`.
    ///   - usedTokens: promised to others that run.
    mutating func begin(
        _ sequence: SequenceID, neededTokens: Int, usedTokens: Int, with hit: KeptSequences.Hit?
    ) -> [WorkerAction] {
        let keepable = capacityTokens - usedTokens - neededTokens
        var actions = makeWay(keepable: keepable, but: hit?.sequence)
        guard let hit else { return actions }
        actions.append(.fork(sequence, from: hit.sequence, tokens: hit.tokens))
        // What they share stays with the new one.
        return keptTokens > keepable ? actions + forget(hit.sequence) : actions
    }

    /// Keeps the KV of a sequence that the engine has retained.
    ///
    /// - Parameter hit: what it was begun with.
    mutating func keep(
        _ sequence: SequenceID, tokens: [TokenID], begunWith hit: KeptSequences.Hit?
    ) -> [WorkerAction] {
        guard !isClosed else { return [.cancelSequence(sequence)] }
        var own = tokens.count
        if let hit, kept.contains(hit.sequence) {
            ledger.fork(sequence, from: hit.sequence, tokens: hit.tokens)
            own -= hit.tokens
        }
        ledger.add(own, to: sequence)
        return leave(kept.keep(sequence, tokens: tokens)) + makeWay(keepable: maximumKeptTokens)
    }

    /// Gives up the oldest until no more than this is kept.
    mutating func makeWay(
        keepable: Int, but exception: SequenceID? = nil
    ) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        while keptTokens > keepable, let oldest = kept.removeOldest(but: exception) {
            actions += leave([oldest])
        }
        return actions
    }

    /// The engine could not begin a sequence with this one.
    mutating func forget(_ sequence: SequenceID?) -> [WorkerAction] {
        guard let sequence, kept.remove(sequence) else { return [] }
        return leave([sequence])
    }

    /// Gives up what is kept.
    mutating func empty() -> [WorkerAction] { leave(kept.removeAll()) }

    /// Gives up what is kept and keeps nothing from now on.
    mutating func close() -> [WorkerAction] {
        isClosed = true
        return empty()
    }

    private mutating func leave(_ sequences: [SequenceID]) -> [WorkerAction] {
        for sequence in sequences { ledger.remove(sequence) }
        return sequences.map { .cancelSequence($0) }
    }
}
