import KVHandOver
import ServingTypes
import Testing

extension WorkerServiceTests {
    /// What a network between two workers can do to a transfer.
    @Suite struct LinkFaultTests {
        /// Bytes of each direction that one transfer takes on a fresh connection.
        private func carriedByOneTransfer(_ bench: Bench) async throws -> Forwarder.Carried {
            let forwarder = try Forwarder(to: bench.decode.bulkAddress)
            defer { forwarder.stop() }
            let request = BenchRequest()
            try await bench.expectRight(
                bench.answer(request, through: forwarder.address), to: request)
            try await bench.settle()
            let carried = try #require(forwarder.carried.first)
            #expect(carried.up > 10_000 && carried.down > 1000)
            return carried
        }

        /// Places of both directions over all stages: handshake, greeting, offer, grant, chunks
        /// and the last words.
        private func places(
            _ carried: Forwarder.Carried, atEnds: Int, between: Int
        ) -> [(Forwarder.Direction, Int)] {
            Forwarder.Direction.allCases.flatMap { direction in
                let total = direction == .up ? carried.up : carried.down
                let ends = min(4000, total / 2)
                let steps =
                    stride(from: 0, to: ends, by: max(1, ends / atEnds)).map { $0 }
                    + stride(from: ends, to: total, by: max(1, (total - ends) / between)).map { $0 }
                    + stride(from: 1, to: 400, by: max(1, 1200 / atEnds)).map { total - $0 }
                return steps.map { (direction, $0) }
            }
        }

        /// The places, with each kind of damage in turn, or with every kind.
        private func faults(
            _ places: [(Forwarder.Direction, Int)], _ damages: [Forwarder.Damage],
            connections: Int = 1
        ) -> [Forwarder.Fault] {
            places.enumerated().flatMap { index, place in
                (isLong ? damages : [damages[index % damages.count]]).map { damage in
                    Forwarder.Fault(
                        damage: damage, direction: place.0, position: place.1,
                        connections: connections)
                }
            }
        }

        private func answer(
            _ bench: Bench, _ faults: [Forwarder.Fault],
            _ check: (BenchRequest, Answer, Forwarder) async throws -> Void
        ) async throws {
            let forwarder = try Forwarder(to: bench.decode.bulkAddress, faults: faults)
            defer { forwarder.stop() }
            let request = BenchRequest()
            let answer = try await bench.answer(request, through: forwarder.address)
            try await check(request, answer, forwarder)
        }

        @Test(arguments: [("sealed", 1), ("tls", 1), ("sealed", 3)])
        func `a connection that is cut anywhere is made again, and no token is lost`(
            records: String, connections: Int
        ) async throws {
            var options = Bench.Options()
            options.arguments += ["--kv-records", records, "--kv-connections", "\(connections)"]
            if connections > 1 { options.compression = "on" }
            try await Bench.run(options) { bench in
                let carried = try await carriedByOneTransfer(bench)
                let faults = faults(
                    isLong
                        ? places(carried, atEnds: 400, between: 200)
                        : places(carried, atEnds: 12, between: 10), [.reset, .close])
                let reconnects = try await BenchMetrics.rise(of: "prefill_kv_reconnects_total") {
                    try await forEach(faults) { fault in
                        try await answer(bench, [fault]) { request, answer, forwarder in
                            try await bench.expectRight(answer, to: request, "\(fault)")
                            #expect(forwarder.carried.count <= connections + 1, "\(fault)")
                        }
                    }
                    try await bench.settle()
                }
                #expect(reconnects <= faults.count)
                // Only a cut behind the last word does not matter; and with several connections
                // nobody knows how much each of them carries.
                #expect(connections > 1 || reconnects > faults.count * 3 / 4)
            }
        }

        @Test func `a connection that is cut twice fails the request and frees both sides`()
            async throws
        {
            var options = Bench.Options()
            options.handOver.resumeDeadline = .milliseconds(600)
            try await Bench.run(options) { bench in
                let carried = try await carriedByOneTransfer(bench)
                let faults = faults(
                    places(carried, atEnds: isLong ? 100 : 5, between: isLong ? 100 : 5),
                    [.reset, .close], connections: 2)
                try await forEach(faults) { fault in
                    try await answer(bench, [fault]) { request, answer, _ in
                        guard answer.failure != nil else {
                            return try await bench.expectRight(answer, to: request, "\(fault)")
                        }
                        #expect(answer.failure?.code == .transfer, "\(fault)")
                    }
                }
                try await bench.settle()
            }
        }

        @Test func `the decode-worker gives up by itself when the sender does not come again`()
            async throws
        {
            var options = Bench.Options()
            options.handOver.resumeDeadline = .milliseconds(500)
            options.handOver.reconnects = 0
            try await Bench.run(options) { bench in
                // Behind the offer: the decode-worker knows the sender.
                let fault = Forwarder.Fault(damage: .reset, direction: .up, position: 60_000)
                let forwarder = try Forwarder(to: bench.decode.bulkAddress, faults: [fault])
                defer { forwarder.stop() }
                let placed = try await bench.reserve(BenchRequest())
                try await bench.offer(placed, to: forwarder.address)
                // No word to either worker: each has to see for itself.
                var failed: [Role: FailureCode] = [:]
                while failed.count < 2 {
                    if case .failed(let failure, let role) = try await placed.events.next(
                        within: .seconds(5))
                    {
                        failed[role] = failure.code
                    }
                }
                #expect(failed == [.prefillWorker: .transfer, .decodeWorker: .transfer])
                try await bench.settle()
            }
        }

        @Test func `a flipped bit is never taken for KV`() async throws {
            var options = Bench.Options()
            // A length that was flipped can make the receiver wait for bytes that never come.
            options.handOver.stallDeadline = .milliseconds(1500)
            try await Bench.run(options) { bench in
                let carried = try await carriedByOneTransfer(bench)
                let faults = faults(
                    isLong
                        ? places(carried, atEnds: 600, between: 300)
                        : places(carried, atEnds: 12, between: 12), [.flip])
                let failures = try await BenchMetrics.rise(of: "decode_kv_damaged_total") {
                    try await forEach(faults) { fault in
                        try await answer(bench, [fault]) { request, answer, _ in
                            if answer.failure?.code == .deadline { return }
                            try await bench.expectRight(answer, to: request, "\(fault)")
                        }
                    }
                    try await bench.settle(within: .seconds(15))
                }
                // The records are authenticated: no damage comes as far as the KV.
                #expect(failures == 0)
            }
        }

        @Test func `a link that stands still ends the transfer in time`() async throws {
            var options = Bench.Options()
            options.handOver.stallDeadline = .milliseconds(400)
            try await Bench.run(options) { bench in
                let carried = try await carriedByOneTransfer(bench)
                let faults = faults(
                    places(carried, atEnds: isLong ? 60 : 5, between: isLong ? 60 : 5), [.stall])
                try await forEach(faults, atOnce: 8) { fault in
                    let start = ContinuousClock.now
                    try await answer(bench, [fault]) { request, answer, _ in
                        guard answer.failure != nil else {
                            return try await bench.expectRight(answer, to: request, "\(fault)")
                        }
                        #expect(answer.failure?.code == .deadline, "\(fault)")
                        // A tick is 100 ms; the rest is for a busy machine.
                        #expect(ContinuousClock.now - start < .seconds(3), "\(fault)")
                    }
                }
                try await bench.settle()
            }
        }

        @Test func `a slow link is no fault`() async throws {
            var options = Bench.Options()
            options.handOver.stallDeadline = .seconds(3)
            try await Bench.run(options) { bench in
                for conduct in [
                    Forwarder.Conduct(delay: .milliseconds(20)),
                    Forwarder.Conduct(bytesPerSecond: 200_000),
                ] {
                    let forwarder = try Forwarder(to: bench.decode.bulkAddress, conduct)
                    defer { forwarder.stop() }
                    for _ in 0..<2 {
                        let request = BenchRequest()
                        try await bench.expectRight(
                            bench.answer(request, through: forwarder.address), to: request)
                    }
                }
                try await bench.settle()
            }
        }

        @Test func `another worker at the same address is not taken for the first`()
            async throws
        {
            try await Bench.run { bench in
                let forwarder = try Forwarder(to: bench.decode.bulkAddress)
                defer { forwarder.stop() }
                let request = BenchRequest()
                let answer = try await bench.answer(
                    request, through: forwarder.address, instance: InstanceID("another"))
                #expect(answer.failure == .init(role: .prefillWorker, code: .transfer))
                // The right name at the same address: what waited for the other one has ended.
                try await bench.expectRight(
                    bench.answer(request.again, through: forwarder.address), to: request.again)
                try await bench.settle()
            }
        }
    }
}

extension BenchRequest {
    /// The request's next attempt.
    var again: BenchRequest {
        var next = self
        next.attempt.number += 1
        return next
    }
}
