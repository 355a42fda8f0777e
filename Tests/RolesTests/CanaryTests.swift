import InferenceEngine
import Roles
import ServingTypes
import Testing

/// A health-agent's test of a worker's engine.
@Suite struct CanaryTests {
    private static let agent = LinkID(9)

    private func ask(_ bench: inout WorkerBench, _ number: UInt64 = 1) -> [WorkerAction] {
        bench.hear(.canary(Canary(number: number)), from: Self.agent)
    }

    private func answer(
        _ outcome: CanaryDone.Outcome, tokens: Int = 0, reason: String = "", number: UInt64 = 1
    ) -> WorkerAction {
        .send(
            .canaryDone(
                CanaryDone(number: number, outcome: outcome, tokens: tokens, reason: reason)),
            to: Self.agent)
    }

    private func sequence(_ actions: [WorkerAction]) throws -> UInt64 {
        let job = actions.compactMap { action in
            if case .run(let job) = action { job } else { nil }
        }.first
        return try #require(job).sequence.value
    }

    @Test(arguments: [ServingRole.prefill, .decode, .mixed, .spare])
    func `an idle worker of any role generates a few tokens`(role: ServingRole) throws {
        var bench = WorkerBench(role)
        let sequence = try sequence(ask(&bench))
        for token in 0..<3 { #expect(bench.sampled(sequence, TokenID(token)) == []) }
        #expect(bench.sampled(sequence, 3, finish: .length) == [answer(.generated, tokens: 4)])
        #expect(bench.machine.promisedKVTokens == 0, "its KV is free")
    }

    @Test func `a busy worker says so at once`() throws {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1)))
        #expect(ask(&bench) == [answer(.busy)])
    }

    @Test func `two at once are one too many`() throws {
        var bench = WorkerBench(.decode)
        _ = ask(&bench, 1)
        #expect(ask(&bench, 2) == [answer(.busy, number: 2)])
    }

    @Test func `work that comes in between goes first`() throws {
        var bench = WorkerBench(.prefill)
        let sequence = try sequence(ask(&bench))
        let actions = bench.offer(terms(attempt(1)))
        #expect(
            actions.prefix(2) == [.cancelSequence(SequenceID(sequence)), answer(.busy)])
        #expect(actions.contains { if case .run = $0 { true } else { false } })
        // What is still on its way of the canary concerns nobody.
        #expect(bench.sampled(sequence, 1) == [])
        #expect(bench.engineCancelled(sequence) == [])
    }

    @Test func `an engine that fails is told of`() throws {
        var bench = WorkerBench(.decode)
        let sequence = try sequence(ask(&bench))
        #expect(
            bench.engineFailed(sequence)
                == [answer(.failed, reason: "\(EngineError.computeFailed(code: -1))")])
        let next = try self.sequence(ask(&bench, 2))
        #expect(
            bench.engineFailed(next, .noRoom(neededTokens: 12, freeTokens: 0))
                == [answer(.busy, number: 2)])
    }

    @Test func `a worker that leaves takes none`() throws {
        var bench = WorkerBench(.decode)
        let sequence = try sequence(ask(&bench))
        let actions = bench.machine.drain()
        #expect(
            actions.prefix(2) == [.cancelSequence(SequenceID(sequence)), answer(.busy)])
        #expect(ask(&bench, 2) == [answer(.busy, number: 2)])
    }
}
