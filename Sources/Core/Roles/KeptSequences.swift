import InferenceEngine
import ServingTypes

/// Ended sequences whose KV stays in the engine, because the next turn of a conversation begins
/// with the same tokens.
///
/// Each is used once: the next turn takes it over and is kept in its place.
struct KeptSequences: Sendable {
    /// Shorter common beginnings are not worth a sequence.
    static let fewestTokens = 16

    private struct Entry: Sendable {
        let sequence: SequenceID
        /// Tokens whose KV is there.
        let tokens: [TokenID]
    }

    private let limit: Int
    /// The one kept last is at the end.
    private var entries: [Entry] = []
    private(set) var totalTokens = 0

    init(limit: Int) { self.limit = limit }

    var count: Int { entries.count }

    /// Keeps a sequence; gives those that have to go for it.
    mutating func keep(_ sequence: SequenceID, tokens: [TokenID]) -> [SequenceID] {
        guard limit > 0, tokens.count >= Self.fewestTokens else { return [sequence] }
        entries.append(Entry(sequence: sequence, tokens: tokens))
        totalTokens += tokens.count
        return entries.count > limit ? [removeOldest()].compactMap { $0 } : []
    }

    /// Takes out the sequence that begins most like these tokens, and how many are the same.
    mutating func take(for tokens: [TokenID]) -> (sequence: SequenceID, tokens: Int)? {
        var best: (index: Int, tokens: Int)?
        for (index, entry) in entries.enumerated() {
            let common = zip(entry.tokens, tokens).prefix { $0 == $1 }.count
            // Of equals the later one: it is the likelier to be the same conversation.
            if common >= Self.fewestTokens, common >= best?.tokens ?? 0 { best = (index, common) }
        }
        guard let best else { return nil }
        let entry = entries.remove(at: best.index)
        totalTokens -= entry.tokens.count
        return (entry.sequence, best.tokens)
    }

    /// Takes out the one that has not been used for longest.
    mutating func removeOldest() -> SequenceID? {
        guard !entries.isEmpty else { return nil }
        let entry = entries.removeFirst()
        totalTokens -= entry.tokens.count
        return entry.sequence
    }

    mutating func removeAll() -> [SequenceID] {
        defer { self = KeptSequences(limit: limit) }
        return entries.map(\.sequence)
    }
}
