import InferenceEngine
import ServingTypes
import Testing

/// KV that is there already and leaves.
@Suite struct BatchPlannerExportTests {
    private func endedExports(_ driver: PlannerDriver) -> [UInt64] {
        driver.events.compactMap {
            if case .exportEnded(let id) = $0 { id.value } else { nil }
        }
    }

    @Test func `what a job begins with leaves before what it computes`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 40, retains: true)
        while driver.finish(of: 1) == nil { driver.step() }
        driver.fork(2, from: 1, tokens: 38)
        driver.run(2, prompt: 50, imported: 38, exports: true, exportedFrom: 3, retains: true)
        #expect(driver.step().isEmpty)
        #expect(driver.exportPresent() == [3..<19, 19..<35, 35..<38])
        #expect(endedExports(driver).isEmpty && !driver.planner.hasExports)
        #expect(driver.step().map(\.exported) == [38..<50])
        #expect(driver.finish(of: 2) == .length)
        #expect(driver.planner.usedKVTokens == 40 + 12)
    }

    @Test func `what a job wants from its own tokens on needs nothing before`() {
        var driver = PlannerDriver()
        driver.importBlock(1, 0, 10)
        driver.run(1, prompt: 20, imported: 10, exports: true, exportedFrom: 10)
        driver.importBlock(2, 0, 10)
        driver.run(2, prompt: 20, imported: 10)
        #expect(!driver.planner.hasExports)
        #expect(driver.step().map(\.exported.count) == [10, 0])
    }

    @Test func `what decodes can be held, and then leaves without its last token`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 20, new: 50)
        driver.receive(.hold(SequenceID(1)))
        #expect(driver.events.isEmpty, "its prompt is not computed")
        for _ in 0..<5 { driver.step() }
        #expect(driver.tokens(of: 1) == 4)
        driver.events = []
        driver.receive(.hold(SequenceID(1)))
        guard case .held(SequenceID(1)) = driver.events.last else {
            Issue.record("\(driver.events)")
            return
        }
        #expect(driver.step().isEmpty)
        #expect(driver.planner.usedKVTokens == 23)
        driver.receive(.export(SequenceID(1), from: 10))
        #expect(driver.exportPresent() == [10..<23])
        driver.receive(.hold(SequenceID(1)))
        #expect(endedExports(driver) == [1] && driver.events.count == 2)
        driver.receive(.cancel(SequenceID(1)))
        #expect(driver.planner.usedKVTokens == 0)
    }

    @Test func `a prompt whose one token retains has all its KV`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 40, exports: true, retains: true)
        let runs = (0..<3).flatMap { _ in driver.step() }
        #expect(runs.map(\.exported) == [0..<16, 16..<32, 32..<40])
        #expect(driver.finish(of: 1) == .length)
        driver.receive(.export(SequenceID(1), from: 0))
        #expect(driver.exportPresent() == [0..<16, 16..<32, 32..<40])
        #expect(endedExports(driver) == [1])
        #expect(driver.planner.usedKVTokens == 40)
    }

    @Test func `exports are few while sequences decode and come one sequence after the other`() {
        var driver = PlannerDriver()
        for id in UInt64(1)...2 { driver.run(id, prompt: 50, retains: true) }
        while driver.finish(of: 2) == nil { driver.step() }
        driver.run(3, prompt: 3, new: 50)
        driver.step()
        for id in UInt64(1)...2 { driver.receive(.export(SequenceID(id), from: 10)) }
        #expect(driver.exportPresent() == [10..<26, 26..<42])
        #expect(driver.step().map(\.sequence.value) == [3])
        #expect(driver.exportPresent() == [42..<50, 10..<26])
        #expect(endedExports(driver) == [1])
        driver.receive(.cancel(SequenceID(2)))
        #expect(driver.exportPresent().isEmpty && !driver.planner.hasExports)
        #expect(endedExports(driver) == [1])
        guard case .cancelled(SequenceID(2)) = driver.events.last else {
            Issue.record("not cancelled")
            return
        }
    }

    @Test func `an export of nothing ends at once and a wrong one closes`() {
        var driver = PlannerDriver()
        for id in UInt64(1)...4 { driver.run(id, prompt: 4, new: id == 4 ? 9 : 1, retains: true) }
        driver.step()
        driver.receive(.export(SequenceID(1), from: 4))
        #expect(endedExports(driver) == [1] && driver.planner.openSequences == 4)
        driver.receive(.export(SequenceID(1), from: 5))
        driver.receive(.export(SequenceID(2), from: -1))
        driver.receive(.export(SequenceID(3), from: 0))
        driver.receive(.export(SequenceID(3), from: 0))
        driver.receive(.export(SequenceID(4), from: 0))
        driver.receive(.export(SequenceID(9), from: 0))
        for id in [1, 2, 3, 4, 9] as [UInt64] {
            guard case .invalidJob = driver.error(of: id) else {
                Issue.record("\(id) is exported")
                continue
            }
        }
        #expect(driver.planner.usedKVTokens == 0 && !driver.planner.hasExports)
    }

    @Test func `a failed export closes its sequence and what it would compute`() throws {
        var driver = PlannerDriver()
        driver.importBlock(1, 0, 10)
        driver.run(1, prompt: 20, imported: 10, exports: true)
        driver.run(2, prompt: 3)
        let export = try #require(driver.planner.nextExport())
        #expect(export.tokens == 0..<10)
        driver.note(driver.planner.fail(export.sequence, .computeFailed(code: 1)))
        #expect(driver.step().map(\.sequence.value) == [2])
        #expect(driver.planner.usedKVTokens == 0)
    }
}
