import Logging
import ServiceRuntime
import ServingTypes
import Synchronization
import Testing

private final class Lines: Sendable {
    private let lines = Mutex<[String]>([])

    var all: [String] { lines.withLock { $0 } }

    func logger(_ format: LogFormat, level: Logger.Level = .info) -> Logger {
        Logger(label: "gateway") { label in
            ServiceLogHandler(label: label, level: level, format: format) { line in
                self.lines.withLock { $0.append(line) }
            }
        }
    }
}

@Suite struct LogTests {
    @Test func `a line has time, level, service, sentence and sorted metadata`() throws {
        let lines = Lines()
        var logger = lines.logger(.text)
        logger[metadataKey: "worker"] = "decode-worker-1"
        logger.info("Request finished.", metadata: ["request": "00ff", "note": "two words\n\"q\""])
        let line = try #require(lines.all.first)
        let time = line.prefix { $0 != " " }
        #expect(time.count == 24 && time.hasPrefix("20") && time.hasSuffix("Z"))
        #expect(
            line.dropFirst(time.count)
                == " info gateway Request finished. note=\"two words\\n\\\"q\\\"\" request=00ff "
                + "worker=decode-worker-1\n")
    }

    @Test func `lines below the level are not written`() {
        let lines = Lines()
        let logger = lines.logger(.text, level: .warning)
        logger.info("No.")
        logger.warning("Yes.")
        #expect(lines.all.count == 1)
    }

    @Test func `a JSON line escapes what it must and keeps its own members`() throws {
        let lines = Lines()
        let logger = lines.logger(.json)
        logger.error("A \"b\"\u{1}", metadata: ["level": "x", "k": "é"])
        let line = try #require(lines.all.first)
        #expect(line.hasPrefix("{\"time\":\"20"))
        #expect(
            line.hasSuffix(
                #"Z","level":"error","service":"gateway","message":"A \"b\"\u0001","#
                    + #""k":"é","metadata.level":"x"}"# + "\n"))
    }

    @Test func `one event is one line whatever it contains`() {
        let lines = Lines()
        lines.logger(.text).info("a\nb\r\u{0}", metadata: ["": "", "k": "v\u{2}"])
        #expect(lines.all.first?.filter { $0 == "\n" }.count == 1)
    }

    @Test func `times are written in UTC`() {
        let cases = [
            (0, 0, "1970-01-01T00:00:00.000Z"), (951_782_399, 7, "2000-02-28T23:59:59.007Z"),
            (951_782_400, 999, "2000-02-29T00:00:00.999Z"),
            (1_709_251_199, 50, "2024-02-29T23:59:59.050Z"),
            (1_735_689_599, 0, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
        ]
        for (seconds, milliseconds, text) in cases {
            #expect(WallClock(seconds: seconds, milliseconds: milliseconds).text == text)
        }
    }

    @Test func `the clock runs and memory is measured`() throws {
        let start = ProcessClock.now()
        #expect(ProcessClock.now() >= start && start.nanoseconds > 0)
        #if os(Linux)
            let bytes = try #require(ResidentMemory.bytes())
            #expect((1 << 20...1 << 40).contains(bytes))
        #endif
    }
}
