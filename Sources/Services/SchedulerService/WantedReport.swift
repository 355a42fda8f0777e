import Foundation
import HTTPServer
import ServingTypes

/// How many workers there should be, as an outside autoscaler reads it.
///
///     {"instances":[{"present":2,"role":"prefill","scenario":"chat","wanted":3}]}
struct WantedReport: Encodable {
    struct Row: Encodable {
        var scenario: String
        var role: String
        var present: Int
        var wanted: Int
    }

    var instances: [Row]

    init(_ wanted: [WantedInstances]) {
        instances = wanted.map {
            Row(
                scenario: $0.scenario, role: $0.role.name, present: $0.present, wanted: $0.wanted)
        }
    }

    func reply() throws -> HTTPReply {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return .json(Array(try encoder.encode(self)))
    }
}
