/// What is known of the end of a process that was kept running.
package struct ProcessEnd: Hashable, Sendable {
    package enum Status: Hashable, Sendable {
        case code(Int32)
        case signal(Int32)
    }

    package var status: Status
    /// Processes of its control group that the kernel has killed for memory since it started.
    package var groupKills = 0
    /// The same of the whole host; 0 if the system does not count them.
    package var hostKills = 0
    /// The last line of its log.
    package var lastWords = ""

    package init(status: Status) { self.status = status }

    /// What a log's end says of the process's end: its last line about missing memory, else its
    /// last one.
    package static func lastWords(of log: String) -> String {
        let lines = log.split(whereSeparator: \.isNewline).filter { line in
            line.contains { !$0.isWhitespace }
        }
        let telling = lines.last { line in
            let words = line.lowercased()
            return wants.contains(where: words.contains)
        }
        return (telling ?? lines.last).map { String($0.prefix(maximumWords)) } ?? ""
    }

    /// Characters of the last words.
    private static let maximumWords = 200

    /// The likely cause, for people.
    package var reason: String {
        var text = description
        if let memory { text += ": " + memory }
        if !isExplained, !lastWords.isEmpty { text += "; its last words: \(lastWords)" }
        return text
    }

    /// Whether it most likely ended for want of memory.
    package var lacksMemory: Bool { memory != nil }

    private var description: String {
        switch status {
        case .code(let code): "exit code \(code)" + (Self.codes[code].map { " (\($0))" } ?? "")
        case .signal(let number):
            "signal \(number)" + (Self.signals[number].map { " (\($0))" } ?? "")
        }
    }

    private static let codes: [Int32: String] = [
        64: "wrong settings", 69: "something it needs is not there", 75: "it hung",
    ]
    private static let signals: [Int32: String] = [
        4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
        11: "SIGSEGV", 15: "SIGTERM", 25: "SIGXFSZ",
    ]

    /// Words of allocators and of libraries when they get no memory.
    private static let wants = [
        "bad_alloc", "cannot allocate memory", "could not allocate", "failed to allocate",
        "out of memory", "no memory",
    ]

    private var memory: String? {
        if case .signal(9) = status {
            if groupKills > 0 {
                return "killed for memory, by the limit of its control group; give it more, or "
                    + "lower --kv-tokens"
            }
            if hostKills > 0 {
                return "most likely killed for memory: the host ran out of it; lower --kv-tokens, "
                    + "or run less on this host"
            }
            return nil
        }
        let words = lastWords.lowercased()
        guard Self.wants.contains(where: words.contains) else { return nil }
        return "it got no more memory"
    }

    private var isExplained: Bool {
        if case .signal(9) = status { true } else { status == .code(0) }
    }
}
