import Foundation

/// Memory whose end is the end of a page that may be read, so that one byte too far ends the test.
@safe final class GuardedMemory {
    let byteCount: Int
    private let region: UnsafeMutableRawBufferPointer
    private let pageBytes = sysconf(Int32(_SC_PAGESIZE))

    /// - Parameter byteCount: a multiple of the page size.
    init(byteCount: Int) {
        precondition(byteCount.isMultiple(of: pageBytes), "whole pages only")
        self.byteCount = byteCount
        let total = byteCount + pageBytes
        let start = unsafe mmap(
            nil, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0)
        guard let start = unsafe start, unsafe start != MAP_FAILED,
            unsafe mprotect(start + byteCount, pageBytes, PROT_NONE) == 0
        else { fatalError("no guarded memory") }
        unsafe region = UnsafeMutableRawBufferPointer(start: start, count: total)
    }

    deinit { unsafe munmap(region.baseAddress, region.count) }

    /// The last `count` bytes before the guard.
    func last(_ count: Int) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(rebasing: region[(byteCount - count)..<byteCount])
    }
}

/// Most memory this process has held, in bytes.
func peakResidentBytes() -> Int {
    var usage = rusage()
    // Its own process: 0 everywhere, but of another type on each system.
    guard unsafe getrusage(0, &usage) == 0 else { fatalError("getrusage failed") }
    #if os(Linux)
        return usage.ru_maxrss << 10
    #else
        return usage.ru_maxrss
    #endif
}
