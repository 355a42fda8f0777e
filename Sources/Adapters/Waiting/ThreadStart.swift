import Foundation
import Synchronization

/// The system gives no thread, for want of memory or by a limit.
package struct ThreadShortage: Error, CustomStringConvertible {
    package var description: String {
        "no thread can be started; give the process more memory and threads "
            + "(ulimit -v, ulimit -u, pids.max)"
    }

    package init() {}
}

/// Runs the body on a thread of its own.
///
/// Foundation tells nobody if there is no thread for it, so this waits until it has begun.
///
/// - Throws: if it has not begun in time; it never will then.
package func startThread(
    _ name: String, _ body: @escaping @Sendable () -> Void
) throws(ThreadShortage) {
    let begun = Begun()
    let thread = Thread {
        let isWanted = !begun.isDecided.exchange(true, ordering: .acquiringAndReleasing)
        begun.signal.signal()
        if isWanted { body() }
    }
    thread.name = name
    thread.start()
    guard !begun.signal.wait(atMost: threadStartDeadline),
        !begun.isDecided.exchange(true, ordering: .acquiringAndReleasing)
    else { return }
    throw ThreadShortage()
}

/// Time a new thread may take to begin, on a host where all is slow.
private let threadStartDeadline = Duration.seconds(2)

/// What a thread and its starter share: whichever comes first decides whether it runs.
private final class Begun: Sendable {
    let isDecided = Atomic(false)
    let signal = MonotonicSemaphore()
}
