import ClusterRules
import Scheduling
import ServingTypes
import Testing

@Suite struct PlacementPolicyTests {
    private func worker(
        _ name: String, _ change: (inout PlacementCandidate) -> Void = { _ in }
    ) -> PlacementCandidate {
        var candidate = PlacementCandidate(instance: InstanceID(name))
        change(&candidate)
        return candidate
    }

    /// How often each worker is chosen.
    private func prefillCounts(
        _ policy: any PlacementPolicy = OnDemandPlacement(), promptTokens: Int,
        among candidates: [PlacementCandidate], draws: Int = 300
    ) -> [String: Int] {
        var policy = policy
        var generator = SeededGenerator(seed: 11)
        var counts: [String: Int] = [:]
        for _ in 0..<draws {
            let chosen = policy.prefillWorker(
                for: PlacementRequest(promptTokens: promptTokens), among: candidates,
                using: &generator)
            counts[chosen?.name ?? "nobody", default: 0] += 1
        }
        return counts
    }

    private func decodeCounts(
        _ policy: any PlacementPolicy = OnDemandPlacement(), neededKVBytes: Int = 0,
        among candidates: [PlacementCandidate], draws: Int = 300
    ) -> [String: Int] {
        var policy = policy
        var generator = SeededGenerator(seed: 12)
        var counts: [String: Int] = [:]
        for _ in 0..<draws {
            let chosen = policy.decodeWorker(
                for: PlacementRequest(promptTokens: 1000, neededKVBytes: neededKVBytes),
                among: candidates, using: &generator)
            counts[chosen?.name ?? "nobody", default: 0] += 1
        }
        return counts
    }

    @Test func `a prefix hit outweighs as much open work as it saves and no more`() {
        func chosen(open: Int) -> [String: Int] {
            prefillCounts(
                promptTokens: 1000,
                among: [
                    worker("idle"),
                    worker("holder") {
                        $0.hitTokens = 640
                        $0.openPromptTokens = open
                    },
                ])
        }
        #expect(chosen(open: 639) == ["holder": 300])
        #expect(chosen(open: 641) == ["idle": 300])
        #expect(chosen(open: 640).keys.sorted() == ["holder", "idle"])
    }

    @Test func `a hit counts no more than the prompt is long`() {
        let candidates = [
            worker("a") {
                $0.hitTokens = 5000
                $0.openPromptTokens = 10
            }, worker("b") { $0.hitTokens = 100 },
        ]
        #expect(prefillCounts(promptTokens: 100, among: candidates) == ["b": 300])
    }

    @Test func `a faster worker takes more work before it is passed over`() {
        let candidates = [
            worker("fast") {
                $0.prefillTokensPerSecond = 4000
                $0.openPromptTokens = 2000
            }, worker("slow") { $0.prefillTokensPerSecond = 1000 },
        ]
        #expect(prefillCounts(promptTokens: 1000, among: candidates) == ["fast": 300])
        #expect(prefillCounts(promptTokens: 600, among: candidates) == ["slow": 300])
    }

    @Test func `a worker that was not measured counts as an average one`() {
        // The mean is 2000 tokens a second.
        func candidates(open: Int) -> [PlacementCandidate] {
            [
                worker("fast") {
                    $0.prefillTokensPerSecond = 3000
                    $0.openPromptTokens = open
                },
                worker("slow") { $0.prefillTokensPerSecond = 1000 },
                worker("new"),
            ]
        }
        #expect(prefillCounts(promptTokens: 1000, among: candidates(open: 499)) == ["fast": 300])
        #expect(prefillCounts(promptTokens: 1000, among: candidates(open: 501)) == ["new": 300])
    }

    @Test func `decode weighs free memory by the speed it is read with`() {
        let candidates = [
            worker("large") {
                $0.freeKVBytes = 300
                $0.decodeStepMilliseconds = 40
            },
            worker("quick") {
                $0.freeKVBytes = 200
                $0.decodeStepMilliseconds = 20
            },
        ]
        #expect(decodeCounts(among: candidates) == ["quick": 300])
        var unmeasured = candidates
        unmeasured[0].decodeStepMilliseconds = 0
        #expect(decodeCounts(among: unmeasured) == ["large": 300])
    }

    @Test func `of two drawn the one with room goes first however slow it is`() {
        let candidates = [
            worker("small") {
                $0.freeKVBytes = 99
                $0.decodeStepMilliseconds = 1
            },
            worker("roomy") {
                $0.freeKVBytes = 100
                $0.decodeStepMilliseconds = 100
            },
        ]
        #expect(decodeCounts(neededKVBytes: 100, among: candidates) == ["roomy": 300])
    }

    @Test func `a conversation returns to where its KV is if it fits there`() {
        func candidates(free: Int, held: Int) -> [PlacementCandidate] {
            (0..<5).map { index in worker("other-\(index)") { $0.freeKVBytes = 1000 } }
                + [
                    worker("holder") {
                        $0.freeKVBytes = free
                        $0.hitTokens = held
                    }
                ]
        }
        #expect(
            decodeCounts(neededKVBytes: 100, among: candidates(free: 300, held: 500))
                == ["holder": 300])
        // Too little room, far less room than others have, or too little held.
        for (free, held) in [(99, 500), (249, 500), (300, 31)] {
            let counts = decodeCounts(
                neededKVBytes: 100, among: candidates(free: free, held: held))
            #expect(counts["holder"] == nil, "\(free) \(held) \(counts)")
        }
    }

    @Test func `of several holders the one that holds most is chosen`() {
        let candidates = [
            worker("less") {
                $0.freeKVBytes = 1000
                $0.hitTokens = 64
            },
            worker("most") {
                $0.freeKVBytes = 400
                $0.hitTokens = 96
            },
            worker("roomier") {
                $0.freeKVBytes = 500
                $0.hitTokens = 96
            },
        ]
        #expect(decodeCounts(among: candidates) == ["roomier": 300])
    }

    @Test func `the shortest queue is the one with fewest pending tokens`() {
        let candidates = [5, 3, 9, 3].enumerated().map { index, pending in
            worker("worker-\(index)") {
                $0.pendingTokens = pending
                $0.openRequests = 10 - pending
            }
        }
        let policy = PlacementName.shortestQueue.makePolicy()
        for counts in [
            prefillCounts(policy, promptTokens: 10, among: candidates),
            decodeCounts(policy, among: candidates),
        ] {
            #expect(counts.keys.sorted() == ["worker-1", "worker-3"])
            #expect(counts.values.allSatisfy { (100...200).contains($0) }, "\(counts)")
        }
    }

    @Test func `least connections looks at requests alone`() {
        let candidates = [2, 1, 3].enumerated().map { index, requests in
            worker("worker-\(index)") {
                $0.openRequests = requests
                $0.openPromptTokens = 100 - requests
                $0.hitTokens = requests
            }
        }
        let policy = PlacementName.leastConnections.makePolicy()
        #expect(prefillCounts(policy, promptTokens: 9, among: candidates) == ["worker-1": 300])
        #expect(decodeCounts(policy, among: candidates) == ["worker-1": 300])
    }

    @Test func `round robin goes on after the last one while workers come and go`() {
        var policy = PlacementName.roundRobin.makePolicy()
        var generator = SeededGenerator(seed: 1)
        func next(_ names: String) -> String? {
            policy.prefillWorker(
                for: PlacementRequest(), among: names.map { worker(String($0)) },
                using: &generator)?.name
        }
        #expect(next("") == nil)
        #expect([next("abc"), next("abc"), next("abc"), next("abc")] == ["a", "b", "c", "a"])
        #expect(next("acd") == "c")
        #expect(next("abcd") == "d")
        #expect(next("bcd") == "b")
        // Decode-workers have a turn of their own.
        #expect(
            policy.decodeWorker(
                for: PlacementRequest(), among: [worker("x"), worker("y")], using: &generator)?
                .name == "x")
    }

    @Test(arguments: PlacementName.allCases)
    func `every policy chooses the only candidate and nobody from nobody`(name: PlacementName) {
        var policy = name.makePolicy()
        var generator = SeededGenerator(seed: 1)
        let request = PlacementRequest(promptTokens: 5)
        for candidates in [[], [worker("only")]] {
            let expected = candidates.first?.instance
            #expect(
                policy.prefillWorker(for: request, among: candidates, using: &generator)
                    == expected)
            #expect(
                policy.decodeWorker(for: request, among: candidates, using: &generator)
                    == expected)
        }
    }
}
