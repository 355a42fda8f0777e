import Roles
import ServingTypes
import Testing

/// 4 000 requests on 256 workers: an event may not look at all of them.
@Suite struct GatewayLoadTests {
    static let workers = (0..<256).map { number in
        number < 128
            ? worker(
                InstanceID("prefill-worker-number-\(number)"), .prefillWorker, context: 10_000,
                slots: 4)
            : worker(
                InstanceID("decode-worker-number-\(number)"), .decodeWorker, context: 10_000,
                sequences: 24, capacity: 100_000)
    }

    /// Mean time of one call in microseconds.
    func measure(_ count: Int, _ body: (Int) -> Void) -> Double {
        let clock = ContinuousClock()
        let time = clock.measure { for number in 0..<count { body(number) } }
        return Double(time.nanoseconds) / Double(count) / 1000
    }

    @Test func `with 4 000 requests and 256 workers events stay short`() {
        var bench = GatewayBench(Self.workers)
        let prompt = [TokenID](repeating: 5, count: 1000)
        var decodes: [InstanceID] = []
        var prefills: [InstanceID] = []
        let submit = measure(3000) { number in
            let actions = bench.submit(UInt64(number), prompt: prompt, maximumNewTokens: 500)
            decodes.append(actions.reservedAt.first ?? decode1)
        }
        let grant = measure(3000) { number in
            let actions = bench.grant(attempt(UInt64(number)), from: decodes[number])
            prefills.append(actions.offeredTo.first ?? prefill1)
        }
        #expect(prefills.filter { $0 != prefill1 }.count == 512, "each slot is offered once")
        for number in 0..<3000 where prefills[number] != prefill1 {
            _ = bench.accept(attempt(UInt64(number)), from: prefills[number])
        }
        // Everybody is full from here on: each slot is taken, the others wait.
        var waiting: [(AttemptID, InstanceID)] = []
        for number in UInt64(3000)..<4000 {
            waiting += bench.submit(number, prompt: prompt, maximumNewTokens: 500)
                .compactMap(\.reserves)
        }
        for (attempt, decode) in waiting { _ = bench.grant(attempt, from: decode) }
        let tokens = measure(2000) { number in
            _ = bench.tokens(
                attempt(UInt64(number % 500)), at: 1 + number / 500, 7, from: decodes[number % 500])
        }
        let slots = measure(256) { number in
            _ = bench.callSlots(1, from: Self.workers[number % 128].instance)
        }
        let quietTick = measure(100) { _ in _ = bench.tick(.milliseconds(1)) }
        let members = bench.view.members
        let view = measure(20) { _ in _ = bench.show(members) }
        let disconnect = measure(20) { number in
            _ = bench.disconnect(Self.workers[130 + number].instance)
        }
        print(
            """
            µs per event: submit \(submit), grant \(grant), tokens \(tokens), slot \(slots), \
            tick \(quietTick), view \(view), disconnect \(disconnect)
            """)
        // Debug builds are some twenty times slower; these bounds catch a scan of all requests.
        #expect(tokens < 400)
        #expect(submit < 8000)
        #expect(quietTick < 8000)
    }

    @Test func `with 10 000 workers an event looks at few of them`() {
        let workers = (0..<10_000).map { number in
            number < 5000
                ? worker(InstanceID("prefill-\(number)"), .prefillWorker, context: 10_000, slots: 4)
                : worker(
                    InstanceID("decode-\(number)"), .decodeWorker, context: 10_000,
                    sequences: 24, capacity: 100_000)
        }
        var limits = GatewayLimits()
        limits.maximumRequests = 100_000
        var bench = GatewayBench([], limits: limits)
        _ = bench.show(workers.map { serving($0) })
        let connect = measure(10_000) { number in _ = bench.connect(workers[number].instance) }
        let prompt = [TokenID](repeating: 5, count: 500)
        var decodes: [InstanceID] = []
        let submit = measure(2000) { number in
            let actions = bench.submit(UInt64(number), prompt: prompt, maximumNewTokens: 50)
            decodes.append(actions.reservedAt.first ?? decode1)
        }
        var offered = 0
        let grant = measure(2000) { number in
            offered += bench.grant(attempt(UInt64(number)), from: decodes[number]).offers.count
        }
        #expect(offered == 2000)
        var members = bench.view.members
        for index in members.indices { members[index].status.freeKVBytes = 999_000 }
        let view = measure(3) { _ in _ = bench.show(members) }
        let disconnect = measure(100) { number in
            _ = bench.disconnect(workers[4000 + number].instance)
        }
        print(
            """
            10 000 workers, µs per event: connect \(connect), submit \(submit), \
            grant \(grant), readings \(view), disconnect \(disconnect)
            """)
        #expect(connect < 1000)
        #expect(submit < 8000)
        #expect(grant < 8000)
    }
}
