import KVHandOver
import ServingTypes
import Testing

@Suite struct KVSendLossTests {
    @Test func `a lost connection is made again after a pause, and the transfer goes on`() {
        var bench = SendBench.sending(0, 10, 20)
        _ = bench.sent(0)
        #expect(bench.lost() == [], "pause")
        #expect(bench.lost() == [])
        #expect(bench.tick(.milliseconds(99)) == [])
        #expect(bench.tick(.milliseconds(1)) == [.connect(0)])
        #expect(bench.tick(.milliseconds(1)) == [])
        #expect(bench.connected() == [offers()])
        // The receiver has the first chunk; the second was lost on the way.
        #expect(bench.grant(held: 10, credit: 100, round: 2) == [sends(10, round: 2)])
        #expect(bench.sent(10, round: 2) == [])
        #expect(bench.credit(100) == [sends(20, round: 2)])
        _ = bench.finish()
        #expect(bench.sent(20, round: 2).end != nil)
        let actions = bench.done()
        #expect(actions.ended == [1: nil])
        #expect(actions.summary?.reconnects == 1)
    }

    @Test func `a transfer outlives one loss at any stage, not a second one`() {
        for stage in 0..<5 {
            var bench = SendBench()
            _ = bench.open()
            if stage > 0 { _ = bench.connected() }
            if stage > 1 { _ = bench.grant() }
            if stage > 2 { _ = bench.export(0) }
            if stage > 3 {
                _ = bench.sent(0)
                _ = bench.finish()
            }
            #expect(bench.lost().ended == [:], "stage \(stage)")
            #expect(bench.tick(.milliseconds(100)) == [.connect(0)])
            if stage % 2 == 0 { #expect(bench.connected().offered == [1: 0]) }
            let actions = bench.lost()
            #expect(actions.ended == [1: .transfer], "stage \(stage)")
            #expect(actions.aborts == [], "there is no connection to say it on")
            #expect(bench.machine.isEmpty)
        }
    }

    @Test func `an end that was lost is sent again`() {
        var bench = SendBench.sending(0)
        _ = bench.sent(0)
        #expect(bench.finish().end != nil)
        _ = bench.lost()
        _ = bench.tick(.milliseconds(100))
        _ = bench.connected()
        #expect(bench.grant(held: 10, credit: 0, round: 2).end != nil)
        #expect(bench.done().ended == [1: nil])
    }

    @Test func `a done that was lost is the answer to the next offer`() {
        var bench = SendBench.sending(0)
        _ = bench.sent(0)
        _ = bench.finish()
        _ = bench.lost()
        _ = bench.tick(.milliseconds(100))
        #expect(bench.connected() == [offers()])
        #expect(bench.done().ended == [1: nil])
    }

    @Test func `when one of two connections is lost, the other takes over at once`() {
        var bench = SendBench.sending(0, 10, 20, connections: 2)
        _ = bench.connected(1)
        #expect(bench.lost(0) == [offers(on: 1)])
        // What the other connection was sending is late now, and comes again.
        #expect(bench.grant(held: 0, round: 2) == [])
        #expect(bench.sent(10, connection: 1).starts == [0])
    }

    @Test func `a connection lost while its late chunk was of no more use concerns nobody`() {
        var bench = SendBench.sending(0, 10, connections: 2)
        _ = bench.connected(1)
        #expect(bench.lost(1).offered == [1: 0], "it carried a chunk")
        // The chunk on the first connection is late; that one is lost before the grant.
        let actions = bench.lost(0)
        #expect(actions.ended == [:])
        _ = bench.tick(.milliseconds(100))
        #expect(bench.connected(0).offered == [1: 0])
        #expect(bench.grant(round: 3).starts == [0], "nothing counts as being sent")
    }

    @Test func `a late chunk lost with its connection is sent again without another offer`() {
        var bench = SendBench.sending(0, 10, connections: 2)
        _ = bench.connected(1)
        #expect(bench.resend(from: 0) == [])
        #expect(bench.sent(0) == [sends(0, round: 2)])
        let actions = bench.lost(1)
        #expect(actions.offered == [:], "what it carried is void")
        #expect(bench.sent(0, round: 2).starts == [10])
    }

    @Test func `a cut that takes both connections is outlived`() {
        var bench = SendBench.sending(0, 10, connections: 2)
        _ = bench.connected(1)
        #expect(bench.lost(0).ended == [:])
        #expect(bench.lost(1).ended == [:])
        let connects = bench.tick(.milliseconds(100)).connects
        #expect(connects.count == 1)
        #expect(bench.connected(connects.first ?? 0).offered.count == 1)
        #expect(bench.lost(connects.first ?? 0).ended == [1: .transfer], "the third is too many")
    }

    @Test func `a connection that can't be made fails all that wait for it, in the end`() {
        var bench = SendBench()
        for number in UInt64(1)...3 { _ = bench.open(number) }
        #expect(bench.lost().ended == [:])
        #expect(bench.tick(.milliseconds(100)) == [.connect(0)])
        #expect(bench.lost().ended == [1: .transfer, 2: .transfer, 3: .transfer])
        #expect(bench.machine.isEmpty)
        #expect(bench.tick(.seconds(1)) == [], "nobody needs it")
        #expect(bench.open(4) == [.connect(0)])
    }

    @Test func `a receiver that owes an answer, room or a word is given up`() {
        var stages: [SendBench] = [SendBench()]
        _ = stages[0].open()
        stages.append(stages[0])
        _ = stages[1].connected()
        stages.append(stages[1])
        _ = stages[2].grant(credit: 50)
        _ = stages[2].export(0)
        stages.append(.sending(0))
        _ = stages[3].sent(0)
        _ = stages[3].finish()
        for var bench in stages {
            #expect(bench.tick(.milliseconds(9999)) == [])
            #expect(bench.machine.stranded(now: bench.now).transfers == 1)
            let actions = bench.tick(.milliseconds(1))
            #expect(actions.ended == [1: .deadline])
            #expect(actions.disconnects == [], "others may use it")
        }
    }

    @Test func `while the prompt is computed nobody owes anything`() {
        var bench = SendBench.sending(0)
        _ = bench.sent(0)
        #expect(bench.tick(.seconds(50)) == [])
        #expect(bench.machine.stranded(now: bench.now).transfers == 0)
        // The receiver's time begins with the next chunk.
        #expect(bench.export(10).starts == [10])
        #expect(bench.tick(.seconds(9)) == [])
    }

    @Test func `a transfer that waits for its turn does not stand still`() {
        var bench = SendBench.sending(0)
        _ = bench.open(2)
        _ = bench.grant(2)
        _ = bench.export(0, of: 2)
        for _ in 0..<5 {
            #expect(bench.tick(.seconds(4)) == [])
            bench.machine.progressed(0, now: bench.now)
        }
        #expect(bench.sent(0).senders == [2])
    }

    @Test func `a connection that stands inside a chunk is cut, and others go on elsewhere`() {
        var bench = SendBench.sending(0, 10)
        _ = bench.tick(.seconds(5))
        bench.machine.progressed(0, now: bench.now)
        _ = bench.tick(.seconds(5))
        _ = bench.open(2)
        _ = bench.grant(2)
        let actions = bench.tick(.seconds(5))
        #expect(actions.ended == [1: .deadline])
        #expect(actions.disconnects == [0])
        #expect(bench.machine.isOpen(attempt(2)))
        #expect(bench.tick(.milliseconds(100)) == [.connect(0)])
        #expect(bench.connected().offered == [2: 0])
    }

    @Test func `a transfer ends with its request`() {
        var bench = SendBench()
        _ = bench.open(expires: seconds(5))
        _ = bench.connected()
        _ = bench.grant()
        #expect(bench.tick(.milliseconds(4999)) == [])
        let actions = bench.tick(.milliseconds(1))
        #expect(actions.ended == [1: .deadline] && actions.aborts == [1])
    }

    @Test func `an unused connection is closed, and made again when it is needed`() {
        var bench = SendBench { $0.idleDeadline = .seconds(20) }
        _ = bench.open()
        _ = bench.connected()
        _ = bench.grant()
        _ = bench.export(0)
        _ = bench.sent(0)
        _ = bench.finish()
        _ = bench.done()
        #expect(bench.tick(.milliseconds(19_999)) == [])
        #expect(bench.tick(.milliseconds(1)).disconnects == [0])
        #expect(bench.open(2) == [.connect(0)])
    }

    @Test func `a stopping worker ends everything and says so`() {
        var bench = SendBench.sending(0)
        _ = bench.open(2)
        let actions = bench.machine.shutDown(reason: "stop", now: bench.now)
        #expect(actions.ended == [1: .transfer, 2: .transfer])
        #expect(actions.aborts == [1, 2])
        #expect(actions.last == .disconnect(0, reason: "stop"))
        #expect(bench.machine.isEmpty)
    }

    @Test func `what stands still is told with its bytes and age`() {
        var bench = SendBench.sending(0, 10, credit: 100)
        _ = bench.sent(0)
        bench.now = bench.now + .milliseconds(999)
        #expect(bench.machine.stranded(now: bench.now) == StrandedKV([]))
        bench.now = bench.now + .milliseconds(1)
        #expect(
            bench.machine.stranded(now: bench.now)
                == StrandedKV([(bytes: 200, age: .seconds(1))]))
        _ = bench.credit(100)
        #expect(bench.machine.stranded(now: bench.now) == StrandedKV([]))
    }
}
