import ServingTypes
import Synchronization
import Testing

@testable import WorkerService

extension WorkerServiceTests {
    /// Workers that change their roles while they serve.
    @Suite struct RoleChangeTests {
        private func run(
            _ options: Bench.Options = Bench.Options(),
            _ body: @escaping @Sendable (Bench, BenchScheduler) async throws -> Void
        ) async throws {
            let certificates = try BenchCertificates()
            let scheduler = try BenchScheduler(certificates)
            var options = options
            options.scheduler = try await scheduler.start()
            try await withThrowingTaskGroup(of: Void.self) { [options] group in
                group.addTask { try await scheduler.run() }
                defer { group.cancelAll() }
                try await Bench.run(options, certificates: certificates) { bench in
                    try await body(bench, scheduler)
                }
            }
        }

        @Test func `a worker says what it is and takes up what it is assigned`() async throws {
            var options = Bench.Options()
            options.prefill = ["--role", "spare", "--scenario", "chat"]
            try await run(options) { bench, scheduler in
                let spare = try await scheduler.wait(for: bench.prefill) { $0.role == .spare }
                #expect(spare.assignment == 0 && spare.freePrefillSlots == 0)
                let description = try #require(scheduler.description(of: bench.prefill))
                #expect(description.initialRole == .spare && description.scenario == "chat")
                #expect(description.prefillSlots == 8 && description.decodeSequences == 16)
                let duration = Assign(
                    number: 7, role: .mixed, group: GroupID("chat/1"),
                    stepLimit: .milliseconds(40))
                scheduler.assign(duration, to: bench.prefill)
                // At once, not with the next heartbeat but one.
                let mixed = try await scheduler.wait(for: bench.prefill, within: .seconds(3)) {
                    $0.assignment == 7
                }
                #expect(mixed.role == .mixed && mixed.freePrefillSlots == 8)
                #expect(BenchMetrics.count("prefill_role_change_seconds") >= 1)
                #expect(scheduler.strays == [])
                let request = BenchRequest()
                try await bench.expectRight(bench.answer(request), to: request)
                let rated = try await scheduler.wait(for: bench.decode) {
                    $0.decodeStepMilliseconds > 0
                }
                #expect(rated.prefillTokensPerSecond == 0, "it has computed no prompt")
                _ = try await scheduler.wait(for: bench.prefill) { $0.prefillTokensPerSecond > 0 }
            }
        }

        /// Which worker computes prompts now and which one decodes.
        private struct Route: Sendable {
            var prefill: BenchWorker
            var decode: BenchWorker
        }

        /// The answer, or nil if a worker does not do this work now.
        private func answer(
            _ request: BenchRequest, _ bench: Bench, _ route: Route
        ) async throws -> Answer? {
            let events = bench.gateway.listen(to: request.attempt)
            defer { bench.gateway.forget(request.attempt) }
            var reserved: ReservationGranted?
            while reserved == nil {
                bench.gateway.send(
                    .reserveKV(ReserveKV(terms: request.terms)), request.prompt,
                    to: route.decode.role)
                switch try await events.next(within: .seconds(20)) {
                case .granted(let granted): reserved = granted
                case .refused(let refused) where refused.code == .role: return nil
                case .refused: try await Task.sleep(for: .milliseconds(2))
                case let other: throw BenchFailure("a reservation was answered by \(other)")
                }
            }
            guard let reserved else { return nil }
            let target = KVTarget(
                instance: route.decode.instance, bulkAddress: route.decode.bulkAddress,
                secret: reserved.secret, heldTokens: reserved.heldTokens)
            var early: [BenchGateway.Event] = []
            offer: while true {
                bench.gateway.send(
                    .prefillOffer(PrefillOffer(terms: request.terms, target: target)),
                    request.prompt, to: route.prefill.role)
                answer: while true {
                    let event = try await events.next(within: .seconds(20))
                    switch event {
                    case .accepted: break offer
                    case .rejected(let rejected) where rejected.code == .role:
                        bench.cancel(request.attempt)
                        return nil
                    case .rejected: break answer
                    case .tokens: early.append(event)
                    default: throw BenchFailure("an offer was answered by \(event)")
                    }
                }
                try await Task.sleep(for: .milliseconds(2))
            }
            events.putBack(early)
            return try await events.answer(within: .seconds(30))
        }

        /// Where requests go now, and how many have their answer.
        private final class Course: Sendable {
            let route: Mutex<Route>
            let finished = Mutex(0)
            /// Refused because of a role.
            let refused = Mutex(0)
            let isOver = Mutex(false)

            init(_ route: Route) { self.route = Mutex(route) }

            /// Waits until so many have their answer, however slow the machine is.
            func untilFinished(_ count: Int) async throws {
                let end = ContinuousClock.now + .seconds(60)
                while finished.withLock({ $0 }) < count {
                    guard ContinuousClock.now < end else {
                        throw BenchFailure("\(count) requests have no answer after a minute")
                    }
                    try await Task.sleep(for: .milliseconds(10))
                }
            }
        }

        /// One client that asks until all is over; refused requests try the route that is then.
        private func ask(_ bench: Bench, _ course: Course) async throws {
            while !course.isOver.withLock({ $0 }) {
                var request = BenchRequest(promptTokens: 90, newTokens: 12)
                var answer: Answer?
                while answer == nil {
                    request = request.again
                    answer = try await self.answer(request, bench, course.route.withLock { $0 })
                    guard answer == nil else { continue }
                    course.refused.withLock { $0 += 1 }
                    try await Task.sleep(for: .milliseconds(5))
                }
                guard let answer else { continue }
                try await bench.expectRight(answer, to: request)
                course.finished.withLock { $0 += 1 }
            }
        }

        @Test func `roles change to and fro under load and no request is lost`() async throws {
            var options = Bench.Options()
            options.keptSequences = 3
            options.arguments[3] = "400"
            try await run(options) { bench, scheduler in
                let there = Route(prefill: bench.prefill, decode: bench.decode)
                let back = Route(prefill: bench.decode, decode: bench.prefill)
                let course = Course(there)
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<6 {
                        group.addTask { try await self.ask(bench, course) }
                    }
                    let flips: UInt64 = isLong ? 20 : 4
                    for flip in UInt64(1)...100
                    where flip <= flips || course.refused.withLock({ $0 }) == 0 {
                        try await course.untilFinished(Int(flip) * 10)
                        let route = flip % 2 == 1 ? back : there
                        scheduler.assign(
                            Assign(number: flip, role: .prefill, group: nil), to: route.prefill)
                        scheduler.assign(
                            Assign(number: flip, role: .decode, group: nil), to: route.decode)
                        for worker in [bench.prefill, bench.decode] {
                            _ = try await scheduler.wait(for: worker) { $0.assignment == flip }
                        }
                        course.route.withLock { $0 = route }
                    }
                    course.isOver.withLock { $0 = true }
                    try await group.waitForAll()
                }
                let (finished, refused) = (
                    course.finished.withLock { $0 }, course.refused.withLock { $0 }
                )
                print("\(finished) answers while roles changed, \(refused) asked elsewhere")
                #expect(finished >= 40 && refused > 0)
                try await bench.settle()
            }
        }

        @Test func `a scheduler that comes back may count from anew`() async throws {
            try await run { bench, scheduler in
                _ = try await scheduler.wait(for: bench.prefill) { _ in true }
                scheduler.assign(Assign(number: 9, role: .mixed, group: nil), to: bench.prefill)
                _ = try await scheduler.wait(for: bench.prefill) { $0.assignment == 9 }
                scheduler.assign(Assign(number: 2, role: .spare, group: nil), to: bench.prefill)
                scheduler.disconnect(bench.prefill)
                _ = try await scheduler.wait(for: bench.prefill) { $0.role == .mixed }
                scheduler.assign(Assign(number: 1, role: .decode, group: nil), to: bench.prefill)
                let status = try await scheduler.wait(for: bench.prefill) { $0.assignment == 1 }
                #expect(status.role == .decode)
            }
        }
    }
}
