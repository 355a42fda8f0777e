import InferenceEngine
import ServingTypes

/// Ended sequences whose KV stays in the engine, because other prompts begin with the same tokens.
///
/// They stay as they are however often they are used; the one unused for longest goes first. None
/// is the beginning of another: the longer one serves in its place.
struct KeptSequences: Sendable {
    /// Shorter common beginnings are not worth a sequence.
    static let fewestTokens = 16

    /// A kept sequence that begins like a prompt, and how many tokens are the same.
    struct Hit: Hashable, Sendable {
        var sequence: SequenceID
        var tokens: Int
    }

    private struct Entry: Sendable {
        let sequence: SequenceID
        /// Tokens whose KV is there.
        let tokens: [TokenID]
        var lastUse: UInt64
    }

    private let limit: Int
    /// Sorted by tokens, so that what begins most alike lies side by side.
    private var entries: [Entry] = []
    private var uses: UInt64 = 0

    init(limit: Int) { self.limit = limit }

    var count: Int { entries.count }

    func contains(_ sequence: SequenceID) -> Bool {
        entries.contains { $0.sequence == sequence }
    }

    /// Keeps a sequence; gives those that have to go for it, perhaps itself.
    mutating func keep(_ sequence: SequenceID, tokens: [TokenID]) -> [SequenceID] {
        guard limit > 0, tokens.count >= Self.fewestTokens else { return [sequence] }
        uses += 1
        var (place, before, after) = locate(tokens)
        // What begins with these tokens has all of them.
        if after == tokens.count, place < entries.count {
            entries[place].lastUse = uses
            return [sequence]
        }
        var leaving: [SequenceID] = []
        if place > 0, before == entries[place - 1].tokens.count {
            place -= 1
            leaving.append(remove(at: place))
        }
        entries.insert(Entry(sequence: sequence, tokens: tokens, lastUse: uses), at: place)
        if entries.count > limit, let oldest = removeOldest() { leaving.append(oldest) }
        return leaving
    }

    /// The sequence that begins most like these tokens.
    ///
    /// The last token is never among the common ones: what follows it is yet to be computed.
    /// - Parameter block: hits are rounded down to a multiple of so many tokens.
    mutating func find(for tokens: [TokenID], block: Int = 1) -> Hit? {
        let (place, before, after) = locate(tokens)
        let common = min(max(before, after), tokens.count - 1)
        let rounded = common - common % max(1, block)
        guard rounded >= Self.fewestTokens else { return nil }
        let index = after >= before ? place : place - 1
        uses += 1
        entries[index].lastUse = uses
        return Hit(sequence: entries[index].sequence, tokens: rounded)
    }

    /// Takes out the one that has not been used for longest, but not this one.
    mutating func removeOldest(but exception: SequenceID? = nil) -> SequenceID? {
        let oldest = entries.indices.filter { entries[$0].sequence != exception }
            .min { entries[$0].lastUse < entries[$1].lastUse }
        return oldest.map { remove(at: $0) }
    }

    /// Takes this one out; false if it is not kept.
    mutating func remove(_ sequence: SequenceID) -> Bool {
        guard let index = entries.firstIndex(where: { $0.sequence == sequence }) else {
            return false
        }
        _ = remove(at: index)
        return true
    }

    mutating func removeAll() -> [SequenceID] {
        let all = entries.sorted { $0.lastUse < $1.lastUse }.map(\.sequence)
        entries = []
        return all
    }

    private mutating func remove(at index: Int) -> SequenceID {
        entries.remove(at: index).sequence
    }

    /// Where the tokens belong, and how much they have in common with the entries before and there.
    ///
    /// Whatever lies between two entries begins with what these have in common, so that no part is
    /// compared with more than a few entries.
    private func locate(_ tokens: [TokenID]) -> (place: Int, before: Int, after: Int) {
        var (low, high) = (0, entries.count)
        var (before, after) = (0, 0)
        while low < high {
            let middle = (low + high) / 2
            let entry = entries[middle].tokens
            let common = Self.common(entry, tokens, from: min(before, after))
            let isAfter =
                common == tokens.count
                || common < entry.count && entry[common] > tokens[common]
            if isAfter {
                (high, after) = (middle, common)
            } else {
                (low, before) = (middle + 1, common)
            }
        }
        return (low, before, after)
    }

    /// How many tokens at the beginning are the same; the first `start` are known to be.
    private static func common(_ left: [TokenID], _ right: [TokenID], from start: Int) -> Int {
        let end = min(left.count, right.count)
        var index = start
        while index < end, left[index] == right[index] { index += 1 }
        return index
    }
}
