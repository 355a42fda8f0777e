import Roles
import Testing

@Suite struct ProcessEndTests {
    private func end(
        _ status: ProcessEnd.Status, group: Int = 0, host: Int = 0, words: String = ""
    ) -> ProcessEnd {
        var end = ProcessEnd(status: status)
        end.groupKills = group
        end.hostKills = host
        end.lastWords = words
        return end
    }

    @Test func `SIGKILL is explained by what the kernel counted`() {
        let group = end(.signal(9), group: 1, host: 1)
        #expect(group.reason.hasPrefix("signal 9 (SIGKILL): killed for memory, by the limit"))
        let host = end(.signal(9), host: 2)
        #expect(host.reason.contains("most likely killed for memory"))
        #expect(group.lacksMemory && host.lacksMemory)
        let other = end(.signal(9), words: "serving")
        #expect(other.reason == "signal 9 (SIGKILL)")
        #expect(!other.lacksMemory)
        #expect(!end(.signal(11), group: 1, host: 1).lacksMemory, "that was another process")
    }

    @Test func `a failed allocation is told by the last words`() {
        let log = """
            2026-01-31 info decode-worker serving
            terminate called after throwing an instance of 'std::bad_alloc'
            *** Signal 6: Backtracing ***

            """
        let words = ProcessEnd.lastWords(of: log)
        #expect(words.hasPrefix("terminate called"))
        let aborted = end(.signal(6), words: words)
        #expect(aborted.reason.hasPrefix("signal 6 (SIGABRT): it got no more memory; its last"))
        #expect(aborted.lacksMemory)
    }

    @Test func `other ends bear their last words, and an orderly one none`() {
        #expect(ProcessEnd.lastWords(of: "first\nlast\n\n") == "last")
        #expect(ProcessEnd.lastWords(of: "\n") == "")
        #expect(ProcessEnd.lastWords(of: String(repeating: "x", count: 5000)).count == 200)
        #expect(
            end(.code(64), words: "unknown setting").reason
                == "exit code 64 (wrong settings); its last words: unknown setting")
        #expect(end(.code(0), words: "Ended.").reason == "exit code 0")
        #expect(end(.code(75)).reason == "exit code 75 (it hung)")
    }
}
