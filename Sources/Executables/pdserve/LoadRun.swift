import Foundation
import HTTPClient
import ServingTypes

/// A question with one right answer.
struct LoadQuestion: Encodable {
    static let path = "/v1/completions"
    /// Different ones, so that prompts differ in length and beginning.
    static let count = 12

    var prompt: String
    var max_tokens: Int
    var temperature = 0.0
    var stream = true
    var ignore_eos = true

    init(number: Int, maxTokens: Int) {
        let subject = ["lists", "files", "classes", "numbers"][number % 4]
        let more = String(
            repeating: "A function that yields values one at a time is called a generator. ",
            count: number % Self.count)
        prompt = "\(number % Self.count): \(more)Tell about \(subject)."
        max_tokens = maxTokens
    }
}

/// What clients saw.
struct LoadReport {
    /// Kinds of failure that are told apart; further ones are only counted.
    static let mostKinds = 20

    var answers = 0
    var refusals = 0
    var failures = 0
    /// Answers unlike the first one to the same question.
    var differing = 0
    var longestGap = Duration.zero
    var slowestFirst = Duration.zero
    var slowest = Duration.zero
    var firstAnswers: [Int: String] = [:]
    var reasons: [String: Int] = [:]

    mutating func fail(_ reason: String) {
        failures += 1
        if reasons[reason] != nil || reasons.count < Self.mostKinds {
            reasons[reason, default: 0] += 1
        }
    }

    mutating func compare(_ answer: String, question: Int) {
        if firstAnswers[question, default: answer] != answer { differing += 1 }
        firstAnswers[question] = firstAnswers[question] ?? answer
    }

    mutating func add(_ other: LoadReport) {
        answers += other.answers
        refusals += other.refusals
        failures += other.failures
        differing += other.differing
        longestGap = max(longestGap, other.longestGap)
        slowestFirst = max(slowestFirst, other.slowestFirst)
        slowest = max(slowest, other.slowest)
        for (question, answer) in other.firstAnswers { compare(answer, question: question) }
        for (reason, count) in other.reasons { reasons[reason, default: 0] += count }
    }

    func text(after time: Duration) -> String {
        let lines = [
            "answers \(answers), refused \(refusals), failed \(failures), differing \(differing) "
                + "in \(Self.seconds(time)); "
                + "slowest first token \(Self.seconds(slowestFirst)), "
                + "longest pause in an answer \(Self.seconds(longestGap)), "
                + "slowest answer \(Self.seconds(slowest))"
        ]
        let more = reasons.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            .map { "  \($0.value) × \($0.key)" }
        return (lines + more).joined(separator: "\n")
    }

    private static func seconds(_ time: Duration) -> String {
        String(format: "%.2f s", time / .seconds(1))
    }
}

/// One client's questions, one after the other.
struct LoadRun {
    /// After a refusal, or when the gateway can't be reached.
    static let pause: Duration = .seconds(1)

    let address: NetworkAddress
    let maxTokens: Int
    let deadline: Duration
    let apiKey: String?
    let end: ContinuousClock.Instant

    private enum Outcome {
        case answered(String, first: Duration, gap: Duration)
        case refused
        case failed(String)
    }

    func ask(as client: Int) async -> LoadReport {
        var report = LoadReport()
        var number = client
        while ContinuousClock.now < end {
            let start = ContinuousClock.now
            let outcome = await answer(to: number)
            let time = ContinuousClock.now - start
            switch outcome {
            case .answered(let text, let first, let gap):
                report.answers += 1
                report.slowestFirst = max(report.slowestFirst, first)
                report.longestGap = max(report.longestGap, gap)
                report.slowest = max(report.slowest, time)
                report.compare(text, question: number % LoadQuestion.count)
            case .refused: report.refusals += 1
            case .failed(let reason): report.fail(reason)
            }
            if case .answered = outcome {
                number += 1
            } else {
                guard (try? await Task.sleep(for: Self.pause)) != nil else { return report }
            }
        }
        return report
    }

    private func answer(to number: Int) async -> Outcome {
        await withTaskGroup(of: Outcome.self) { group in
            group.addTask { await send(number) }
            group.addTask {
                try? await Task.sleep(for: deadline)
                return .failed("no end within \(deadline)")
            }
            defer { group.cancelAll() }
            return await group.next() ?? .failed("no answer")
        }
    }

    private func send(_ number: Int) async -> Outcome {
        let start = ContinuousClock.now
        var last = start
        var first: Duration?
        var gap = Duration.zero
        var events = ServerSentEvents()
        var reading = LoadReading()
        do {
            var headers = ["content-type": "application/json"]
            if let apiKey { headers["authorization"] = "Bearer \(apiKey)" }
            let question = LoadQuestion(number: number, maxTokens: maxTokens)
            let head = try await HTTPCall(
                "POST", address, LoadQuestion.path, headers: headers,
                body: Array(try JSONEncoder().encode(question))
            ).stream { head, bytes in
                guard head.status == 200 else { return reading.addError(bytes) }
                let now = ContinuousClock.now
                if first == nil { first = now - start } else { gap = max(gap, now - last) }
                last = now
                for event in events.add(bytes) { reading.add(event) }
            }
            if [429, 503].contains(head.status) { return .refused }
            if let problem = reading.problem(status: head.status) { return .failed(problem) }
            return .answered(reading.text, first: first ?? .zero, gap: gap)
        } catch HTTPCallError.notReached {
            return .failed("the gateway can't be reached")
        } catch HTTPCallError.noAnswer {
            return .failed(first == nil ? "no answer" : "the answer broke off")
        } catch {
            return .failed("\(error)")
        }
    }
}

/// An answer as it comes in, and what is wrong with it.
struct LoadReading {
    private struct Chunk: Decodable {
        struct Choice: Decodable {
            var text: String?
            var finish_reason: String?
        }
        struct Failure: Decodable { var message: String }
        var choices: [Choice]?
        var error: Failure?
    }

    private static let maximumErrorBytes = 300

    private(set) var text = ""
    private var error: String?
    private var errorBytes: [UInt8] = []
    private var isFinished = false
    private var hasEndMark = false

    mutating func add(_ event: Data) {
        if event == Data("[DONE]".utf8) { return hasEndMark = true }
        guard let chunk = try? JSONDecoder().decode(Chunk.self, from: event) else {
            return error = "an event is not JSON"
        }
        error = chunk.error?.message ?? error
        text += chunk.choices?.first?.text ?? ""
        if chunk.choices?.first?.finish_reason != nil { isFinished = true }
    }

    mutating func addError(_ bytes: [UInt8]) {
        errorBytes += bytes.prefix(max(0, Self.maximumErrorBytes - errorBytes.count))
    }

    func problem(status: Int) -> String? {
        guard status == 200 else {
            return "status \(status): \(String(decoding: errorBytes, as: UTF8.self))"
        }
        if let error { return error }
        if !isFinished { return "the answer has no end" }
        return hasEndMark ? nil : "the stream has no end mark"
    }
}
