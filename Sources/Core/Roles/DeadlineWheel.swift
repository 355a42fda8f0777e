import ServingTypes

/// One deadline for each of many numbers, most of which are moved on before they come.
///
/// Kept by tenths of a second: setting and taking away cost the same for any count, and what is due
/// is found without a look at the others.
struct DeadlineWheel<Value: Sendable>: Sendable {
    private struct Entry: Sendable {
        var time: MonotonicTime
        var value: Value
    }

    private static var widthNanoseconds: Int64 { 100_000_000 }

    private var buckets: [Int64: [UInt64: Entry]] = [:]

    private static func bucket(_ time: MonotonicTime) -> Int64 {
        time.nanoseconds / widthNanoseconds
    }

    /// Sets a number that has no deadline yet.
    mutating func insert(_ value: Value, number: UInt64, at time: MonotonicTime) {
        let entry = Entry(time: time, value: value)
        buckets[Self.bucket(time), default: [:]][number] = entry
    }

    /// Takes a number's deadline away; nothing happens if it has none at this time.
    mutating func remove(number: UInt64, at time: MonotonicTime) {
        let bucket = Self.bucket(time)
        guard buckets[bucket]?.removeValue(forKey: number) != nil else { return }
        if buckets[bucket]?.isEmpty == true { buckets[bucket] = nil }
    }

    /// What is due, in ascending order of times, then numbers; it stays until it is taken away.
    func due(now: MonotonicTime) -> [Value] {
        let current = Self.bucket(now)
        var due: [(time: MonotonicTime, number: UInt64, value: Value)] = []
        for (number, bucket) in buckets where number <= current {
            for (number, entry) in bucket where entry.time <= now {
                due.append((entry.time, number, entry.value))
            }
        }
        return due.sorted { ($0.time, $0.number) < ($1.time, $1.number) }.map(\.value)
    }
}
