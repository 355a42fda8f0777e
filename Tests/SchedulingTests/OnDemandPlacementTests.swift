import Scheduling
import ServingTypes
import Testing

@Suite struct OnDemandPlacementTests {
    let policy = OnDemandPlacement()
    let request = PlacementRequest()

    func candidates(_ numbers: [Int], of key: WritableKeyPath<PlacementCandidate, Int>)
        -> [PlacementCandidate]
    {
        numbers.enumerated().map { index, number in
            var candidate = PlacementCandidate(instance: InstanceID("worker-\(index)"))
            candidate[keyPath: key] = number
            return candidate
        }
    }

    @Test func `nobody is chosen from nobody`() {
        var generator = SeededGenerator(seed: 1)
        #expect(policy.prefillWorker(for: request, among: [], using: &generator) == nil)
        #expect(policy.decodeWorker(for: request, among: [], using: &generator) == nil)
    }

    @Test func `the only candidate is chosen`() {
        var generator = SeededGenerator(seed: 1)
        let only = candidates([7], of: \.freeKVBytes)
        #expect(
            policy.prefillWorker(for: request, among: only, using: &generator)?.name == "worker-0")
        #expect(
            policy.decodeWorker(for: request, among: only, using: &generator)?.name == "worker-0")
    }

    @Test func `prefill goes to the least open work and spreads among equals`() {
        var generator = SeededGenerator(seed: 2)
        let workers = candidates([5, 3, 9, 3], of: \.openPromptTokens)
        var counts: [String: Int] = [:]
        for _ in 0..<1000 {
            let chosen = policy.prefillWorker(for: request, among: workers, using: &generator)
            counts[chosen?.name ?? "nobody", default: 0] += 1
        }
        #expect(counts.keys.sorted() == ["worker-1", "worker-3"])
        #expect(counts.values.allSatisfy { (400...600).contains($0) }, "\(counts)")
    }

    @Test func `decode goes to the freer of two different ones`() {
        var generator = SeededGenerator(seed: 3)
        let workers = candidates([10, 30, 20], of: \.freeKVBytes)
        var counts: [String: Int] = [:]
        for _ in 0..<3000 {
            let chosen = policy.decodeWorker(for: request, among: workers, using: &generator)
            counts[chosen?.name ?? "nobody", default: 0] += 1
        }
        // Of three pairs the fullest worker wins none, the freest two.
        #expect(counts["worker-0"] == nil, "\(counts)")
        #expect((1850...2150).contains(counts["worker-1"] ?? 0), "\(counts)")
        #expect((850...1150).contains(counts["worker-2"] ?? 0), "\(counts)")
    }

    @Test func `equal generators choose equally`() {
        let workers = candidates([1, 1, 1, 1, 1], of: \.freeKVBytes)
        var first = SeededGenerator(seed: 4)
        var second = SeededGenerator(seed: 4)
        for _ in 0..<50 {
            #expect(
                policy.decodeWorker(for: request, among: workers, using: &first)
                    == policy.decodeWorker(for: request, among: workers, using: &second))
            #expect(
                policy.prefillWorker(for: request, among: workers, using: &first)
                    == policy.prefillWorker(for: request, among: workers, using: &second))
        }
    }
}
