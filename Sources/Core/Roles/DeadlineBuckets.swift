import ServingTypes

/// Deadlines of many, most of which are moved on before they come.
///
/// Kept by tenths of a second: adding one costs nothing, and what is due is found without a look
/// at the others.
struct DeadlineBuckets<Value: Sendable>: Sendable {
    private static var widthNanoseconds: Int64 { 100_000_000 }

    private struct Entry: Sendable {
        var time: MonotonicTime
        var value: Value
    }

    private var buckets: [Int64: [Entry]] = [:]

    mutating func add(_ value: Value, at time: MonotonicTime) {
        buckets[time.nanoseconds / Self.widthNanoseconds, default: []]
            .append(Entry(time: time, value: value))
    }

    /// Removes what is due; in ascending order of their tenths of a second.
    mutating func takeDue(now: MonotonicTime) -> [Value] {
        let current = now.nanoseconds / Self.widthNanoseconds
        var due: [Value] = []
        for number in buckets.keys.filter({ $0 <= current }).sorted() {
            let entries = buckets.removeValue(forKey: number) ?? []
            due += entries.filter { $0.time <= now }.map(\.value)
            let later = entries.filter { $0.time > now }
            if !later.isEmpty { buckets[number] = later }
        }
        return due
    }
}
