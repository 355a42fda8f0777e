import ClusterRules
import Roles
import ServingTypes
import Testing

/// Requests go where the beginning of their prompt is held.
@Suite struct GatewayAffinityTests {
    let prompt = (1...200).map { TokenID($0) }

    func bench() -> GatewayBench {
        GatewayBench(
            [
                worker(prefill1, .prefillWorker, context: 2000, slots: 9),
                worker(prefill2, .prefillWorker, context: 2000, slots: 9),
                worker(decode1, .decodeWorker, context: 2000, sequences: 9, capacity: 9000),
                worker(decode2, .decodeWorker, context: 2000, sequences: 9, capacity: 9000),
            ], seed: 3)
    }

    /// Serves a request to its end; gives its workers.
    func serve(
        _ number: UInt64, _ prompt: [TokenID], _ bench: inout GatewayBench, held: Int = 0,
        cached: Int = 0
    ) throws -> (prefill: InstanceID, decode: InstanceID) {
        let decode = try #require(bench.submit(number, prompt: prompt).reservedAt.only)
        let prefill = try #require(
            bench.grant(attempt(number), from: decode, held: held).offeredTo.only)
        _ = bench.accept(attempt(number), from: prefill, cached: cached)
        _ = bench.tokens(attempt(number), at: 0, 7, from: prefill)
        _ = bench.tokens(attempt(number), at: 1, 8, finish: .stop, from: decode)
        return (prefill, decode)
    }

    @Test func `a conversation goes on where it was, with both workers`() throws {
        var bench = bench()
        var text = prompt
        let first = try serve(1, text, &bench)
        for turn in UInt64(2)...8 {
            text += [7, 8] + (0..<40).map { TokenID(1000 * Int32(turn) + $0) }
            let again = try serve(turn, text, &bench, held: 160, cached: 160)
            #expect(again == first)
        }
    }

    @Test func `what a worker turned out not to hold attracts nobody`() throws {
        var drawn: Set<InstanceID> = []
        var filled: Set<InstanceID> = []
        for seed in UInt64(1)...20 {
            var bench = bench()
            bench.machine = GatewayMachine(seed: seed)
            _ = bench.show(bench.view.members)
            for member in bench.view.members { _ = bench.connect(member.description.instance) }
            let first = try serve(1, prompt, &bench)
            // Nothing is held: the index forgets it.
            _ = bench.submit(2, prompt: prompt)
            _ = bench.grant(attempt(2), from: first.decode, held: 0)
            _ = bench.machine.cancel(request(2))
            let again = bench.submit(3, prompt: prompt).reservedAt[0]
            if again != first.decode { drawn.insert(again) } else { filled.insert(again) }
        }
        #expect(!drawn.isEmpty && !filled.isEmpty)
    }

    @Test func `a worker that restarted holds nothing`() throws {
        var elsewhere = 0
        for seed in UInt64(1)...20 {
            var bench = bench()
            bench.machine = GatewayMachine(seed: seed)
            _ = bench.show(bench.view.members)
            for member in bench.view.members { _ = bench.connect(member.description.instance) }
            let first = try serve(1, prompt, &bench)
            var members = bench.view.members
            for index in members.indices { members[index].description.incarnation = 2 }
            _ = bench.show(members)
            if bench.submit(2, prompt: prompt).reservedAt != [first.decode] { elsewhere += 1 }
        }
        #expect(elsewhere > 0)
    }

    @Test func `policies are those of the scenario`() throws {
        var bench = bench()
        _ = bench.rule(["turns", "default"]) { spec in
            spec.placement = spec.name == "turns" ? .roundRobin : .onDemand
        }
        var turns: [InstanceID] = []
        for number in UInt64(1)...6 {
            let asked = bench.submit(number) { $0.scenario = "turns" }.reservedAt[0]
            turns.append(asked)
            _ = bench.grant(attempt(number), from: asked)
        }
        #expect(turns == [decode1, decode2, decode1, decode2, decode1, decode2])
    }
}
