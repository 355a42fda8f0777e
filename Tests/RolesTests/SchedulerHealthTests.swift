import Roles
import ServingTypes
import Testing

/// What a scheduler makes of health reports: devices, suspicion, and workers it can't hear.
@Suite struct SchedulerHealthTests {
    private let decode = worker(decode1, .decodeWorker)

    private func device(_ grade: DeviceGrade, id: String = "cpu") -> DeviceReading {
        var reading = DeviceReading(
            id: id, name: "x", kind: "GPU", totalMemoryBytes: 1, freeMemoryBytes: 1)
        reading.grade = grade
        reading.reason = grade == .ok ? "" : "it is hot"
        return reading
    }

    @Test(arguments: [DeviceGrade.failing, .lost])
    func `a device that is out takes its workers out, until it is well`(grade: DeviceGrade) {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        let down = bench.report([finding(decode1)], devices: [device(grade)])
        #expect(down.states == [.down])
        #expect(bench.shown(decode1)?.reason == "device cpu is \(grade.name): it is hot")
        #expect(bench.report([finding(decode1)], devices: [device(.ok)]).states == [.serving])
    }

    @Test func `a degraded device is shown and changes nothing`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        let actions = bench.report([finding(decode1)], devices: [device(.degraded)])
        #expect(actions.states == [])
        _ = bench.tick(.seconds(1))
        #expect(bench.shown(decode1)?.state == .serving)
        #expect(bench.shown(decode1)?.reason == "device cpu is degraded: it is hot")
    }

    @Test func `a worker suffers from its own devices alone`() {
        var bench = SchedulerBench()
        var gpu = decode
        gpu.devices = ["0000:c1:00.0"]
        _ = bench.register(gpu, on: 2)
        let others = [device(.lost), device(.failing, id: "0000:c2:00.0")]
        #expect(bench.report([finding(decode1)], devices: others).states == [])
        let own = others + [device(.lost, id: "0000:c1:00.0")]
        #expect(bench.report([finding(decode1)], devices: own).states == [.down])
    }

    @Test func `a suspect worker gets no new work, and is down only when it is said to be`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        #expect(bench.report([finding(decode1, suspicion: "late")]).states == [.suspect])
        #expect(bench.shown(decode1)?.reason == "late")
        #expect(bench.report([finding(decode1, complaint: "silent")]).states == [.down])
        #expect(bench.report([finding(decode1)]).states == [.serving])
    }

    @Test func `a suspicion that nobody repeats is forgotten`() {
        var bench = SchedulerBench()
        _ = bench.register(decode, on: 2)
        _ = bench.report([finding(decode1, suspicion: "late")])
        _ = bench.tick(.seconds(2))
        _ = bench.beat(decode1, on: 2)
        #expect(bench.tick(.seconds(1)).states == [.serving])
    }

    @Test func `a worker whose host is well stays suspect while it can't be heard here`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        _ = bench.report([finding(decode1)])
        #expect(bench.close(2).states == [.suspect])
        for _ in 0..<50 {
            _ = bench.tick(.seconds(1))
            _ = bench.report([finding(decode1)])
            #expect(bench.shown(decode1)?.state == .suspect)
        }
        #expect(bench.register(decode, on: 3).states == [.serving])
    }

    @Test func `a worker that can't be heard for long leaves, and at once if its host is silent`() {
        var bench = SchedulerBench()
        _ = bench.register(decode, on: 2)
        _ = bench.close(2)
        for _ in 0..<70 {
            _ = bench.tick(.seconds(1))
            _ = bench.report([finding(decode1)])
        }
        #expect(bench.machine.status.view.members.isEmpty)
        _ = bench.register(decode, on: 3)
        _ = bench.close(3)
        _ = bench.tick(.seconds(4))
        #expect(bench.machine.status.view.members.isEmpty)
    }
}
