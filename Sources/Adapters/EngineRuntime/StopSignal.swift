import Synchronization
import Waiting

/// Tells a computing engine to stop; can be asked from any thread, also from C callbacks.
package final class StopSignal: Sendable {
    private let flag = Atomic<Bool>(false)
    private let semaphore = MonotonicSemaphore()

    package init() {}

    package var isSet: Bool { flag.load(ordering: .relaxed) }

    func set() {
        guard !flag.exchange(true, ordering: .relaxed) else { return }
        semaphore.signal()
    }

    /// Sleeps on the calling thread until the time is over or the signal is set.
    package func sleep(for duration: Duration) {
        guard duration > .zero, !isSet else { return }
        if semaphore.wait(atMost: duration) { semaphore.signal() }
    }
}
