import ServingTypes
import Testing

@testable import Roles

/// Changes of a view that hold nothing but readings.
@Suite struct ReadingsTests {
    private static let names = (10..<40).map { InstanceID("worker-\($0)") }

    private var view: GroupView {
        GroupView(
            epoch: 1, version: 1,
            members: Self.names.map { serving(worker($0, .prefillWorker)) })
    }

    private func reading(_ instance: InstanceID, freeSlots: Int) -> MemberReading {
        var status = InstanceStatus()
        status.freePrefillSlots = freeSlots
        return MemberReading(instance: instance, status: status)
    }

    @Test(arguments: 1..<30) func `are read in place, whichever they are`(_ stride: Int) {
        var reader = ViewReader(tellsReadings: true)
        #expect(reader.received(view) == view)
        let readings = Swift.stride(from: stride - 1, to: Self.names.count, by: stride).map {
            reading(Self.names[$0], freeSlots: 100 + $0)
        }
        let change = GroupViewChange(epoch: 1, since: 1, version: 2, readings: readings)
        #expect(reader.received(change) == .readings(readings, version: 2))
        #expect(reader.view == view.applying(change))
    }

    @Test func `of a member that is not there ask for the whole view`() {
        var reader = ViewReader(tellsReadings: true)
        _ = reader.received(view)
        let change = GroupViewChange(
            epoch: 1, since: 1, version: 2,
            readings: [reading(InstanceID("worker-15b"), freeSlots: 1)])
        #expect(reader.received(change) == .outOfStep)
    }

    @Test func `reach the gateway's candidates`() {
        var bench = GatewayBench([
            worker(decode1, .decodeWorker), worker(prefill1, .prefillWorker),
        ])
        var status = InstanceStatus()
        status.prefillTokensPerSecond = 77
        bench.machine.readingsChanged(
            [MemberReading(instance: prefill1, status: status)],
            version: bench.machine.view.version + 1)
        #expect(bench.machine.board[prefill1]?.standing.prefillTokensPerSecond == 77)
        #expect(bench.machine.view[prefill1]?.status == status)
    }
}
