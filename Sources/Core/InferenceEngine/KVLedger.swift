/// KV room that sequences take, in tokens; what sequences share is counted once.
///
/// Sequences share beginnings only. So their tokens form a tree: a node is a run of tokens, the
/// path from a root to a sequence's node are its tokens.
package struct KVLedger: Sendable {
    private struct Node {
        var parent: Int?
        var tokens: Int
        /// Sequences that end here and nodes that follow.
        var users: Int
    }

    private var nodes: [Int: Node] = [:]
    private var nodeOf: [SequenceID: Int] = [:]
    private var lastNode = 0
    /// Tokens of all sequences together.
    package private(set) var usedTokens = 0

    package init() {}

    /// Tokens of one sequence, shared ones included; 0 of an unknown one.
    package func tokens(of id: SequenceID) -> Int {
        var sum = 0
        var next = nodeOf[id]
        while let node = next.flatMap({ nodes[$0] }) {
            sum += node.tokens
            next = node.parent
        }
        return sum
    }

    /// Adds tokens of its own to a sequence, which may be a new one.
    package mutating func add(_ tokens: Int, to id: SequenceID) {
        precondition(tokens >= 0, "room is added")
        usedTokens += tokens
        let end = nodeOf[id]
        if let end, nodes[end]?.users == 1 {
            nodes[end]?.tokens += tokens
        } else {
            // Takes the sequence's place as a user of the shared node.
            nodeOf[id] = addNode(Node(parent: end, tokens: tokens, users: 1))
        }
    }

    /// Takes the last tokens of a sequence back, which it shares with nobody.
    package mutating func takeBack(_ tokens: Int, from id: SequenceID) {
        guard tokens > 0 else { return }
        guard let end = nodeOf[id], let node = nodes[end], node.users == 1, node.tokens >= tokens
        else { preconditionFailure("shared room is taken back") }
        nodes[end]?.tokens -= tokens
        usedTokens -= tokens
    }

    /// Begins a sequence with the first tokens of another one.
    package mutating func fork(_ new: SequenceID, from id: SequenceID, tokens: Int) {
        precondition(nodeOf[new] == nil, "the sequence is there already")
        var end = self.tokens(of: id)
        precondition(tokens > 0 && tokens <= end, "more than there is")
        var next = nodeOf[id]
        while let number = next, let node = nodes[number] {
            let start = end - node.tokens
            guard start < tokens else {
                end = start
                next = node.parent
                continue
            }
            nodeOf[new] = tokens == end ? number : split(number, after: tokens - start)
            nodes[nodeOf[new] ?? number]?.users += 1
            return
        }
    }

    /// Frees what only this sequence has; unknown ones are ignored.
    package mutating func remove(_ id: SequenceID) {
        var next = nodeOf.removeValue(forKey: id)
        while let number = next, var node = nodes[number] {
            node.users -= 1
            guard node.users == 0 else {
                nodes[number] = node
                mergeIntoOnlyFollower(number)
                return
            }
            usedTokens -= node.tokens
            nodes[number] = nil
            next = node.parent
        }
    }

    /// Puts a node for the first tokens of another one before it; returns its number.
    private mutating func split(_ number: Int, after tokens: Int) -> Int {
        let first = addNode(Node(parent: nodes[number]?.parent, tokens: tokens, users: 1))
        nodes[number]?.parent = first
        nodes[number]?.tokens -= tokens
        return first
    }

    /// Keeps the nodes at less than two for each sequence.
    private mutating func mergeIntoOnlyFollower(_ number: Int) {
        guard let node = nodes[number], node.users == 1,
            let follower = nodes.first(where: { $0.value.parent == number })?.key
        else { return }
        nodes[follower]?.tokens += node.tokens
        nodes[follower]?.parent = node.parent
        nodes[number] = nil
    }

    private mutating func addNode(_ node: Node) -> Int {
        lastNode += 1
        nodes[lastNode] = node
        return lastNode
    }
}
