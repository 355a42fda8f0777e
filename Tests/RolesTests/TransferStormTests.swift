import Foundation
import ServingTypes
import Testing

@Suite struct TransferStormTests {
    /// More with `TRANSFER_SEEDS=n`; from another one on with `TRANSFER_START=n`.
    static let seeds: ClosedRange<UInt64> = {
        let environment = ProcessInfo.processInfo.environment
        let count = environment["TRANSFER_SEEDS"].flatMap(UInt64.init) ?? 150
        let start = environment["TRANSFER_START"].flatMap(UInt64.init) ?? 1
        return start...(start + max(1, count) - 1)
    }()

    @Test func `without faults every transfer arrives`() {
        var total = TransferStorm.Counts()
        for seed in UInt64(1)...80 {
            var storm = TransferStorm(seed: seed, patience: .seconds(60))
            storm.run(steps: 800)
            expect(storm)
            #expect(storm.counts.completed == storm.counts.opened, "seed \(seed)")
            #expect(storm.counts.finished == storm.counts.opened, "seed \(seed)")
            total.add(storm.counts)
        }
        print("transfers without faults: \(total)")
        #expect(total.opened > 500 && total.failed == 0 && total.resends == 0)
        #expect(total.credits > 500 && total.heldTokens > 200)
    }

    @Test func `whatever goes wrong, nothing wrong is imported and nothing is left`() {
        var total = TransferStorm.Counts()
        for seed in Self.seeds {
            var storm = TransferStorm(seed: seed)
            storm.run(steps: 800, faultRate: 2 + Int(seed % 20))
            expect(storm)
            total.add(storm.counts)
        }
        print("\(Self.seeds.count) storms of transfers: \(total)")
        guard Self.seeds == 1...150 else { return }
        #expect(total.completed > 400 && total.failed > 200)
        #expect(total.resends > 50 && total.reconnects > 100)
        #expect(total.discarded > 50 && total.heldTokens > 200)
    }

    @Test(arguments: TransferStorm.Fault.allCases)
    func `each fault is survived at each step`(fault: TransferStorm.Fault) {
        for seed in UInt64(1)...2 {
            for step in stride(from: 0, to: 240, by: 8) {
                var storm = TransferStorm(seed: seed, patience: .seconds(60))
                storm.run(steps: 240, faults: [step: fault])
                expect(storm, "\(fault) at step \(step)")
                guard fault.isRecoverable else { continue }
                #expect(storm.counts.completed == storm.counts.opened)
            }
        }
    }

    private func expect(_ storm: TransferStorm, _ circumstance: String = "") {
        let defect = storm.defects.first ?? ""
        #expect(storm.defects.isEmpty, "seed \(storm.seed) \(circumstance): \(defect)")
    }
}

extension TransferStorm.Counts {
    mutating func add(_ other: Self) {
        opened += other.opened
        completed += other.completed
        failed += other.failed
        resends += other.resends
        reconnects += other.reconnects
        heldTokens += other.heldTokens
        credits += other.credits
        discarded += other.discarded
        finished += other.finished
    }
}
