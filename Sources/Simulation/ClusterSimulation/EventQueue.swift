/// Things to come, by time; equal times in the order they were added.
package struct EventQueue {
    private struct Entry {
        var nanoseconds: Int64
        var number: UInt64
        var body: () -> Void

        func isBefore(_ other: Entry) -> Bool {
            (nanoseconds, number) < (other.nanoseconds, other.number)
        }
    }

    private var heap: [Entry] = []
    private var added: UInt64 = 0

    package init() {}

    package mutating func add(at nanoseconds: Int64, _ body: @escaping () -> Void) {
        added += 1
        heap.append(Entry(nanoseconds: nanoseconds, number: added, body: body))
        var index = heap.count - 1
        while index > 0, heap[index].isBefore(heap[(index - 1) / 2]) {
            heap.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    package mutating func next() -> (nanoseconds: Int64, body: () -> Void)? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            var index = 0
            while true {
                var least = index
                for child in [2 * index + 1, 2 * index + 2]
                where child < heap.count && heap[child].isBefore(heap[least]) {
                    least = child
                }
                if least == index { break }
                heap.swapAt(index, least)
                index = least
            }
        }
        return (first.nanoseconds, first.body)
    }
}
