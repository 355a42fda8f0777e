import Synchronization
import Waiting

/// Hands elements from any thread to one waiting thread, in order.
///
/// Its users bound what they add: a transfer queue holds at most the blocks of the open slots.
final class WorkQueue<Element: Sendable>: Sendable {
    private let elements = Mutex<[Element]>([])
    private let available = MonotonicSemaphore()

    func add(_ element: Element) {
        elements.withLock { $0.append(element) }
        available.signal()
    }

    /// The next element; nil if none came in time.
    func next(within timeout: Duration) -> Element? {
        guard available.wait(atMost: timeout) else { return nil }
        return elements.withLock { $0.isEmpty ? nil : $0.removeFirst() }
    }

    var count: Int { elements.withLock { $0.count } }
}
