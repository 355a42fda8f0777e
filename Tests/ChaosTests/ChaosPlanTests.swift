import Measurement
import Reports
import ServingTypes
import Testing

@testable import Chaos

@Suite struct ChaosPlanTests {
    private let settings = ChaosSettings()

    @Test func `the same seed makes the same faults, another seed others`() {
        let first = (0..<50).map { settings.plan.events(ofRound: $0) }
        #expect(first == (0..<50).map { settings.plan.events(ofRound: $0) })
        var other = settings
        other.seed = 2
        #expect(first != (0..<50).map { other.plan.events(ofRound: $0) })
    }

    @Test func `all faults and targets come, and one worker of each kind is left alone`() {
        var faults: Set<ChaosFault> = []
        var targets: Set<ChaosTarget> = []
        for round in 0..<300 {
            let events = settings.plan.events(ofRound: round)
            #expect(!events.isEmpty && events.count <= settings.plan.faults)
            #expect(Set(events.map(\.target)).count == events.count)
            for role in [Role.prefillWorker, .decodeWorker, .gateway] {
                let all = settings.targets.count { $0.role == role }
                #expect(events.count { $0.target.role == role } < all)
            }
            for event in events {
                #expect(event.at + event.lasts <= settings.plan.roundDuration)
                #expect(event.fault.means == .signals || settings.relayed.contains(event.target))
            }
            faults.formUnion(events.map(\.fault))
            targets.formUnion(events.map(\.target))
        }
        let possible = ChaosFault.allCases.filter { [.signals, .relay].contains($0.means) }
        #expect(faults == Set(possible))
        #expect(targets == Set(settings.targets))
    }

    @Test func `without relays no link fails`() {
        var settings = settings
        settings.network = .loopback(hasRelays: false)
        let events = (0..<100).flatMap { settings.plan.events(ofRound: $0) }
        #expect(!events.contains { $0.fault.means != .signals })
    }

    @Test func `on hosts of their own, hosts lose each other, and some links do harm`() {
        var settings = settings
        settings.network = .namespaces(hasNetem: false)
        let events = (0..<400).flatMap { settings.plan.events(ofRound: $0) }
        #expect(Set(events.map(\.fault)) == Set(ChaosFault.allCases).subtracting([.delay]))
        for event in events {
            let isBetween = event.fault == .partition || event.fault == .oneWay
            #expect((event.peer != nil) == isBetween && event.peer != event.target)
            #expect(event.fault.means != .relay || settings.relayed.contains(event.target))
            #expect(event.fault != .linkDown || event.target.role != .gateway)
        }
        settings.network = .namespaces(hasNetem: true)
        let others = (0..<400).flatMap { settings.plan.events(ofRound: $0) }
        #expect(others.contains { $0.fault == .delay })
    }

    @Test func `questions are the same for the same seed`() {
        #expect(Set(ChaosQuestion.some(24, seed: 1).map(\.isStreamed)) == [true, false])
        #expect(ChaosQuestion.some(24, seed: 1) == ChaosQuestion.some(24, seed: 1))
    }

    // MARK: Answers

    @Test func `a stream without its end mark is broken off, one with an error failed`() {
        let piece = #"data: {"choices":[{"index":0,"text":"a","finish_reason":null}]}"#
        var answer = ChaosAnswer()
        let cut = answer.readStream(Array("\(piece)\n\n\(piece)\n\n".utf8))
        guard case .brokenOff? = cut else {
            Issue.record("\(String(describing: cut))")
            return
        }
        let error = #"data: {"error":{"message":"lost"}}"#
        let wrong = answer.readStream(Array("\(piece)\n\n\(error)\n\ndata: [DONE]\n\n".utf8))
        guard case .failed? = wrong else {
            Issue.record("\(String(describing: wrong))")
            return
        }
        var whole = ChaosAnswer()
        #expect(whole.readStream(Array("\(piece)\n\n\(piece)\n\ndata: [DONE]\n\n".utf8)) == nil)
        #expect(whole.choices[0]?.text == "aa")
    }

    @Test func `altered and lost answers are violations, those of a killed gateway are not`() {
        let question = ChaosQuestion.some(1, seed: 1)[0]
        var right = ChaosAnswer()
        right.choices[0] = ChaosAnswer.Choice(text: "right", finish: "length")
        var wrong = right
        wrong.choices[0]?.text = "wrong"
        var results = ChaosResults(settings: settings, facts: [])
        func take(_ outcome: ChaosOutcome, gatewayIsGone: Bool = false) -> Bool {
            results.take(outcome, right, of: question, gatewayIsGone: gatewayIsGone)
        }
        #expect(take(.answered(right, longestGap: nil)))
        #expect(!take(.refused))
        #expect(!take(.unreached, gatewayIsGone: true))
        #expect(!take(.brokenOff("end"), gatewayIsGone: true))
        #expect(results.violations == 0)
        #expect(!take(.brokenOff("end")))
        #expect(take(.answered(wrong, longestGap: nil)))
        #expect(results.violations == 2)
        #expect(!take(.unreached))
        #expect(results.violations == 3)
        let words = results.report.text
        #expect(words.contains("choice 0 differs from byte 0 of 5"))
    }
}
