import Foundation
import ServingTypes
import Testing

@Suite struct WorkerStormTests {
    /// More with `WORKER_SEEDS=n`.
    private static let count =
        ProcessInfo.processInfo.environment["WORKER_SEEDS"].flatMap(UInt64.init) ?? 300

    @Test func `in any order of events nothing is promised twice or left behind`() {
        var total = WorkerStorm.Counts()
        for seed in 1...Self.count {
            var storm = WorkerStorm(seed: seed)
            storm.run(steps: 600)
            let defect = storm.defects.first ?? ""
            #expect(storm.defects.isEmpty, "seed \(seed): \(defect)")
            total.add(storm.counts)
        }
        print("\(Self.count) storms of work: \(total)")
        #expect(total.prompts > 2000 && total.late > 500 && total.local > 300)
        #expect(total.reserved > 1000 && total.answers > 1000 && total.failures > 500)
        #expect(total.cachedTokens > 10_000 && total.roleChanges > 500 && total.refusals > 1000)
        #expect(total.moves > 100)
    }
}

extension WorkerStorm.Counts {
    mutating func add(_ other: Self) {
        prompts += other.prompts
        late += other.late
        local += other.local
        reserved += other.reserved
        answers += other.answers
        failures += other.failures
        cachedTokens += other.cachedTokens
        roleChanges += other.roleChanges
        refusals += other.refusals
        moves += other.moves
    }
}
