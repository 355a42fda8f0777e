import KVHandOver
import ServingTypes
import Testing

@Suite struct KVSendTests {
    @Test func `a transfer is offered, granted, sent, ended and done`() throws {
        var bench = SendBench()
        #expect(bench.open() == [.connect(0)])
        #expect(bench.export(0) == [])
        #expect(bench.connected() == [offers()])
        #expect(bench.grant() == [sends(0)])
        #expect(bench.export(10) == [])
        #expect(bench.sent(0) == [sends(10)])
        #expect(bench.sent(10) == [])
        #expect(bench.export(20) == [sends(20)])
        #expect(bench.finish() == [])
        let (end, connection) = try #require(bench.sent(20).end)
        #expect(connection == 0 && end.tokens == 30)
        #expect(
            end.digest == PayloadDigest([chunk(0, 10), chunk(10, 10), chunk(20, 10)]).value)
        #expect(bench.machine.heldBytes == 300)
        bench.now = seconds(3)
        let actions = bench.done()
        #expect(actions.count == 1 && actions.ended == [1: nil])
        let summary = try #require(actions.summary)
        #expect(summary.chunks == 3 && summary.bytes == 300)
        #expect(summary.resends == 0 && summary.reconnects == 0)
        #expect(summary.exposed == .seconds(3))
        #expect(bench.machine.isEmpty && bench.machine.heldBytes == 0)
    }

    @Test func `nothing is sent before the grant, and no more than the credit`() {
        var bench = SendBench()
        _ = bench.open()
        _ = bench.export(0)
        _ = bench.export(10)
        #expect(bench.connected() == [offers()])
        #expect(bench.grant(credit: 150) == [sends(0)])
        #expect(bench.sent(0) == [], "50 bytes are no chunk")
        #expect(bench.credit(49) == [])
        #expect(bench.credit(1) == [sends(10)])
    }

    @Test func `a transfer of which the receiver holds everything sends its end alone`() {
        var bench = SendBench()
        _ = bench.open(from: 30)
        #expect(bench.connected() == [offers(from: 30)])
        #expect(bench.grant(held: 30, credit: 0) == [])
        let end = bench.finish().end
        #expect(end?.0.digest == PayloadDigest().value)
        #expect(bench.done().ended == [1: nil])
    }

    @Test func `a second transfer uses the connection that is there`() {
        var bench = SendBench.sending(0)
        #expect(bench.open(2) == [offers(2)])
        #expect(bench.open(2) == [], "it is open")
        #expect(bench.machine.isOpen(attempt(2)) && !bench.machine.isOpen(attempt(3)))
    }

    @Test func `transfers take turns, chunk by chunk`() {
        var bench = SendBench.sending(0, 10, 20)
        for number in UInt64(2)...3 {
            _ = bench.open(number)
            for start in [0, 10, 20] { _ = bench.export(start, of: number) }
            _ = bench.grant(number)
        }
        var order: [UInt64] = [1]
        var starts: [UInt64: Int] = [1: 0, 2: -10, 3: -10]
        for _ in 0..<8 {
            let last = order[order.count - 1]
            let next = bench.sent(starts[last] ?? 0, of: last).senders
            #expect(next.count == 1)
            order += next
            for sender in next { starts[sender, default: 0] += 10 }
        }
        #expect(order == [1, 2, 3, 1, 2, 3, 1, 2, 3])
    }

    @Test func `a transfer without credit does not hold up the others`() {
        var bench = SendBench.sending(0, 10, credit: 100)
        _ = bench.open(2)
        _ = bench.export(0, of: 2)
        _ = bench.grant(2)
        #expect(bench.sent(0).senders == [2])
        #expect(bench.sent(0, of: 2) == [])
        #expect(bench.credit(100) == [sends(10)])
    }

    @Test func `a second connection is made when chunks wait, and both are used`() {
        var bench = SendBench.sending(0, connections: 2)
        #expect(bench.export(10).connects == [1])
        #expect(bench.export(20) == [], "one at a time")
        #expect(bench.connected(1) == [sends(10, on: 1)])
        #expect(bench.sent(0) == [sends(20)])
        _ = bench.finish()
        #expect(bench.sent(20).end == nil, "a chunk is still on its way")
        #expect(bench.sent(10, connection: 1).end?.connection == 0)
    }

    @Test func `new transfers go to the connection with the fewest`() {
        var bench = SendBench.sending(0, 10, connections: 2)
        _ = bench.connected(1)
        #expect(bench.open(2).offered == [2: 1])
        #expect(bench.open(3).offered == [3: 0])
        #expect(bench.open(4).offered == [4: 1])
    }

    @Test func `a transfer given up ends at once, and the receiver hears of it`() {
        var waiting = SendBench()
        _ = waiting.open()
        #expect(waiting.abort().ended == [1: nil])
        #expect(waiting.abort() == [])
        #expect(waiting.connected() == [], "nobody needs it any more")

        var offered = SendBench()
        _ = offered.open()
        _ = offered.connected()
        let actions = offered.abort()
        #expect(actions.aborts == [1] && actions.ended == [1: nil])
        #expect(offered.grant() == [], "it comes too late")

        var sending = SendBench.sending(0, 10)
        let broken = sending.abort()
        #expect(broken.first == .breakOff(attempt(1)))
        #expect(broken.aborts == [1] && broken.ended == [1: nil])
        #expect(sending.sent(0, isWhole: false) == [])
        #expect(sending.machine.isEmpty)

        var ended = SendBench.sending(0)
        _ = ended.sent(0)
        _ = ended.finish()
        let last = ended.abort()
        #expect(last.breaksOff == [] && last.aborts == [1] && last.ended == [1: nil])
        #expect(ended.done() == [])
    }

    @Test func `a chunk that was broken off frees its connection for others`() {
        var bench = SendBench.sending(0)
        _ = bench.open(2)
        _ = bench.export(0, of: 2)
        _ = bench.grant(2)
        #expect(bench.abort().senders == [], "the connection is inside a chunk")
        #expect(bench.sent(0, isWhole: false) == [sends(0, of: 2)])
    }

    @Test func `the receiver's refusal ends a transfer at any time`() {
        for stage in 0..<3 {
            var bench = SendBench()
            _ = bench.open()
            _ = bench.connected()
            if stage > 0 { _ = bench.grant() }
            if stage > 1 { _ = bench.export(0) }
            let actions = bench.done(1, .unknownRequest)
            #expect(actions.ended == [1: .unknownRequest])
            #expect(actions.aborts == [], "the receiver knows")
            #expect(actions.breaksOff == (stage > 1 ? [1] : []))
            #expect(bench.done(1, .unknownRequest) == [])
        }
    }

    @Test func `damaged KV is sent again from there, once`() throws {
        var bench = SendBench.sending(0, 10)
        _ = bench.sent(0)
        _ = bench.sent(10)
        _ = bench.export(20)
        _ = bench.finish()
        _ = bench.sent(20)
        #expect(bench.resend(from: 10, credit: 100) == [sends(10, round: 2)])
        #expect(bench.sent(10, round: 2) == [], "the old credit is void")
        #expect(bench.credit(100) == [sends(20, round: 2)])
        #expect(bench.sent(20, round: 2).end != nil)
        let again = bench.resend(from: 20, round: 3)
        #expect(again.ended == [1: .transfer] && again.aborts == [1])
        #expect(try #require(again.summary).resends == 1)
    }

    @Test func `a chunk that is on its way when it is asked for again is sent again after that`() {
        var bench = SendBench.sending(0, 10)
        _ = bench.sent(0)
        #expect(bench.resend(from: 0) == [], "the connection is inside a chunk")
        #expect(bench.sent(10) == [sends(0, round: 2)])
        #expect(bench.sent(0, round: 2) == [sends(10, round: 2)])
        #expect(bench.sent(10, round: 2) == [])
        #expect(bench.export(20) == [sends(20, round: 2)])
        _ = bench.finish()
        #expect(bench.sent(20, round: 2).end != nil)
    }

    @Test func `a chunk that is late on another connection holds back those behind it`() {
        var bench = SendBench.sending(0, 10, 20, connections: 2)
        _ = bench.connected(1)
        _ = bench.sent(0)
        #expect(bench.resend(from: 10) == [], "10 and 20 are on their way")
        #expect(bench.sent(20) == [], "10 comes first")
        #expect(
            bench.sent(10, connection: 1) == [sends(10, round: 2), sends(20, round: 2, on: 1)])
    }

    @Test func `a resend or grant that does not fit what is here fails the transfer`() {
        for token in [-10, 5, 40] {
            var bench = SendBench.sending(0, 10, 20)
            let actions = bench.resend(from: token)
            #expect(actions.ended == [1: .transfer] && actions.aborts == [1])
            var offered = SendBench()
            _ = offered.open()
            _ = offered.connected()
            _ = offered.export(0)
            #expect(offered.grant(held: token).ended == [1: .transfer])
        }
        var held = SendBench()
        _ = held.open(from: 20)
        _ = held.connected()
        #expect(held.grant(held: 10).ended == [1: .transfer])
    }

    @Test func `frames about transfers that are unknown, or not that far, change nothing`() {
        var bench = SendBench()
        let ignored = [
            bench.grant(), bench.credit(5), bench.resend(from: 0), bench.done(),
            bench.finish(), bench.export(0), bench.sent(0), bench.connected(), bench.lost(),
        ]
        #expect(ignored.flatMap { $0 } == [])
        _ = bench.open()
        _ = bench.connected()
        #expect(bench.credit(500) == [])
        #expect(bench.resend(from: 0) == [])
        #expect(bench.export(0) == [])
        #expect(bench.grant(credit: 100) == [sends(0)])
        #expect(bench.grant(credit: 900) == [], "it has been granted")
        _ = bench.export(10)
        #expect(bench.sent(0) == [], "neither counted as credit")
        let abort = ControlMessage.kvAbort(KVAbort(attempt: attempt(1), reason: ""))
        #expect(bench.machine.received(abort, now: bench.now) == [], "the wrong way round")
    }
}
