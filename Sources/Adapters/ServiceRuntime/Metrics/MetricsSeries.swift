import CoreMetrics
import Synchronization

/// A number that only rises, or a number that is set.
final class ScalarSeries: CounterHandler, FloatingPointCounterHandler, MeterHandler,
    RecorderHandler
{
    private let number = Mutex(0.0)

    var value: Double { number.withLock { $0 } }

    func increment(by amount: Int64) { number.withLock { $0 += Double(amount) } }
    func increment(by amount: Double) { number.withLock { $0 += amount } }
    func decrement(by amount: Double) { number.withLock { $0 -= amount } }
    func reset() { number.withLock { $0 = 0 } }
    func set(_ value: Int64) { number.withLock { $0 = Double(value) } }
    func set(_ value: Double) { number.withLock { $0 = value } }
    func record(_ value: Int64) { set(value) }
    func record(_ value: Double) { set(value) }
}

/// How often values fell below each bound.
final class HistogramSeries: RecorderHandler, TimerHandler {
    struct Content {
        /// Per bound, then those above the last one.
        var counts: [UInt64]
        var sum = 0.0
        var total: UInt64 { counts.reduce(0, +) }
    }

    let bounds: [Double]
    private let state: Mutex<Content>

    init(bounds: [Double]) {
        self.bounds = bounds
        state = Mutex(Content(counts: Array(repeating: 0, count: bounds.count + 1)))
    }

    var content: Content { state.withLock { $0 } }

    func record(_ value: Int64) { record(Double(value)) }

    func record(_ value: Double) {
        guard !value.isNaN else { return }
        let index = bounds.firstIndex { value <= $0 } ?? bounds.count
        state.withLock {
            $0.counts[index] += 1
            $0.sum += value
        }
    }

    func recordNanoseconds(_ duration: Int64) { record(Double(duration) / 1e9) }
}
