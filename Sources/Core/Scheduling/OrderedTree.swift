import ServingTypes

/// Keys in ascending order, each with a number; each key is there at most once.
///
/// A treap in one array: inserting, removing and finding a key's successor take O(log n) steps. Its
/// balance comes from a count of insertions, which nobody outside can choose.
struct OrderedTree<Key: Comparable & Sendable>: Sendable {
    struct Entry: Sendable {
        let key: Key
        let number: Int
    }

    private struct Node: Sendable {
        var entry: Entry
        /// A node's weight is at least its children's.
        var weight: UInt64
        var less = -1
        var greater = -1
    }

    private var nodes: [Node] = []
    private var free: [Int] = []
    private var root = -1
    private var weights = SeededGenerator(seed: 0)

    var count: Int { nodes.count - free.count }
    var isEmpty: Bool { root < 0 }

    var first: Entry? {
        guard root >= 0 else { return nil }
        var place = root
        while nodes[place].less >= 0 { place = nodes[place].less }
        return nodes[place].entry
    }

    var last: Entry? {
        guard root >= 0 else { return nil }
        var place = root
        while nodes[place].greater >= 0 { place = nodes[place].greater }
        return nodes[place].entry
    }

    /// The entry of the least greater key, whether or not `key` is there.
    func next(after key: Key) -> Entry? {
        var found: Entry?
        var place = root
        while place >= 0 {
            if key < nodes[place].entry.key {
                found = nodes[place].entry
                place = nodes[place].less
            } else {
                place = nodes[place].greater
            }
        }
        return found
    }

    /// Adds a key that is not there yet.
    mutating func insert(_ key: Key, _ number: Int) {
        let node = Node(entry: Entry(key: key, number: number), weight: weights.next())
        let place: Int
        if let reused = free.popLast() {
            place = reused
            nodes[place] = node
        } else {
            place = nodes.count
            nodes.append(node)
        }
        root = inserted(place, into: root)
    }

    /// Removes a key; nothing happens if it is not there.
    mutating func remove(_ key: Key) { root = removed(key, from: root) }

    private mutating func inserted(_ place: Int, into tree: Int) -> Int {
        guard tree >= 0 else { return place }
        if nodes[place].weight > nodes[tree].weight {
            let (less, greater) = split(tree, at: nodes[place].entry.key)
            nodes[place].less = less
            nodes[place].greater = greater
            return place
        }
        precondition(nodes[place].entry.key != nodes[tree].entry.key, "a key is there once")
        if nodes[place].entry.key < nodes[tree].entry.key {
            nodes[tree].less = inserted(place, into: nodes[tree].less)
        } else {
            nodes[tree].greater = inserted(place, into: nodes[tree].greater)
        }
        return tree
    }

    private mutating func removed(_ key: Key, from tree: Int) -> Int {
        guard tree >= 0 else { return tree }
        if nodes[tree].entry.key == key {
            free.append(tree)
            return merged(nodes[tree].less, nodes[tree].greater)
        }
        if key < nodes[tree].entry.key {
            nodes[tree].less = removed(key, from: nodes[tree].less)
        } else {
            nodes[tree].greater = removed(key, from: nodes[tree].greater)
        }
        return tree
    }

    private mutating func split(_ tree: Int, at key: Key) -> (less: Int, greater: Int) {
        guard tree >= 0 else { return (-1, -1) }
        precondition(nodes[tree].entry.key != key, "a key is there once")
        if nodes[tree].entry.key < key {
            let (less, greater) = split(nodes[tree].greater, at: key)
            nodes[tree].greater = less
            return (tree, greater)
        }
        let (less, greater) = split(nodes[tree].less, at: key)
        nodes[tree].less = greater
        return (less, tree)
    }

    private mutating func merged(_ less: Int, _ greater: Int) -> Int {
        guard less >= 0 else { return greater }
        guard greater >= 0 else { return less }
        if nodes[less].weight > nodes[greater].weight {
            nodes[less].greater = merged(nodes[less].greater, greater)
            return less
        }
        nodes[greater].less = merged(less, nodes[greater].less)
        return greater
    }
}
