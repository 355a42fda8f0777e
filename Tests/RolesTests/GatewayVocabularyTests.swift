import Roles
import ServingTypes
import Testing

/// Groups whose models read tokens differently, as while an upgrade runs.
@Suite struct GatewayVocabularyTests {
    private static let old = VocabularyID(digest: [1])
    private static let new = VocabularyID(digest: [2])
    private static let oldDecode = InstanceID("d-chat/1")
    private static let newDecode = InstanceID("d-chat/2")

    private func bench(
        old oldState: ServingGroup.State = .open, new newState: ServingGroup.State = .open,
        known: [String: VocabularyID] = ["/old": old, "/new": new]
    ) -> GatewayBench {
        let samples = GatewayGroupTests()
        var groups = [
            samples.group(GatewayGroupTests.chat1, state: oldState),
            samples.group(GatewayGroupTests.chat2, otherModel, state: newState),
        ]
        groups[0].modelPath = "/old"
        groups[1].modelPath = "/new"
        var bench = GatewayBench([])
        _ = bench.machine.vocabulariesChanged(known, now: bench.now)
        let members = samples.members(groups.map { ($0.id, $0.fingerprint) })
        _ = bench.show(members, groups: groups)
        for member in members { _ = bench.connect(member.description.instance) }
        return bench
    }

    private func submit(
        _ number: UInt64, _ vocabulary: VocabularyID?, to bench: inout GatewayBench
    ) -> [InstanceID] {
        bench.submit(number) { job in
            job.scenario = "chat"
            job.vocabulary = vocabulary
        }.reservedAt
    }

    @Test func `tokens go to a group that reads them`() {
        var bench = bench()
        for number in UInt64(1)...10 {
            #expect(submit(number, Self.old, to: &bench) == [Self.oldDecode])
            #expect(submit(100 + number, Self.new, to: &bench) == [Self.newDecode])
        }
    }

    @Test func `a group whose vocabulary is unknown gets nothing`() {
        var bench = bench(known: ["/old": Self.old])
        for number in UInt64(1)...10 {
            #expect(submit(number, Self.old, to: &bench) == [Self.oldDecode])
        }
        #expect(submit(11, Self.new, to: &bench) == [])
    }

    @Test func `what only a draining group reads goes there`() {
        var bench = bench(old: .draining)
        #expect(submit(1, Self.old, to: &bench) == [Self.oldDecode])
        #expect(submit(2, Self.new, to: &bench) == [Self.newDecode])
        #expect(submit(3, nil, to: &bench) == [Self.newDecode])
    }

    @Test func `a draining group takes nothing that an open one reads`() {
        var both = bench(old: .draining, known: ["/old": Self.old, "/new": Self.old])
        #expect(submit(1, Self.old, to: &both) == [Self.newDecode])
        var none = bench(
            old: .draining, new: .draining, known: ["/old": Self.old, "/new": Self.old])
        #expect(submit(1, Self.old, to: &none) == [])
    }

    @Test func `new requests are read for an open group`() {
        var bench = bench(old: .draining)
        #expect(bench.machine.drawModelPath(scenario: "chat", modelName: "small") == "/new")
        #expect(bench.machine.drawModelPath(scenario: "", modelName: "small") == "/new")
        #expect(bench.machine.drawModelPath(scenario: "chat", modelName: "other") == nil)
    }
}
