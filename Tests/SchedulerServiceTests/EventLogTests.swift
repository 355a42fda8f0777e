import ClusterStore
import Foundation
import ServingTypes
import Testing

@testable import SchedulerService

@Suite struct EventLogTests {
    private func events(_ reply: AdminReply) throws -> [ClusterEvent] {
        #expect(reply.isAccepted)
        return try reply.text.split(separator: "\n").map {
            try JSONDecoder().decode(ClusterEvent.self, from: Data($0.utf8))
        }
    }

    private func request(_ arguments: (String, String)...) -> AdminRequest {
        AdminRequest(
            command: "events",
            arguments: arguments.map { AdminRequest.Argument(name: $0.0, value: $0.1) })
    }

    @Test func `the last events are answered, or those after a number`() throws {
        let log = EventLog()
        for number in 1...150 { log.add(.role, "w\(number)", "becomes decode") }
        #expect(try events(log.answer(request())).map(\.number) == Array(51...150))
        #expect(try events(log.answer(request(("last", "2")))).map(\.subject) == ["w149", "w150"])
        #expect(try events(log.answer(request(("after", "147")))).map(\.number) == [148, 149, 150])
        #expect(try events(log.answer(request(("after", "150")))).isEmpty)
        for wrong in [("last", "x"), ("last", "-1"), ("after", "-1"), ("after", "b")] {
            let reply = log.answer(request(wrong))
            #expect(!reply.isAccepted && reply.text.contains("give"))
        }
    }

    @Test func `an answer has a bound, and the next one goes on`() throws {
        let log = EventLog()
        for number in 1...200 {
            log.add(.other, "w\(number)", String(repeating: "ä", count: 3000))
        }
        var seen: [UInt64] = []
        while true {
            let reply = log.answer(request(("after", "\(seen.last ?? 0)")))
            #expect(reply.text.utf8.count < 64 << 10)
            let page = try events(reply)
            if page.isEmpty { break }
            seen += page.map(\.number)
        }
        #expect(seen == Array(1...200))
    }

    @Test func `the number of events has a bound`() {
        let log = EventLog()
        for _ in 0..<30_000 { log.add(.other, "w", "") }
        #expect(log.count < StoreLimits.keptEvents * 5 / 4)
        #expect(log.list(last: .max).last?.number == 30_000)
    }

    @Test func `numbers go on after those of the store`() {
        let first = EventLog()
        for _ in 1...5 { first.add(.role, "w", "x") }
        let stored = first.list(last: .max).map(\.stored)
        let second = EventLog()
        second.begin(stored, nil)
        second.add(.role, "w", "y")
        #expect(second.list(last: .max).map(\.number) == Array(1...6))
    }

    @Test func `who knows events that were never saved gets those of the new term`() throws {
        let first = EventLog()
        for _ in 1...5 { first.add(.role, "w", "x") }
        let second = EventLog()
        second.begin(first.list(last: 3).map(\.stored), nil)
        second.add(.leadership, "b", "leads")
        // Events 7 to 9 died with their scheduler.
        #expect(try events(second.answer(request(("after", "9")))).map(\.number) == [6])
        #expect(try events(second.answer(request(("after", "6")))).isEmpty)
        // Without a store numbers begin anew.
        let third = EventLog()
        third.add(.leadership, "b", "leads")
        #expect(try events(third.answer(request(("after", "500")))).map(\.number) == [1])
    }
}
