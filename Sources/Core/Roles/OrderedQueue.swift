/// Values in ascending order of their keys; each key is there at most once.
///
/// A sorted array: finding is binary search, inserting at the end costs nothing, and moving the
/// tail of a few thousand small entries takes microseconds.
struct OrderedQueue<Key: Comparable & Sendable, Value: Sendable>: Sendable {
    struct Entry: Sendable {
        var key: Key
        var value: Value
    }

    private(set) var entries: [Entry] = []

    var isEmpty: Bool { entries.isEmpty }
    var count: Int { entries.count }
    var first: Entry? { entries.first }

    /// Adds an entry; replaces the one with the same key if there is one.
    mutating func insert(_ key: Key, _ value: Value) {
        let index = position(of: key)
        if index < entries.count, entries[index].key == key {
            entries[index].value = value
        } else {
            entries.insert(Entry(key: key, value: value), at: index)
        }
    }

    /// Removes the entry with this key if it is there.
    mutating func remove(_ key: Key) {
        let index = position(of: key)
        if index < entries.count, entries[index].key == key { entries.remove(at: index) }
    }

    /// Index of the first entry whose key is not less.
    private func position(of key: Key) -> Int {
        if let last = entries.last, last.key < key { return entries.count }
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].key < key { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
