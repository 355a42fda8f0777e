import ServingTypes
import Testing

@testable import WorkerService

extension WorkerServiceTests {
    /// Prompts that begin alike, whose place is found late, or that are computed where they decode.
    @Suite struct SharedWorkTests {
        private var options: Bench.Options {
            var options = Bench.Options()
            options.keptSequences = 4
            return options
        }

        /// Offers the prompt to the worker of this role.
        private func offer(
            _ bench: Bench, _ offer: PrefillOffer, _ request: BenchRequest, to role: Role,
            _ events: BenchGateway.Events
        ) async throws -> PrefillAccepted {
            bench.gateway.send(.prefillOffer(offer), request.prompt, to: role)
            // The decode-worker's words come on another connection, perhaps earlier.
            var early: [BenchGateway.Event] = []
            defer { events.putBack(early) }
            while true {
                switch try await events.next(within: .seconds(10)) {
                case .accepted(let accepted): return accepted
                case .tokens(let batch, from: let other) where other != role:
                    early.append(.tokens(batch, from: other))
                case let other: throw BenchFailure("an offer was answered by \(other)")
                }
            }
        }

        private func target(_ bench: Bench, _ granted: ReservationGranted) -> KVTarget {
            KVTarget(
                instance: bench.decode.instance, bulkAddress: bench.decode.bulkAddress,
                secret: granted.secret, heldTokens: granted.heldTokens)
        }

        @Test func `a prompt that begins like another is computed from there on`() async throws {
            try await Bench.run(options) { bench in
                let first = BenchRequest(promptTokens: 200)
                try await bench.expectRight(bench.answer(first), to: first)
                try await bench.settle()
                for (tail, cached) in [(0, 192), (50, 192), (3, 192)] {
                    var next = BenchRequest(promptTokens: tail)
                    next.prompt = first.prompt + next.prompt
                    let placed = try await bench.reserve(next)
                    let offer = PrefillOffer(
                        terms: next.terms, target: target(bench, placed.granted))
                    let rise = try await BenchMetrics.rise(of: "prefill_cached_tokens_total") {
                        let accepted = try await self.offer(
                            bench, offer, next, to: .prefillWorker, placed.events)
                        #expect(accepted.cachedTokens == cached)
                    }
                    #expect(rise == cached)
                    try await bench.expectRight(bench.outcome(of: placed), to: next)
                    try await bench.settle()
                }
            }
        }

        @Test func `all KV of a cached prompt reaches a decode-worker that holds none`()
            async throws
        {
            var options = Bench.Options()
            options.prefillKeptSequences = 3
            try await Bench.run(options) { bench in
                let first = BenchRequest(promptTokens: 150)
                try await bench.expectRight(bench.answer(first), to: first)
                var next = BenchRequest(promptTokens: 0)
                next.prompt = first.prompt + [50, 51, 52]
                let placed = try await bench.reserve(next)
                #expect(placed.granted.heldTokens == 0)
                let offer = PrefillOffer(terms: next.terms, target: target(bench, placed.granted))
                let accepted = try await self.offer(
                    bench, offer, next, to: .prefillWorker, placed.events)
                #expect(accepted.cachedTokens == 144)
                try await bench.expectRight(bench.outcome(of: placed), to: next)
                try await bench.settle()
            }
        }

        @Test func `a prompt is computed before its place is known`() async throws {
            try await Bench.run(options) { bench in
                for round in 0..<3 {
                    // The second has its prompt cached, the third its KV held, too.
                    var request = BenchRequest(promptTokens: 0)
                    request.prompt = (0..<170).map { TokenID(40 + $0 % 80) }
                    let events = bench.gateway.listen(to: request.attempt)
                    let accepted = try await offer(
                        bench, PrefillOffer(terms: request.terms, target: nil), request,
                        to: .prefillWorker, events)
                    #expect(accepted.cachedTokens == (round == 0 ? 0 : 160))
                    let first = try await events.next(within: .seconds(10))
                    guard case .tokens(let batch, from: .prefillWorker) = first else {
                        throw BenchFailure("the first token did not come")
                    }
                    #expect(batch.firstIndex == 0 && batch.tokens.count == 1)
                    #expect(bench.prefill.service.status.freePrefillSlots == 7)
                    let placed = try await bench.reserve(request)
                    #expect(placed.granted.heldTokens == (round == 0 ? 0 : 169))
                    let place = PlaceKV(
                        attempt: request.attempt, target: target(bench, placed.granted))
                    bench.gateway.send(.placeKV(place), to: .prefillWorker)
                    try await bench.expectRight(bench.outcome(of: placed), to: request)
                    try await bench.settle()
                }
            }
        }

        @Test func `a place for a prompt that is not there fails`() async throws {
            try await Bench.run(options) { bench in
                let request = BenchRequest()
                let placed = try await bench.reserve(request)
                let place = PlaceKV(
                    attempt: request.attempt, target: target(bench, placed.granted))
                bench.gateway.send(.placeKV(place), to: .prefillWorker)
                let answer = try await bench.outcome(of: placed)
                #expect(
                    answer.failure == Answer.Failure(role: .prefillWorker, code: .unknownRequest))
                try await bench.settle()
            }
        }

        @Test func `a prompt is computed where it is decoded`() async throws {
            try await Bench.run(options) { bench in
                let sent = try await BenchMetrics.rise(of: "prefill_kv_chunks_total") {
                    for round in 0..<2 {
                        var request = BenchRequest(promptTokens: 0)
                        request.prompt = (0..<200).map { TokenID(40 + $0 % 70) }
                        let placed = try await bench.reserve(request)
                        let offer = PrefillOffer(
                            terms: request.terms, target: target(bench, placed.granted))
                        let accepted = try await self.offer(
                            bench, offer, request, to: .decodeWorker, placed.events)
                        #expect(accepted.cachedTokens == (round == 0 ? 0 : 199))
                        try await bench.expectRight(bench.outcome(of: placed), to: request)
                        try await bench.settle()
                    }
                }
                #expect(sent == 0)
            }
        }

        @Test func `each kind of worker helps where no other is left`() async throws {
            try await Bench.run(options) { bench in
                // Everything the wrong way round.
                let request = BenchRequest(promptTokens: 120)
                let events = bench.gateway.listen(to: request.attempt)
                func reserve(isFallback: Bool) async throws -> BenchGateway.Event {
                    bench.gateway.send(
                        .reserveKV(ReserveKV(terms: request.terms, isFallback: isFallback)),
                        request.prompt, to: .prefillWorker)
                    return try await events.next(within: .seconds(10))
                }
                guard case .refused(let refused) = try await reserve(isFallback: false),
                    case .granted(let granted) = try await reserve(isFallback: true)
                else { throw BenchFailure("a prefill-worker does not help") }
                #expect(refused.code == .role)
                let target = KVTarget(
                    instance: bench.prefill.instance, bulkAddress: bench.prefill.bulkAddress,
                    secret: granted.secret)
                let offer = PrefillOffer(terms: request.terms, target: target, isFallback: true)
                _ = try await self.offer(bench, offer, request, to: .decodeWorker, events)
                let answer = try await events.answer(within: .seconds(30))
                try await bench.expectRight(answer, to: request)
                try await bench.settle()
            }
        }
    }
}
