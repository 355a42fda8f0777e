import ServingTypes

/// One direction of a machine's link: it carries what it is given, one after the other.
struct SimulatedLink {
    private let bytesPerSecond: Double
    /// When it has carried all that it was given.
    private(set) var free = MonotonicTime.start
    private(set) var busySeconds = 0.0
    /// Times as long as its rate says.
    var slowdown = 1.0

    init(bytesPerSecond: Double) { self.bytesPerSecond = bytesPerSecond }

    /// When these bytes have been carried.
    mutating func carry(_ bytes: Double, from now: MonotonicTime) -> MonotonicTime {
        let seconds = bytes / bytesPerSecond * slowdown
        free = max(free, now) + .nanoseconds(Int64(seconds * 1e9))
        busySeconds += seconds
        return free
    }
}
