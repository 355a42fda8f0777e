import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// How many files and sockets this process may have open, and how many connections may use up.
///
/// A process must not run out of them: libdispatch looks at its threads through `/proc` once a
/// second, and ends the process when it can't open a file for that.
package enum OpenFiles {
    /// Files that connections leave free for everything else, if the limit has room for them.
    package static let reserve = 256

    #if canImport(Glibc)
        private static let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    #else
        private static let resource = RLIMIT_NOFILE
    #endif

    private static let pauses = Atomic<Int>(0)

    /// The limit now; nil if it can't be read.
    package static var limit: Int? {
        var limit = rlimit()
        guard unsafe getrlimit(resource, &limit) == 0 else { return nil }
        return Int(clamping: limit.rlim_cur)
    }

    /// Raises the limit as far as the system lets this process.
    ///
    /// Shells often begin with 1024, and each connection needs one. What can't be raised stays.
    ///
    /// - Returns: the limit now; nil if it can't be read.
    @discardableResult
    package static func raiseLimit() -> Int? {
        var limit = rlimit()
        guard unsafe getrlimit(resource, &limit) == 0 else { return nil }
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max
            _ = unsafe setrlimit(resource, &limit)
        }
        return self.limit
    }

    /// Files that a process with such a limit keeps free of connections.
    package static func reserve(ofLimit limit: Int) -> Int { min(reserve, limit / 4) }

    /// Connections that a process with this limit may have at all; no bound if it can't be read.
    package static var forConnections: Int {
        guard let limit else { return .max }
        return max(1, limit - reserve(ofLimit: limit))
    }

    /// Whether one more connection would take a file of the reserve.
    ///
    /// The system gives out the lowest free number, so connections that ask first never have one
    /// of the highest numbers. Costs two system calls.
    package static var areScarce: Bool { isBeyond { $0 - reserve(ofLimit: $0) } }

    /// Whether this process may not even connect to another one: half of the reserve is in use.
    package static var areVeryScarce: Bool { isBeyond { $0 - reserve(ofLimit: $0) / 2 } }

    private static func isBeyond(_ bound: (Int) -> Int) -> Bool {
        guard let limit else { return false }
        let file = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)
        guard file >= 0 else { return errno == EMFILE }
        close(file)
        return Int(file) >= bound(limit)
    }

    /// Files that are open now; nil where /proc is missing.
    package static var count: Int? {
        guard let folder = unsafe opendir("/proc/self/fd") else { return nil }
        defer { unsafe closedir(folder) }
        var count = 0
        while unsafe readdir(folder) != nil { count += 1 }
        // Its own two names, and the folder itself.
        return max(0, count - 3)
    }

    /// Times a listener of this process stopped accepting, as files were scarce.
    package static var acceptPauses: Int { pauses.load(ordering: .relaxed) }

    static func countPause() { pauses.add(1, ordering: .relaxed) }
}
