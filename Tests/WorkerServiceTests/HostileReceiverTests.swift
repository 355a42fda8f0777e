import KVHandOver
import ServingTypes
import Synchronization
import Testing
import Transport

extension WorkerServiceTests {
    /// A decode-worker that lies, forgets or stops, against a real prefill-worker.
    @Suite struct HostileReceiverTests {
        /// Something a receiver can do.
        private struct Case: Sendable {
            var name: String
            /// What the gateway hears; nil if the transfer does not fail.
            var failure: FailureCode?
            var isUncertain = false
            var heldTokens = 0
            var promptTokens = 100
            /// Connections that are made.
            var calls = 1
            var conduct: Decoy.Conduct

            init(
                _ name: String, _ failure: FailureCode? = nil, heldTokens: Int = 0,
                promptTokens: Int = 100, calls: Int = 1,
                _ conduct: @escaping Decoy.Conduct
            ) {
                self.name = name
                self.failure = failure
                self.heldTokens = heldTokens
                self.promptTokens = promptTokens
                self.calls = calls
                self.conduct = conduct
            }

            /// Whether it fails depends on how far the prompt is.
            static func uncertain(_ name: String, _ conduct: @escaping Decoy.Conduct) -> Case {
                var one = Case(name, nil, conduct)
                one.isUncertain = true
                return one
            }
        }

        /// Has receivers do each of these, then sees that all is free and a real one is served.
        ///
        /// - Parameter width: how many at once; one alone has chunks of 32 tokens.
        private func check(_ cases: [Case], atOnce width: Int = 4) async throws {
            var options = Bench.Options()
            options.handOver.stallDeadline = .milliseconds(800)
            try await Bench.run(options) { bench in
                let silent = Mutex<[(String, Bench.Placed)]>([])
                try await forEach(cases, atOnce: width) { one in
                    let placed = try await check(one, bench)
                    if one.failure == nil, !one.isUncertain {
                        silent.withLock { $0.append((one.name, placed)) }
                    }
                }
                try await bench.settle()
                let request = BenchRequest()
                try await bench.expectRight(bench.answer(request), to: request)
                try await bench.settle()
                // Whatever the prefill-worker had to say of them has come before that answer.
                for (name, placed) in silent.withLock({ $0 }) {
                    let failure = await bench.failure(of: placed)
                    #expect(failure == nil, "\(name)")
                }
            }
        }

        private func check(_ one: Case, _ bench: Bench) async throws -> Bench.Placed {
            let decoy = try bench.decoy(one.name, one.conduct)
            defer { decoy.stop() }
            let placed = try await bench.offer(
                BenchRequest(promptTokens: one.promptTokens), heldTokens: one.heldTokens,
                to: decoy)
            if let failure = one.failure {
                let answer = try await placed.events.answer(within: .seconds(10))
                #expect(
                    answer.failure == .init(role: .prefillWorker, code: failure), "\(one.name)")
            }
            let end = ContinuousClock.now + .seconds(10)
            while decoy.ended < one.calls, ContinuousClock.now < end {
                try await Task.sleep(for: .milliseconds(5))
            }
            #expect(decoy.problems == [], "\(one.name)")
            return placed
        }

        @Test func `a receiver that refuses, or is silent, fails the request in time`()
            async throws
        {
            try await check([
                Case("refuses the model", .model) { caller, _ in
                    try caller.done(caller.hearOffer().attempt, .model)
                },
                Case("knows no reservation", .unknownRequest) { caller, _ in
                    try caller.done(caller.hearOffer().attempt, .unknownRequest)
                },
                Case("never answers the offer", .deadline) { caller, _ in
                    _ = try caller.hearOffer()
                    try caller.hearAbort()
                },
                Case("gives no credit", .deadline) { caller, _ in
                    try caller.grant(caller.hearOffer(), credit: 0)
                    try caller.hearAbort()
                },
                Case("gives too little credit for a chunk", .deadline) { caller, _ in
                    try caller.grant(caller.hearOffer(), credit: 2079)
                    try caller.hearAbort()
                },
                Case("gives credit for one chunk only", .deadline) { caller, _ in
                    try caller.grant(caller.hearOffer(), credit: 65_568)
                    _ = try caller.hearChunk()
                    try caller.hearAbort()
                },
                Case("never says that it is done", .deadline) { caller, _ in
                    try caller.grant(caller.hearOffer())
                    _ = try caller.hearChunks()
                    try caller.hearAbort()
                },
                // Larger than the sockets' buffers: the sender stands in the middle of a write.
                Case("does not read", .deadline, promptTokens: 7000) { caller, _ in
                    try caller.grant(caller.hearOffer())
                    let failure = BenchRequest(promptTokens: 1).attempt
                    // Saying something fails once the sender has cut the connection.
                    while (try? caller.done(failure)) != nil { pause(.milliseconds(50)) }
                },
            ])
        }

        @Test func `credit in drips is enough`() async throws {
            try await check([
                Case("drips") { caller, _ in
                    let offer = try caller.hearOffer()
                    try caller.grant(offer, credit: 0)
                    var left = 3 * 65_568 + 8224
                    while left > 0 {
                        let bytes = min(9000, left)
                        try caller.say(.kvCredit(KVCredit(attempt: offer.attempt, bytes: bytes)))
                        left -= bytes
                        pause(.milliseconds(10))
                    }
                    try require(try caller.hearChunks() == [0, 32, 64, 96], "all chunks")
                    try caller.done(offer.attempt)
                }
            ])
        }

        @Test func `what is asked for again is sent again, once`() async throws {
            func asking(
                _ name: String, from token: Int, _ failure: FailureCode?, heldTokens: Int = 0,
                expects starts: [Int]? = nil
            ) -> Case {
                Case(name, failure, heldTokens: heldTokens) { caller, _ in
                    let offer = try caller.hearOffer()
                    try caller.grant(offer)
                    _ = try caller.hearChunks()
                    try caller.resend(offer.attempt, from: token)
                    guard let starts else { return try caller.hearAbort() }
                    try require(try caller.hearChunks() == starts, "the chunks again")
                    try caller.done(offer.attempt)
                }
            }
            try await check(
                [
                    asking("from the start", from: 0, nil, expects: [0, 32, 64, 96]),
                    asking("from a chunk", from: 64, nil, expects: [64, 96]),
                    asking("from the end", from: 100, nil, expects: []),
                    asking("from inside a chunk", from: 33, .transfer),
                    asking("from before the start", from: 0, .transfer, heldTokens: 32),
                    Case("in the middle") { caller, _ in
                        let offer = try caller.hearOffer()
                        try caller.grant(offer, credit: 65_568)
                        _ = try caller.hearChunk()
                        try caller.resend(offer.attempt, from: 0)
                        try require(try caller.hearChunks() == [0, 32, 64, 96], "all chunks")
                        try caller.done(offer.attempt)
                    },
                    Case("twice", .transfer) { caller, _ in
                        let offer = try caller.hearOffer()
                        try caller.grant(offer)
                        _ = try caller.hearChunks()
                        try caller.resend(offer.attempt, from: 0)
                        _ = try caller.hearChunks()
                        try caller.resend(offer.attempt, from: 0, round: 3)
                        try caller.hearAbort()
                    },
                ], atOnce: 1)
        }

        @Test func `words out of turn do no harm`() async throws {
            let other = BenchRequest(promptTokens: 1).attempt
            try await check([
                Case("about another request") { caller, _ in
                    let offer = try caller.hearOffer()
                    try caller.done(other)
                    try caller.say(.kvCredit(KVCredit(attempt: other, bytes: 1)))
                    try caller.say(
                        .kvResend(
                            KVResend(
                                attempt: other, fromToken: 0, creditBytes: 1, round: 1,
                                reason: "")))
                    try caller.grant(offer)
                    _ = try caller.hearChunks()
                    try caller.done(offer.attempt)
                },
                Case("done three times") { caller, _ in
                    let offer = try caller.hearOffer()
                    try caller.grant(offer)
                    _ = try caller.hearChunks()
                    for _ in 0..<3 { try caller.done(offer.attempt) }
                },
                Case("granted twice") { caller, _ in
                    let offer = try caller.hearOffer()
                    try caller.grant(offer)
                    try caller.grant(offer, held: 64, round: 2)
                    _ = try caller.hearChunks()
                    try caller.done(offer.attempt)
                },
                // It says that it has everything, so it gets nothing.
                .uncertain("done before anything was sent") { caller, _ in
                    try caller.done(caller.hearOffer().attempt)
                },
                .uncertain("done in the middle") { caller, _ in
                    let offer = try caller.hearOffer()
                    try caller.grant(offer, credit: 65_568)
                    _ = try caller.hearChunk()
                    try caller.done(offer.attempt)
                },
                Case("failed in the middle", .transfer) { caller, _ in
                    let offer = try caller.hearOffer()
                    try caller.grant(offer, credit: 65_568)
                    _ = try caller.hearChunk()
                    try caller.done(offer.attempt, .transfer)
                },
                Case("a socket that is not there") { caller, _ in
                    let offer = try caller.hearOffer()
                    try caller.grant(
                        offer,
                        local: LocalCarrier(
                            path: "/nowhere/at/all", token: [UInt8](repeating: 1, count: 32)))
                    _ = try caller.hearChunks()
                    try caller.done(offer.attempt)
                },
            ])
        }

        @Test func `tokens that the receiver says it holds are not sent`() async throws {
            try await check(
                [
                    Case("holds the beginning", heldTokens: 32) { caller, _ in
                        let offer = try caller.hearOffer()
                        try require(offer.startToken == 32, "the held tokens are named")
                        try caller.grant(offer)
                        try require(try caller.hearChunks() == [32, 64, 96], "the rest")
                        try caller.done(offer.attempt)
                    },
                    // All chunks are exported when the grant comes.
                    Case("holds up to a chunk, in the end") { caller, _ in
                        let offer = try caller.hearOffer()
                        pause(.milliseconds(200))
                        try caller.grant(offer, held: 64)
                        try require(try caller.hearChunks() == [64, 96], "the rest")
                        try caller.done(offer.attempt)
                    },
                    Case("holds half a chunk", .transfer) { caller, _ in
                        let offer = try caller.hearOffer()
                        pause(.milliseconds(200))
                        try caller.grant(offer, held: 40)
                        try caller.hearAbort()
                    },
                    Case("holds less than it said", .transfer, heldTokens: 32) { caller, _ in
                        try caller.grant(caller.hearOffer(), held: 0)
                        try caller.hearAbort()
                    },
                ], atOnce: 1)
        }

        /// What is done before the connection is closed.
        private static let closings: [(String, @Sendable (Caller) throws -> Void)] = [
            ("at once", { _ in }),
            ("after the offer", { _ = try $0.hearOffer() }),
            ("after the grant", { try $0.grant($0.hearOffer()) }),
            (
                "after a chunk",
                {
                    try $0.grant($0.hearOffer(), credit: 65_568)
                    _ = try $0.hearChunk()
                }
            ),
            (
                "inside a chunk",
                {
                    try $0.grant($0.hearOffer())
                    _ = try $0.connection.receiveFrame(deadline: .seconds(5))
                }
            ),
            (
                "after the end",
                {
                    try $0.grant($0.hearOffer())
                    _ = try $0.hearChunks()
                }
            ),
            (
                "after words it may not say",
                {
                    let offer = try $0.hearOffer()
                    try $0.say(.kvAbort(KVAbort(attempt: offer.attempt, reason: "")))
                    try $0.hearEnd()
                }
            ),
            (
                "after bytes that are no frame",
                {
                    _ = try $0.hearOffer()
                    try $0.say(bytes: [UInt8](repeating: 0x41, count: 64))
                    try $0.hearEnd()
                }
            ),
            (
                "with a refusal",
                {
                    _ = try $0.hearOffer()
                    $0.connection.close(
                        refusal: Refusal(code: .draining, reason: "it is late"))
                }
            ),
        ]

        @Test func `a receiver that closes is called again, once`() async throws {
            try await check(
                Self.closings.flatMap { name, stage in
                    [
                        Case("closes \(name)", calls: 2) { caller, number in
                            if number == 0 { return try stage(caller) }
                            try caller.takeAll()
                        },
                        Case("always closes \(name)", .transfer, calls: 2) { caller, _ in
                            try stage(caller)
                        },
                    ]
                })
        }

        @Test func `a worker that takes an address over leaves the other's transfers alone`()
            async throws
        {
            try await Bench.run { bench in
                let first = try bench.decoy("first") { caller, _ in
                    let offer = try caller.hearOffer()
                    try caller.grant(offer, credit: 0)
                    pause(.milliseconds(500))
                    try caller.say(
                        .kvCredit(KVCredit(attempt: offer.attempt, bytes: Caller.plenty)))
                    _ = try caller.hearChunks()
                    try caller.done(offer.attempt)
                }
                let second = try bench.decoy("second") { caller, _ in try caller.takeAll() }
                let forwarder = try Forwarder(to: first.address)
                defer { for stop in [forwarder.stop, first.stop, second.stop] { stop() } }
                let old = try await bench.offer(
                    BenchRequest(), to: first, through: forwarder.address)
                try await Task.sleep(for: .milliseconds(200))
                forwarder.retarget(second.address)
                let new = try await bench.offer(
                    BenchRequest(), to: second, through: forwarder.address)
                try await bench.waitUntilEnded(new, within: .seconds(3))
                try await bench.waitUntilEnded(old, within: .seconds(3))
                #expect(first.problems + second.problems == [])
                try await bench.settle()
            }
        }
    }
}
