import Foundation

/// How many processes the kernel has killed for want of memory, as it counts them itself.
struct MemoryKills: Sendable {
    /// Where the count of the process's control group stands; nil if there is none.
    private var groupFile: String?
    private var groupKills: Int
    private let hostKills: Int

    /// What there is before a process starts.
    init() {
        hostKills = Self.count("/proc/vmstat") ?? 0
        groupKills = 0
    }

    /// Looks which control group the process is in now; whoever started it may have moved it.
    mutating func follow(_ process: Int32) {
        guard let file = Self.groupFile(of: process), file != groupFile else { return }
        groupFile = file
        groupKills = Self.count(file) ?? 0
    }

    /// Kills since then: of its group, and of the whole host.
    var rise: (group: Int, host: Int) {
        let group = groupFile.flatMap { Self.count($0) }.map { $0 - groupKills }
        return (max(0, group ?? 0), max(0, (Self.count("/proc/vmstat") ?? 0) - hostKills))
    }

    /// Of both versions of control groups, by their usual places.
    private static func groupFile(of process: Int32) -> String? {
        guard let text = try? String(contentsOfFile: "/proc/\(process)/cgroup", encoding: .utf8)
        else { return nil }
        var places: [String] = []
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            let path = parts[2] == "/" ? "" : String(parts[2])
            if parts[1].split(separator: ",").contains("memory") {
                places.insert("/sys/fs/cgroup/memory\(path)/memory.oom_control", at: 0)
            } else if parts[0] == "0" {
                places.append("/sys/fs/cgroup\(path)/memory.events.local")
                places.append("/sys/fs/cgroup\(path)/memory.events")
            }
        }
        return places.first { count($0) != nil }
    }

    private static func count(_ file: String) -> Int? {
        guard let text = try? String(contentsOfFile: file, encoding: .utf8) else { return nil }
        let line = text.split(separator: "\n").first { $0.hasPrefix("oom_kill ") }
        return line.flatMap { Int($0.dropFirst("oom_kill ".count)) }
    }
}
