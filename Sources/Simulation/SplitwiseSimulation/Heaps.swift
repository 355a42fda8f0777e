/// The least of numbered items by a key that changes, ties by who came first.
struct IndexedHeap<Key: Comparable>: Sendable where Key: Sendable {
    private struct Node: Sendable {
        var key: Key
        var order: Int
        var item: Int32

        @inline(__always)
        static func < (a: Node, b: Node) -> Bool {
            a.key < b.key || (a.key == b.key && a.order < b.order)
        }
    }

    private var nodes: [Node] = []
    /// Place of each item in `nodes`; -1 if absent.
    private var places: [Int32]
    private var orders = 0

    init(items: Int) { places = Array(repeating: -1, count: items) }

    var isEmpty: Bool { nodes.isEmpty }
    var count: Int { nodes.count }
    var least: (key: Key, item: Int)? { nodes.first.map { ($0.key, Int($0.item)) } }

    func contains(_ item: Int) -> Bool { places[item] >= 0 }

    /// Adds the item as the last of its key.
    mutating func insert(_ item: Int, key: Key) {
        nodes.append(Node(key: key, order: orders, item: Int32(item)))
        orders += 1
        rise(from: nodes.count - 1)
    }

    /// Changes the key of an item that is there; its order among equals stays.
    mutating func update(_ item: Int, key: Key) {
        let place = Int(places[item])
        let old = nodes[place].key
        nodes[place].key = key
        if key < old { rise(from: place) } else { sink(from: place) }
    }

    /// Adds the item or changes its key, as the last of that in either case.
    mutating func renew(_ item: Int, key: Key) {
        guard contains(item) else { return insert(item, key: key) }
        let place = Int(places[item])
        let old = nodes[place]
        nodes[place].key = key
        nodes[place].order = orders
        orders += 1
        if nodes[place] < old { rise(from: place) } else { sink(from: place) }
    }

    mutating func remove(_ item: Int) {
        let place = Int(places[item])
        places[item] = -1
        let last = nodes.removeLast()
        guard place < nodes.count else { return }
        nodes[place] = last
        places[Int(last.item)] = Int32(place)
        rise(from: place)
        sink(from: Int(places[Int(last.item)]))
    }

    private mutating func rise(from start: Int) {
        let node = nodes[start]
        var place = start
        while place > 0 {
            let parent = (place - 1) / 4
            guard node < nodes[parent] else { break }
            nodes[place] = nodes[parent]
            places[Int(nodes[place].item)] = Int32(place)
            place = parent
        }
        nodes[place] = node
        places[Int(node.item)] = Int32(place)
    }

    private mutating func sink(from start: Int) {
        let node = nodes[start]
        var place = start
        while true {
            let first = 4 * place + 1
            guard first < nodes.count else { break }
            var least = first
            for child in (first + 1)..<min(first + 4, nodes.count)
            where nodes[child] < nodes[least] { least = child }
            guard nodes[least] < node else { break }
            nodes[place] = nodes[least]
            places[Int(nodes[place].item)] = Int32(place)
            place = least
        }
        nodes[place] = node
        places[Int(node.item)] = Int32(place)
    }
}

/// Events by their time, ties by who came first.
struct EventHeap: Sendable {
    struct Event: Sendable {
        var time: Double
        var order: Int
        var slot: Int32
        /// Whether a KV transfer ends; else it tries to begin.
        var isEnd: Bool

        @inline(__always)
        static func < (a: Event, b: Event) -> Bool {
            a.time < b.time || (a.time == b.time && a.order < b.order)
        }
    }

    private var events: [Event] = []
    private var orders = 0

    var first: Event? { events.first }
    var count: Int { events.count }

    mutating func insert(time: Double, slot: Int32, isEnd: Bool) {
        let event = Event(time: time, order: orders, slot: slot, isEnd: isEnd)
        orders += 1
        events.append(event)
        var place = events.count - 1
        while place > 0, event < events[(place - 1) / 2] {
            events[place] = events[(place - 1) / 2]
            place = (place - 1) / 2
        }
        events[place] = event
    }

    mutating func removeFirst() {
        let last = events.removeLast()
        guard !events.isEmpty else { return }
        var place = 0
        while 2 * place + 1 < events.count {
            var child = 2 * place + 1
            if child + 1 < events.count, events[child + 1] < events[child] { child += 1 }
            guard events[child] < last else { break }
            events[place] = events[child]
            place = child
        }
        events[place] = last
    }
}
