import ClusterStore
import Foundation
import ServingTypes
import Testing

@testable import Grouping
@testable import SchedulerService

@Suite struct SavedRecordCodingTests {
    private static let records: [SavedKey: SavedRecord] = {
        var scenario = SavedScenario()
        scenario.lastGroup = 3
        scenario.scale = SavedScale(decode: 4)
        scenario.upgrade = SavedUpgrade(
            modelName: "m", target: "/b", origin: "/a", step: 2, settleMilliseconds: 1500,
            left: ["00ff"],
            phase: "paused", reason: "a \"reason\"\n", isGoingBack: false, awaitsReturn: true,
            movers: ["d1": .init(role: "decode", incarnation: .max)],
            roles: ["d2": "decode"], lateLoads: ["d3": 2], moved: 1, total: 4)
        let seat = SavedSeat(
            scenario: "chat", modelName: "model/ü", fingerprint: "00", group: "chat/1",
            role: "mixed", home: "decode", number: .max, incarnation: .max - 1, isPinned: true,
            loadPath: "/b")
        return [
            .counters: .counters(SavedCounters(assignment: .max)),
            .scenario("chat"): .scenario(scenario),
            .group(GroupID("chat/1")): .group(
                SavedGroup(
                    scenario: "chat", modelName: "m", fingerprint: "00", modelPath: "",
                    state: "open")),
            .seat(InstanceID("d/1 ü")): .seat(seat),
        ]
    }()

    private func stored() throws -> [String: [UInt8]] {
        var stored = try SavedRecordCoding.header(rules: "scenarios: []").compactMapValues { $0 }
        for (key, record) in Self.records {
            stored[key.text] = try SavedRecordCoding.encode(record)
        }
        return stored
    }

    @Test func `records are read as they were written`() throws {
        let read = try SavedRecordCoding.decode(stored(), of: "a store") { key in
            Issue.record("\(key) was not read")
        }
        #expect(read == Self.records)
    }

    @Test func `a newer format is refused, and nothing is taken over`() throws {
        var stored = try stored()
        stored["format"] = Array(#"{"format":2,"version":"9.0"}"#.utf8)
        let error = #expect(throws: StoreError.self) {
            try SavedRecordCoding.decode(stored, of: "a store") { _ in }
        }
        #expect(error == .newerFormat(place: "a store", found: 2, known: 1))
        #expect(error?.description.contains("start the newer version") == true)
        stored["format"] = [1, 2, 3]
        #expect(throws: StoreError.self) {
            try SavedRecordCoding.decode(stored, of: "a store") { _ in }
        }
    }

    @Test func `a record that makes no sense is left out and named`() throws {
        var stored = try stored()
        stored["seat/x"] = Array("{".utf8)
        stored["chair/y"] = Array("{}".utf8)
        var unread: [String] = []
        let read = try SavedRecordCoding.decode(stored, of: "a store") { unread.append($0) }
        #expect(read == Self.records)
        #expect(unread.sorted() == ["chair/y", "seat/x"])
    }
}
