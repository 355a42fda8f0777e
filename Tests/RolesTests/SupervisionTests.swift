import Roles
import ServingTypes
import Testing

/// Worker processes that end and are started again.
@Suite struct SupervisionTests {
    private struct Bench {
        var machine = SupervisionMachine(names: ["a", "b"])
        var now = MonotonicTime.start

        mutating func ends(_ index: Int, after life: Duration) -> [SupervisionAction] {
            now = now + life
            return machine.ended(index, reason: "signal 9", now: now)
        }

        /// The pause until it was started again; nil if it was not.
        mutating func restart(_ index: Int) -> Duration? {
            let begin = now
            while now - begin < .seconds(120) {
                now = now + .milliseconds(100)
                if machine.tick(now: now).contains(.start(index)) { return now - begin }
            }
            return nil
        }
    }

    @Test func `what ends is started again, later each time`() {
        var bench = Bench()
        #expect(bench.machine.begin(now: bench.now) == [.start(0), .start(1)])
        var pauses: [Duration] = []
        for _ in 0..<4 {
            guard case .ended(0, _, let pause) = bench.ends(0, after: .milliseconds(10)).first
            else {
                Issue.record("it has not ended")
                return
            }
            pauses.append(pause)
            let restart = bench.restart(0)
            #expect(restart.map { $0 >= pause && $0 <= pause + .milliseconds(100) } == true)
        }
        #expect(
            pauses == [.milliseconds(500), .seconds(1), .seconds(2), .seconds(4)])
        #expect(bench.machine.report.map(\.restarts) == [4, 0])
    }

    @Test func `a steady life makes the next pause short again`() {
        var bench = Bench()
        _ = bench.machine.begin(now: bench.now)
        for _ in 0..<20 {
            #expect(
                bench.ends(0, after: .seconds(61))
                    == [.ended(0, reason: "signal 9", restartIn: .milliseconds(500))])
            #expect(bench.restart(0) != nil)
        }
    }

    @Test func `a crash loop ends the trying, of this process alone`() {
        var bench = Bench()
        _ = bench.machine.begin(now: bench.now)
        for _ in 0..<4 {
            _ = bench.ends(0, after: .milliseconds(10))
            #expect(bench.restart(0) != nil)
        }
        guard case .gaveUp(0, let reason) = bench.ends(0, after: .milliseconds(10)).first else {
            Issue.record("it is tried again")
            return
        }
        #expect(reason.hasPrefix("it ended 5 times in 120 s, last: signal 9"))
        #expect(bench.restart(0) == nil)
        #expect(bench.machine.report.map(\.state) == [.givenUp, .running])
    }

    @Test func `a hung process is killed and started again, with the reason`() {
        var bench = Bench()
        _ = bench.machine.begin(now: bench.now)
        #expect(bench.machine.hung(1, reason: "it is silent") == [.kill(1, reason: "it is silent")])
        _ = bench.ends(1, after: .seconds(1))
        #expect(bench.machine.report[1].reason == "signal 9: it is silent")
        #expect(bench.machine.hung(1, reason: "again") == [], "it does not run")
        #expect(bench.restart(1) != nil)
    }

    @Test func `stopping asks first, kills late, and starts nothing any more`() {
        var bench = Bench()
        _ = bench.machine.begin(now: bench.now)
        _ = bench.ends(0, after: .seconds(1))
        #expect(bench.machine.stop(now: bench.now) == [.stop(1)])
        #expect(bench.machine.stop(now: bench.now) == [])
        #expect(bench.machine.tick(now: bench.now + .seconds(24)) == [])
        let late = bench.machine.tick(now: bench.now + .seconds(25))
        #expect(late == [.kill(1, reason: "it did not end in time after SIGTERM")])
        #expect(bench.ends(1, after: .seconds(26)) == [.done])
        #expect(bench.machine.report.map(\.state) == [.stopped, .stopped])
    }

    @Test func `stopping when nothing runs is done at once`() {
        var machine = SupervisionMachine(names: [])
        #expect(machine.begin(now: .start) == [])
        #expect(machine.stop(now: .start) == [.done])
    }
}
