import Glibc
import ServiceLifecycle
import ServiceRuntime
import ServingTypes
import Synchronization
import Testing

/// Collects what a run writes and how it would end its process.
private final class Outcome: Sendable {
    struct State {
        var output = ""
        var error = ""
        var exits: [Int32] = []
    }

    let state = Mutex(State())

    func call(_ arguments: [String] = []) -> ProcessCall {
        var call = ProcessCall(
            arguments: ["--log-level", "critical"] + arguments, environment: [:])
        call.writeOutput = { text in self.state.withLock { $0.output += text } }
        call.writeError = { text in self.state.withLock { $0.error += text } }
        call.exit = { code in self.state.withLock { $0.exits.append(code) } }
        return call
    }
}

private struct PortTaken: ServiceFailure {
    var exitCode: ExitCode { .unavailable }
    var description: String { "port 80 is in use" }
}

/// Runs until it is told to end, then until `ending` is over.
private struct Waiting: Service {
    var started: @Sendable () -> Void = {}
    var ending: @Sendable () async throws -> Void = {}

    func run() async throws {
        started()
        try await gracefulShutdown()
        try await ending()
    }
}

private struct Failing: Service {
    var error: any Error
    func run() async throws { throw error }
}

private func run(_ call: ProcessCall, _ services: [any Service]) async -> Int32 {
    await runService(
        name: "tester", version: "9", call: call,
        settings: { reader throws(SettingsError) in
            try reader.integer("port", default: 1, in: 1...2, "A port.")
        }, services: { _, _ in services })
}

@Suite(.serialized) struct ServiceRunTests {
    @Test func `help and version go to standard output with success`() async {
        let outcome = Outcome()
        #expect(await run(outcome.call(["--version"]), []) == 0)
        #expect(outcome.state.withLock { $0.output } == "tester 9\n")
        #expect(await run(outcome.call(["--help"]), []) == 0)
        #expect(outcome.state.withLock { $0.output.contains("--shutdown-limit") })
    }

    @Test func `wrong settings give one line and 64`() async {
        let outcome = Outcome()
        #expect(await run(outcome.call(["--port", "3"]), []) == 64)
        #expect(
            outcome.state.withLock { $0.error }
                == "tester: --port must be a whole number in 1…2, but it is '3'\n")
    }

    @Test func `failures of parts become exit codes`() async {
        let outcome = Outcome()
        #expect(await run(outcome.call(), [Waiting(), Failing(error: PortTaken())]) == 69)
        #expect(outcome.state.withLock { $0.error } == "tester: port 80 is in use\n")
        #expect(await run(outcome.call(), [Failing(error: CocoaLike.broken)]) == 70)
        #expect(outcome.state.withLock { $0.error }.hasSuffix("tester: broken\n"))
    }

    private enum CocoaLike: Error { case broken }

    @Test func `a failure while the parts are made is told as well`() async {
        let outcome = Outcome()
        let code = await runService(
            name: "tester", version: "9", call: outcome.call(),
            settings: { _ throws(SettingsError) in 0 },
            services: { _, _ in throw PortTaken() })
        #expect(code == 69)
    }

    @Test(arguments: [SIGTERM, SIGINT])
    func `a signal shuts down gracefully`(signal: Int32) async {
        let outcome = Outcome()
        let service = Waiting(started: { kill(getpid(), signal) })
        #expect(await run(outcome.call(), [service]) == 0)
        #expect(outcome.state.withLock { $0.exits }.isEmpty)
    }

    @Test func `a second signal ends the process at once`() async {
        let outcome = Outcome()
        let service = Waiting(
            started: { kill(getpid(), SIGTERM) },
            ending: {
                kill(getpid(), SIGINT)
                while outcome.state.withLock({ $0.exits.isEmpty }) {
                    try await Task.sleep(for: .milliseconds(1))
                }
            })
        #expect(await run(outcome.call(), [service]) == 0)
        #expect(outcome.state.withLock { $0.exits } == [130])
    }

    @Test func `work that does not end is cut off at the limit`() async {
        let outcome = Outcome()
        let service = Waiting(
            started: { kill(getpid(), SIGTERM) },
            ending: { try await Task.sleep(for: .seconds(60)) })
        let start = ProcessClock.now()
        #expect(await run(outcome.call(["--shutdown-limit", "50ms"]), [service]) == 0)
        #expect(ProcessClock.now() - start < .seconds(10))
    }

    @Test func `the loss of the parent process shuts down`() async {
        let outcome = Outcome()
        var call = outcome.call(["--exit-with-parent"])
        let count = Counter()
        call.parentProcess = { count.next() == 1 ? 42 : 1 }
        #expect(await run(call, [Waiting()]) == 0)
    }

    private final class Counter: Sendable {
        private let value = Mutex(0)
        func next() -> Int {
            value.withLock {
                $0 += 1; return $0
            }
        }
    }
}
