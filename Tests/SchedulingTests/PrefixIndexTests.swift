import Scheduling
import ServingTypes
import Testing

@Suite struct PrefixIndexTests {
    private let first = InstanceID("worker-1")
    private let second = InstanceID("worker-2")

    private func index(blockTokens: Int = 4, maximumBlocks: Int = 100) -> PrefixIndex {
        var limits = PrefixIndexLimits()
        limits.blockTokens = blockTokens
        limits.maximumBlocks = maximumBlocks
        return PrefixIndex(limits: limits, seed: 7)
    }

    private func tokens(_ range: Range<TokenID>) -> [TokenID] { Array(range) }

    @Test func `only whole blocks from the beginning count`() {
        var index = index()
        index.insert(tokens(0..<11), at: first, incarnation: 1)
        #expect(index.hits(for: tokens(0..<11)) == [first: 8])
        #expect(index.hits(for: tokens(0..<100)) == [first: 8])
        #expect(index.hits(for: tokens(0..<7)) == [first: 4])
        #expect(index.hits(for: tokens(0..<3)) == [:])
        // The second block alone, without the first before it.
        #expect(index.hits(for: tokens(4..<8)) == [:])
        #expect(index.hits(for: [9] + tokens(1..<8)) == [:])
        #expect(index.hits(for: []) == [:])
    }

    @Test func `workers are told apart by the deepest block they hold`() {
        var index = index()
        index.insert(tokens(0..<16), at: first, incarnation: 1)
        index.insert(tokens(0..<8) + tokens(50..<58), at: second, incarnation: 1)
        #expect(index.hits(for: tokens(0..<16)) == [first: 16, second: 8])
        #expect(index.hits(for: tokens(0..<8) + [50, 51, 52, 53]) == [first: 8, second: 12])
    }

    @Test func `a worker displaced from a popular beginning keeps what follows it`() {
        var index = index()
        let beginning = tokens(0..<8)
        index.insert(beginning + tokens(100..<108), at: first, incarnation: 1)
        for number in 0..<4 {
            index.insert(beginning, at: InstanceID("other-\(number)"), incarnation: 1)
        }
        // Four holders are remembered, and the first one is the fifth.
        #expect(index.hits(for: beginning)[first] == nil)
        #expect(index.hits(for: beginning).count == 4)
        #expect(index.hits(for: beginning + tokens(100..<108))[first] == 16)
    }

    @Test func `a worker that left or started again holds nothing`() {
        var index = index()
        for instance in [first, second] {
            index.insert(tokens(0..<8), at: instance, incarnation: 1)
        }
        index.remove(first)
        #expect(index.hits(for: tokens(0..<8)) == [second: 8])
        index.noticed(second, incarnation: 1)
        #expect(index.hits(for: tokens(0..<8)) == [second: 8])
        index.noticed(second, incarnation: 2)
        #expect(index.hits(for: tokens(0..<8)) == [:])
        index.insert(tokens(0..<4), at: second, incarnation: 2)
        #expect(index.hits(for: tokens(0..<8)) == [second: 4])
        index.insert(tokens(20..<24), at: second, incarnation: 3)
        #expect(index.hits(for: tokens(0..<8)) == [:])
    }

    @Test func `what a worker turned out not to have is taken back`() {
        var index = index()
        for instance in [first, second] {
            index.insert(tokens(0..<16), at: instance, incarnation: 1)
        }
        // The last token is always computed: 15 of 16 is all there can be.
        index.correct(first, tokens: tokens(0..<16), hitTokens: 15)
        #expect(index.hits(for: tokens(0..<16))[first] == 16)
        index.correct(first, tokens: tokens(0..<16), hitTokens: 9)
        #expect(index.hits(for: tokens(0..<16)) == [first: 8, second: 16])
        index.correct(first, tokens: tokens(0..<16), hitTokens: 0)
        #expect(index.hits(for: tokens(0..<16)) == [second: 16])
    }

    @Test func `the least recently used blocks go first and ends before beginnings`() {
        var index = index(maximumBlocks: 6)
        index.insert(tokens(0..<12), at: first, incarnation: 1)
        index.insert(tokens(100..<112), at: first, incarnation: 1)
        index.insert(tokens(0..<4), at: first, incarnation: 1)
        index.insert(tokens(200..<208), at: first, incarnation: 1)
        #expect(index.blockCount == 6)
        #expect(index.hits(for: tokens(0..<12)) == [first: 4])
        #expect(index.hits(for: tokens(100..<112)) == [first: 12])
        index.insert(tokens(300..<304), at: first, incarnation: 1)
        #expect(index.hits(for: tokens(100..<112)) == [first: 8])
    }

    @Test func `a prompt longer than the whole index leaves its beginning there`() {
        var index = index(maximumBlocks: 5)
        index.insert(tokens(0..<400), at: first, incarnation: 1)
        #expect(index.blockCount == 5)
        #expect(index.hits(for: tokens(0..<400)) == [first: 20])
    }

    @Test func `other seeds hash otherwise`() {
        let prompt = tokens(0..<64)
        let other = PrefixIndex(limits: index().limits, seed: 8)
        #expect(index().blocks(of: prompt) == index().blocks(of: prompt))
        #expect(index().blocks(of: prompt) != other.blocks(of: prompt))
    }

    /// Keeps whole block contents in plain arrays, searched from end to end.
    private struct Model {
        struct Block {
            var tokens: [TokenID]
            var holders: [InstanceID] = []
        }
        let blockTokens: Int
        let maximumBlocks: Int
        /// Most recently used first.
        var blocks: [Block] = []
        var incarnations: [InstanceID: UInt64] = [:]

        func prefixes(_ tokens: [TokenID]) -> [[TokenID]] {
            (0..<tokens.count / blockTokens).map { Array(tokens.prefix(($0 + 1) * blockTokens)) }
        }

        mutating func insert(_ tokens: [TokenID], at instance: InstanceID, incarnation: UInt64) {
            if let known = incarnations[instance], known != incarnation { remove(instance) }
            incarnations[instance] = incarnation
            for prefix in prefixes(tokens).reversed() {
                let old = blocks.firstIndex { $0.tokens == prefix }
                var block = old.map { blocks.remove(at: $0) } ?? Block(tokens: prefix)
                block.holders = Array(
                    ([instance] + block.holders.filter { $0 != instance }).prefix(4))
                blocks.insert(block, at: 0)
            }
            blocks = Array(blocks.prefix(maximumBlocks))
        }

        mutating func remove(_ instance: InstanceID) {
            incarnations[instance] = nil
            // A gone worker goes on taking a holder's place until others displace it.
            let gone = InstanceID("gone-\(instance)-\(blocks.count)-\(incarnations.count)")
            for index in blocks.indices {
                blocks[index].holders = blocks[index].holders.map { $0 == instance ? gone : $0 }
            }
        }

        mutating func correct(_ instance: InstanceID, _ tokens: [TokenID], hitTokens: Int) {
            for prefix in prefixes(tokens) where hitTokens < min(prefix.count, tokens.count - 1) {
                guard let index = blocks.firstIndex(where: { $0.tokens == prefix }) else { return }
                blocks[index].holders.removeAll { $0 == instance }
            }
        }

        func hits(for tokens: [TokenID]) -> [InstanceID: Int] {
            var hits: [InstanceID: Int] = [:]
            for prefix in prefixes(tokens) {
                guard let block = blocks.first(where: { $0.tokens == prefix }) else { break }
                for holder in block.holders where incarnations[holder] != nil {
                    hits[holder] = prefix.count
                }
            }
            return hits
        }
    }

    @Test(arguments: 1...12)
    func `it agrees with a model that keeps all tokens`(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let maximumBlocks = [5, 40, 1000][Int(seed % 3)]
        var index = index(blockTokens: 3, maximumBlocks: maximumBlocks)
        var model = Model(blockTokens: 3, maximumBlocks: maximumBlocks)
        // Two tokens only, so that prompts share beginnings of every length.
        func prompt(_ generator: inout SeededGenerator) -> [TokenID] {
            (0..<generator.below(16)).map { _ in TokenID(generator.below(10) / 9) }
        }
        var hitCount = 0
        for step in 0..<1500 {
            let tokens = prompt(&generator)
            let instance = InstanceID("worker-\(generator.below(7))")
            switch generator.below(40) {
            case 0:
                index.remove(instance)
                model.remove(instance)
            case 1...6:
                let hit = generator.below(tokens.count + 1)
                index.correct(instance, tokens: tokens, hitTokens: hit)
                model.correct(instance, tokens, hitTokens: hit)
            default:
                let incarnation = UInt64(generator.below(20) / 19)
                index.insert(tokens, at: instance, incarnation: incarnation)
                model.insert(tokens, at: instance, incarnation: incarnation)
            }
            let asked = prompt(&generator)
            let hits = index.hits(for: asked)
            hitCount += hits.count
            guard hits == model.hits(for: asked), index.blockCount <= maximumBlocks else {
                Issue.record("seed \(seed), step \(step): \(hits) for \(asked)")
                return
            }
        }
        #expect(hitCount > 500, "seed \(seed) has asked about too little")
    }
}
