import ClusterRules
import Scheduling
import ServingTypes
import Testing

@testable import Roles

/// Requests whose first token could not come in time.
@Suite struct GatewayLatenessTests {
    /// A worker that prefills so many tokens a second, and one that decodes.
    private func bench(tokensPerSecond: Double) -> GatewayBench {
        var bench = GatewayBench()
        var members = bench.view.members
        for index in members.indices {
            members[index].status.prefillTokensPerSecond = tokensPerSecond
        }
        _ = bench.show(members)
        return bench
    }

    private func submit(
        _ number: UInt64, within limit: Duration?, to bench: inout GatewayBench
    ) -> [GatewayAction] {
        // Each begins in its own way, so that no worker holds its KV.
        let prompt = [TokenID](repeating: TokenID(number), count: 50)
        return bench.submit(number, prompt: prompt) { $0.ttftLimit = limit }
    }

    private func isShed(_ actions: [GatewayAction]) -> Bool {
        actions.contains {
            if case .fail(_, .tooLate) = $0 { true } else { false }
        }
    }

    @Test func `an idle system tries what seems hopeless`() {
        var bench = bench(tokensPerSecond: 10)
        #expect(!isShed(submit(1, within: .seconds(1), to: &bench)))
        let offer = bench.grant(attempt(1))
        #expect(offer.contains { if case .send(.prefillOffer, _, _) = $0 { true } else { false } })
        #expect(bench.machine.counts.shed == 0)
    }

    @Test func `a busy system sheds what seems hopeless at once`() {
        var bench = bench(tokensPerSecond: 10)
        _ = submit(1, within: .seconds(60), to: &bench)
        _ = bench.grant(attempt(1))
        _ = bench.accept(attempt(1))
        #expect(isShed(submit(2, within: .seconds(1), to: &bench)))
        #expect(bench.machine.counts.shed == 1)
        #expect(bench.machine.requestCount == 1)
    }

    @Test func `a forecast begins with what the worker predicted`() {
        var workers = [worker(prefill1, .prefillWorker), worker(decode1, .decodeWorker)]
        for index in workers.indices {
            workers[index].predicted = PredictedRates(
                isMeasured: true, prefillTokensPerSecond: 10, stepMilliseconds: 20,
                stepMillisecondsPerSequence: 1, stepMillisecondsPerThousandTokens: 0,
                kvExportBytesPerSecond: 0, kvImportBytesPerSecond: 0)
        }
        var bench = GatewayBench(workers)
        var members = bench.view.members
        let standing = bench.machine.board[prefill1]?.standing
        #expect(standing?.prefillTokensPerSecond == 10)
        #expect(standing?.decodeStepMilliseconds == 21)
        _ = submit(1, within: .seconds(60), to: &bench)
        _ = bench.grant(attempt(1))
        _ = bench.accept(attempt(1))
        #expect(isShed(submit(2, within: .seconds(1), to: &bench)))
        // What is measured in service replaces it.
        for index in members.indices { members[index].status.prefillTokensPerSecond = 100_000 }
        _ = bench.show(members)
        #expect(bench.machine.board[prefill1]?.standing.prefillTokensPerSecond == 100_000)
    }

    @Test func `nothing is shed while a rate is unknown, or without a limit`() {
        var unknown = bench(tokensPerSecond: 0)
        var unlimited = bench(tokensPerSecond: 10)
        for number in 1...3 as ClosedRange<UInt64> {
            #expect(!isShed(submit(number, within: .seconds(1), to: &unknown)))
            #expect(!isShed(submit(number, within: nil, to: &unlimited)))
            for attempt in [attempt(number)] {
                _ = unknown.grant(attempt)
                _ = unknown.accept(attempt)
                _ = unlimited.grant(attempt)
                _ = unlimited.accept(attempt)
            }
        }
    }

    @Test func `who waits is shed when it becomes hopeless, not when its token is due`() {
        var bench = bench(tokensPerSecond: 50)
        _ = submit(1, within: .seconds(60), to: &bench)
        _ = bench.grant(attempt(1))
        _ = bench.accept(attempt(1))
        #expect(!isShed(submit(2, within: .seconds(3), to: &bench)))
        _ = bench.grant(attempt(2))
        _ = bench.reject(attempt(2))
        // Its prompt takes a second, and another one behind that of the first.
        #expect(!isShed(bench.tick(.milliseconds(1900))))
        #expect(isShed(bench.tick(.milliseconds(200))))
        #expect(bench.machine.requestCount == 1)
    }

    @Test func `the forecast is stretched until nine of ten keep it`() {
        var forecast = PrefillForecast()
        for index in 0..<2000 {
            forecast.learn(expected: 1, taken: index % 10 == 0 ? 3 : 2)
        }
        #expect((1.9...3).contains(forecast.stretch))
        for _ in 0..<2000 { forecast.learn(expected: 1, taken: 0.5) }
        #expect(forecast.stretch == 1)
    }
}
