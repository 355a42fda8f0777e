package import ServingTypes

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// The process's monotonic clock (CLOCK_MONOTONIC).
package enum ProcessClock {
    package static func now() -> MonotonicTime {
        let time = read(CLOCK_MONOTONIC)
        return MonotonicTime(
            nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }

    fileprivate static func read(_ clock: clockid_t) -> timespec {
        var time = timespec()
        let result = unsafe clock_gettime(clock, &time)
        precondition(result == 0, "the clock can't be read")
        return time
    }
}

/// A moment on the calendar, for logs and for `created` in answers.
package struct WallClock: Hashable, Sendable {
    package var seconds: Int
    package var milliseconds: Int

    package init(seconds: Int, milliseconds: Int = 0) {
        self.seconds = seconds
        self.milliseconds = milliseconds
    }

    package static func now() -> WallClock {
        let time = ProcessClock.read(CLOCK_REALTIME)
        return WallClock(seconds: Int(time.tv_sec), milliseconds: Int(time.tv_nsec) / 1_000_000)
    }

    /// RFC 3339 in UTC with milliseconds.
    package var text: String {
        let days = seconds / 86_400
        let second = seconds % 86_400
        // Howard Hinnant, "chrono-compatible low-level date algorithms", for days since 1970.
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra =
            (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        return "\(year)-\(padded(month, 2))-\(padded(day, 2))T\(padded(second / 3600, 2)):"
            + "\(padded(second / 60 % 60, 2)):\(padded(second % 60, 2)).\(padded(milliseconds, 3))Z"
    }

    private func padded(_ number: Int, _ digits: Int) -> String {
        let text = String(number)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
}

/// Memory of this process that is in RAM.
package enum ResidentMemory {
    /// Nil where /proc is missing.
    package static func bytes() -> Int? {
        guard let text = SmallFile.text("/proc/self/statm") else { return nil }
        let fields = text.split(separator: " ")
        guard fields.count > 1, let pages = Int(fields[1]) else { return nil }
        return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
    }
}

/// Reads files of the kernel, whose size is not known before.
enum SmallFile {
    private static let maximumBytes = 4096

    /// The first 4 KiB; nil if the file can't be read.
    static func text(_ path: String) -> String? {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var count = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: maximumBytes) {
            buffer, initialized in
            count = unsafe read(descriptor, buffer.baseAddress, maximumBytes)
            initialized = max(count, 0)
        }
        return count < 0 ? nil : String(decoding: bytes, as: UTF8.self)
    }
}
