import Roles
import ServingTypes
import Testing

/// A health-agent's machine with a clock.
struct HealthBench {
    var machine = HealthMachine(host: "host")
    var now = MonotonicTime.start
    var version: UInt64 = 0

    mutating func show(_ workers: [InstanceDescription]) -> [HealthAction] {
        version += 1
        let view = GroupView(epoch: 1, version: version, members: workers.map { serving($0) })
        return machine.viewChanged(view, now: now)
    }

    mutating func answer(_ instance: InstanceID, stepAge: UInt64? = 0) {
        var status = InstanceStatus()
        status.stepAgeMilliseconds = stepAge ?? 0
        machine.answered(
            instance, Pong(number: 1, status: stepAge == nil ? nil : status), now: now)
    }

    mutating func tick(_ duration: Duration) -> [HealthAction] {
        var actions: [HealthAction] = []
        let end = now + duration
        while now < end {
            now = min(end, now + .milliseconds(100))
            actions += machine.tick(now: now)
        }
        return actions
    }

    /// What the last of the reports says against this worker.
    mutating func complaint(_ instance: InstanceID, after duration: Duration) -> String? {
        let reports = tick(duration).compactMap { action -> [WorkerFinding]? in
            if case .report(let findings) = action { findings } else { nil }
        }
        let finding = reports.last?.first { $0.instance == instance }
        return finding.flatMap { $0.isResponding ? nil : $0.reason }
    }

    /// Answers each beat at once, with the status that `status` gives.
    mutating func live(
        _ instance: InstanceID, for duration: Duration, _ status: (Int) -> InstanceStatus
    ) -> [HealthAction] {
        var all: [HealthAction] = []
        let end = now + duration
        var beats = 0
        while now < end {
            let actions = tick(.milliseconds(100))
            for case .ping(instance, let ping) in actions {
                beats += 1
                machine.answered(
                    instance, Pong(number: ping.number, status: status(beats)), now: now)
            }
            all += actions
        }
        return all
    }
}

@Suite struct HealthTests {
    let decode = worker(decode1, .decodeWorker)

    @Test func `workers of its own host are watched`() {
        var bench = HealthBench()
        let elsewhere = worker(decode2, .decodeWorker, host: "elsewhere")
        #expect(
            bench.show([decode, elsewhere])
                == [.watch(decode1, decode.controlAddress, .decodeWorker)])
        #expect(bench.show([decode]) == [])
        #expect(bench.show([]) == [.forget(decode1)])
    }

    @Test func `a restarted worker is watched anew`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        let next = worker(decode1, .decodeWorker, incarnation: 2)
        #expect(
            bench.show([next])
                == [.forget(decode1), .watch(decode1, next.controlAddress, .decodeWorker)])
    }

    @Test func `an older view is ignored`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        let old = GroupView(epoch: 0, version: 99, members: [])
        #expect(bench.machine.viewChanged(old, now: .start) == [])
    }

    @Test func `the number of watched workers has a bound`() {
        var limits = HealthLimits()
        limits.maximumWorkers = 1
        var machine = HealthMachine(host: "host", limits: limits)
        let view = GroupView(
            epoch: 1, version: 1,
            members: [serving(decode), serving(worker(decode2, .decodeWorker))])
        #expect(machine.viewChanged(view, now: .start).count == 1)
    }

    @Test func `all are probed at intervals with a rising number, and reported`() {
        var bench = HealthBench()
        _ = bench.show([decode, worker(prefill1, .prefillWorker)])
        let first = bench.tick(.milliseconds(100))
        #expect(
            first.prefix(2) == [.ping(decode1, Ping(number: 1)), .ping(prefill1, Ping(number: 1))])
        guard case .report(let findings) = first.last else {
            Issue.record("\(first)")
            return
        }
        #expect(findings.map(\.instance) == [decode1, prefill1])
        #expect(findings.allSatisfy { $0.isResponding && $0.reason.isEmpty })
        #expect(bench.tick(.milliseconds(200)) == [])
        let second = bench.tick(.milliseconds(100))
        #expect(
            second == [.ping(decode1, Ping(number: 2)), .ping(prefill1, Ping(number: 2))],
            "reports are rarer than beats")
    }

    @Test func `a silent worker is complained of until it answers`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        bench.answer(decode1)
        #expect(bench.complaint(decode1, after: .milliseconds(1900)) == nil)
        let complaint = bench.complaint(decode1, after: .milliseconds(700))
        #expect(complaint?.hasPrefix("it has not answered for 2") == true)
        bench.answer(decode1)
        #expect(bench.complaint(decode1, after: .milliseconds(500)) == nil)
    }

    @Test func `a worker that never answered is complained of`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        #expect(bench.complaint(decode1, after: .seconds(3)) != nil)
    }

    @Test func `an engine in one iteration for long is complained of although it answers`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        bench.answer(decode1, stepAge: 119_999)
        #expect(bench.complaint(decode1, after: .milliseconds(600)) == nil)
        bench.answer(decode1, stepAge: 120_000)
        #expect(
            bench.complaint(decode1, after: .milliseconds(600))
                == "its engine has been in one iteration for 120000 ms")
        // An answer without a status says nothing about the engine.
        bench.answer(decode1, stepAge: nil)
        #expect(bench.complaint(decode1, after: .milliseconds(600)) != nil)
        bench.answer(decode1, stepAge: 5)
        #expect(bench.complaint(decode1, after: .milliseconds(600)) == nil)
    }

    @Test func `an agent that was away itself holds nobody's silence against him`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        bench.answer(decode1)
        _ = bench.tick(.seconds(1))
        bench.now = bench.now + .seconds(60)
        #expect(bench.complaint(decode1, after: .milliseconds(100)) == nil)
        #expect(bench.complaint(decode1, after: .seconds(2)) != nil)
    }

    @Test func `answers of strangers are ignored`() {
        var bench = HealthBench()
        bench.answer(decode1)
        #expect(bench.tick(.milliseconds(100)) == [.report([])])
    }
}
