#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// A semaphore on which threads wait for so long, whatever happens to the wall clock.
///
/// On Linux, Dispatch waits until a moment of the wall clock: if that is set back by an hour
/// meanwhile, the wait is an hour longer.
@safe package final class MonotonicSemaphore: Sendable {
    @unsafe private struct Parts {
        var mutex = unsafe pthread_mutex_t()
        var condition = pthread_cond_t()
        var value = 0
    }

    /// Of the parts: the system wants them at one place, and a pointer can't be sent.
    private let address: UInt

    package init() {
        let parts = UnsafeMutablePointer<Parts>.allocate(capacity: 1)
        unsafe parts.initialize(to: Parts())
        unsafe pthread_mutex_init(&parts.pointee.mutex, nil)
        #if os(Linux)
            var attributes = pthread_condattr_t()
            unsafe pthread_condattr_init(&attributes)
            unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
            unsafe pthread_cond_init(&parts.pointee.condition, &attributes)
            unsafe pthread_condattr_destroy(&attributes)
        #else
            unsafe pthread_cond_init(&parts.pointee.condition, nil)
        #endif
        address = UInt(bitPattern: parts)
    }

    deinit {
        guard let parts = unsafe UnsafeMutablePointer<Parts>(bitPattern: address) else { return }
        unsafe pthread_cond_destroy(&parts.pointee.condition)
        unsafe pthread_mutex_destroy(&parts.pointee.mutex)
        unsafe parts.deallocate()
    }

    /// Lets one waiting thread go on, or the next one that waits.
    package func signal() {
        guard let parts = unsafe UnsafeMutablePointer<Parts>(bitPattern: address) else { return }
        unsafe pthread_mutex_lock(&parts.pointee.mutex)
        unsafe parts.pointee.value += 1
        unsafe pthread_cond_signal(&parts.pointee.condition)
        unsafe pthread_mutex_unlock(&parts.pointee.mutex)
    }

    /// Waits for a signal, at most so long; false if none came.
    package func wait(atMost duration: Duration) -> Bool {
        guard let parts = unsafe UnsafeMutablePointer<Parts>(bitPattern: address) else {
            return false
        }
        var end = Self.end(after: duration)
        unsafe pthread_mutex_lock(&parts.pointee.mutex)
        defer { unsafe pthread_mutex_unlock(&parts.pointee.mutex) }
        while unsafe parts.pointee.value == 0 {
            guard unsafe Self.wait(parts, until: &end) else { return false }
        }
        unsafe parts.pointee.value -= 1
        return true
    }

    /// Longest wait: later moments might not be representable.
    private static let longest = Duration.seconds(1_000_000_000)

    private static func end(after duration: Duration) -> timespec {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        let (seconds, attoseconds) = min(max(duration, .zero), longest).components
        time.tv_sec += Int(seconds)
        time.tv_nsec += Int(attoseconds / 1_000_000_000)
        if time.tv_nsec >= 1_000_000_000 {
            time.tv_sec += 1
            time.tv_nsec -= 1_000_000_000
        }
        return time
    }

    private static func wait(
        _ parts: UnsafeMutablePointer<Parts>, until end: inout timespec
    ) -> Bool {
        #if os(Linux)
            unsafe pthread_cond_timedwait(
                &parts.pointee.condition, &parts.pointee.mutex, &end) == 0
        #else
            var now = timespec()
            unsafe clock_gettime(CLOCK_MONOTONIC, &now)
            var left = timespec(
                tv_sec: end.tv_sec - now.tv_sec, tv_nsec: end.tv_nsec - now.tv_nsec)
            if left.tv_nsec < 0 {
                left.tv_sec -= 1
                left.tv_nsec += 1_000_000_000
            }
            guard left.tv_sec >= 0 else { return false }
            return unsafe pthread_cond_timedwait_relative_np(
                &parts.pointee.condition, &parts.pointee.mutex, &left) == 0
        #endif
    }
}
