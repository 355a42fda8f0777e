package import ServingTypes

/// Bounds of a prefix index.
package struct PrefixIndexLimits: Sendable, Hashable {
    /// Tokens of a block, the unit in which prompts are compared.
    package var blockTokens = 32
    /// Blocks kept; the ones used least recently go first.
    ///
    /// A block takes 32 bytes and 24 in the table of hashes, so this many take 15 MB and cover 8
    /// million tokens.
    package var maximumBlocks = 262_144
    /// Workers remembered for each block, the latest ones.
    package static let holdersPerBlock = 4

    package init() {}
}

/// The blocks of one prompt: a chain of hashes, each over all tokens up to its end.
///
/// Computed once for a request and used at each of its placements. Takes 8 bytes a block.
package struct PrefixBlocks: Sendable, Hashable {
    fileprivate let hashes: [UInt64]
    package let tokens: Int
}

/// Guesses which worker holds the KV of which prompt beginnings.
///
/// It knows what this gateway sent where, not what a worker has dropped since, so it is a guess:
/// `correct` takes back what a worker turned out not to have. One index serves for prefill-workers;
/// a second one, given prompt and answer together when a request ends, finds the decode-worker that
/// holds a conversation, so that no other memory of sessions is needed.
///
/// A worker that holds a block holds all blocks before it, since hashes are chained: the deepest
/// block it is named for tells how much it holds, even where busier workers have displaced it from
/// the popular first blocks.
package struct PrefixIndex: Sendable {
    /// Numbers of the workers' lives, the latest first; 0: nobody.
    private typealias Holders = SIMD4<UInt32>

    /// A remembered block, in a list from the most to the least recently used one.
    private struct Block: Sendable {
        // The widest first: 32 bytes without a gap.
        var holders = Holders()
        var hash: UInt64
        var newer: Int32 = PrefixIndex.none
        var older: Int32 = PrefixIndex.none
    }

    private struct Life: Sendable {
        var number: UInt32
        var incarnation: UInt64
    }

    private static let none: Int32 = -1

    package let limits: PrefixIndexLimits
    private let seed: UInt64
    private var blocks: [Block] = []
    private var places: [UInt64: Int32] = [:]
    private var newest = Self.none
    private var oldest = Self.none
    private var lives: [InstanceID: Life] = [:]
    /// Who has this number; a number whose worker is gone is in no block's way and not used again.
    private var instances: [UInt32: InstanceID] = [:]
    private var lastNumber: UInt32 = 0

    /// - Parameter seed: random, so that clients can't choose prompts whose blocks collide.
    package init(limits: PrefixIndexLimits = PrefixIndexLimits(), seed: UInt64 = 0) {
        precondition(limits.blockTokens > 0, "a block has tokens")
        precondition(
            limits.maximumBlocks > 0 && limits.maximumBlocks < Int(Int32.max),
            "block numbers have 31 bits")
        self.limits = limits
        self.seed = seed
    }

    package var blockCount: Int { blocks.count }

    /// Tokens after the last whole block are not part of it.
    package func blocks(of tokens: [TokenID]) -> PrefixBlocks {
        let size = limits.blockTokens
        var hashes: [UInt64] = []
        hashes.reserveCapacity(tokens.count / size)
        var hash = mixed(seed)
        for (index, token) in tokens.enumerated() {
            // Odd constants of SplitMix64; the rotation brings the mixed high bits down again.
            hash = (hash ^ UInt64(UInt32(bitPattern: token))) &* 0xBF58_476D_1CE4_E5B9
            hash = hash &<< 31 | hash &>> 33
            if (index + 1) % size == 0 {
                hash = mixed(hash)
                hashes.append(hash)
            }
        }
        return PrefixBlocks(hashes: hashes, tokens: tokens.count)
    }

    // MARK: What happened

    /// The worker holds, or will soon hold, the KV of these tokens.
    package mutating func insert(
        _ prompt: PrefixBlocks, at instance: InstanceID, incarnation: UInt64
    ) {
        noticed(instance, incarnation: incarnation)
        let number = number(of: instance, incarnation: incarnation)
        // Each goes behind the one before it: a block is never older than those that follow it,
        // which are of no use without it. What exceeds the bound is not begun.
        var previous = Self.none
        for hash in prompt.hashes.prefix(limits.maximumBlocks) {
            let place = places[hash] ?? newBlock(hash)
            move(place, behind: previous)
            blocks[Int(place)].holders.putFirst(number)
            previous = place
        }
    }

    package mutating func insert(
        _ tokens: [TokenID], at instance: InstanceID, incarnation: UInt64
    ) {
        insert(blocks(of: tokens), at: instance, incarnation: incarnation)
    }

    /// The worker is gone with all it held.
    package mutating func remove(_ instance: InstanceID) {
        // Blocks keep its number, which means nobody now; so this costs the same for any size.
        guard let life = lives.removeValue(forKey: instance) else { return }
        instances[life.number] = nil
    }

    /// The worker lives in this incarnation: what an earlier one held is gone.
    package mutating func noticed(_ instance: InstanceID, incarnation: UInt64) {
        if let life = lives[instance], life.incarnation != incarnation { remove(instance) }
    }

    /// The worker reported how many leading tokens of these it really held.
    package mutating func correct(
        _ instance: InstanceID, _ prompt: PrefixBlocks, hitTokens: Int
    ) {
        guard let life = lives[instance] else { return }
        for (index, hash) in prompt.hashes.enumerated() {
            // The last token is always computed, so a whole prompt counts one token less.
            let end = min((index + 1) * limits.blockTokens, prompt.tokens - 1)
            guard hitTokens < end else { continue }
            guard let place = places[hash] else { return }
            blocks[Int(place)].holders.remove(life.number)
        }
    }

    package mutating func correct(_ instance: InstanceID, tokens: [TokenID], hitTokens: Int) {
        correct(instance, blocks(of: tokens), hitTokens: hitTokens)
    }

    // MARK: Questions

    /// How many leading tokens each worker is expected to hold; those that hold none are not named.
    package func hits(for prompt: PrefixBlocks) -> [InstanceID: Int] {
        var hits: [InstanceID: Int] = [:]
        var depth = 0
        var holders = Holders()
        for (index, hash) in prompt.hashes.enumerated() {
            guard let place = places[hash] else { break }
            let next = blocks[Int(place)].holders
            // Long runs of blocks have the same holders: only the end of a run tells anything.
            if next != holders { note(holders, depth, in: &hits) }
            holders = next
            depth = index + 1
        }
        note(holders, depth, in: &hits)
        return hits
    }

    package func hits(for tokens: [TokenID]) -> [InstanceID: Int] { hits(for: blocks(of: tokens)) }

    private func note(_ holders: Holders, _ depth: Int, in hits: inout [InstanceID: Int]) {
        for index in holders.indices where holders[index] != 0 {
            guard let instance = instances[holders[index]] else { continue }
            hits[instance] = depth * limits.blockTokens
        }
    }

    // MARK: Numbers and places

    private mutating func number(of instance: InstanceID, incarnation: UInt64) -> UInt32 {
        if let life = lives[instance] { return life.number }
        lastNumber += 1
        lives[instance] = Life(number: lastNumber, incarnation: incarnation)
        instances[lastNumber] = instance
        return lastNumber
    }

    /// A place for a block, not in the list yet; the oldest block's if there is no free one.
    private mutating func newBlock(_ hash: UInt64) -> Int32 {
        let place: Int32
        if blocks.count < limits.maximumBlocks {
            place = Int32(blocks.count)
            blocks.append(Block(hash: hash))
        } else {
            place = oldest
            unlink(place)
            places[blocks[Int(place)].hash] = nil
            blocks[Int(place)] = Block(hash: hash)
        }
        places[hash] = place
        return place
    }

    /// Moves a block behind a newer one; to the front if there is `none`.
    private mutating func move(_ place: Int32, behind newer: Int32) {
        let isThere = newer == Self.none ? newest == place : blocks[Int(newer)].older == place
        guard !isThere else { return }
        unlink(place)
        let older = newer == Self.none ? newest : blocks[Int(newer)].older
        blocks[Int(place)].newer = newer
        blocks[Int(place)].older = older
        if newer == Self.none { newest = place } else { blocks[Int(newer)].older = place }
        if older == Self.none { oldest = place } else { blocks[Int(older)].newer = place }
    }

    private mutating func unlink(_ place: Int32) {
        let newer = blocks[Int(place)].newer
        let older = blocks[Int(place)].older
        if newer != Self.none { blocks[Int(newer)].older = older }
        if older != Self.none { blocks[Int(older)].newer = newer }
        if newest == place { newest = older }
        if oldest == place { oldest = newer }
        blocks[Int(place)].newer = Self.none
        blocks[Int(place)].older = Self.none
    }

    /// The last step of SplitMix64: every bit depends on every bit.
    private func mixed(_ value: UInt64) -> UInt64 {
        var generator = SeededGenerator(seed: value)
        return generator.next()
    }
}

extension SIMD4<UInt32> {
    /// Moves a number to the front; if it was not there, the last one falls out.
    fileprivate mutating func putFirst(_ number: UInt32) {
        var last = 0
        while last < 3, self[last] != number { last += 1 }
        while last > 0 {
            self[last] = self[last - 1]
            last -= 1
        }
        self[0] = number
    }

    /// Takes a number out and closes the gap.
    fileprivate mutating func remove(_ number: UInt32) {
        guard let index = indices.first(where: { self[$0] == number }) else { return }
        for place in index..<3 { self[place] = self[place + 1] }
        self[3] = 0
    }
}
