import Foundation
import HTTPClient
import ServingTypes

/// A request whose answer is the same each time it is asked.
struct ChaosQuestion: Hashable, Sendable {
    static let path = "/v1/completions"

    var prompt: String
    var newTokens: Int
    var seed: Int
    var isGreedy: Bool
    var choices: Int
    var isStreamed: Bool
    var hasLogprobs: Bool
    var stop: String?

    /// Questions of all kinds: greedy and sampled, one choice and several, streamed and whole, with
    /// log-probabilities and with a stop string.
    static func some(_ count: Int, seed: UInt64) -> [ChaosQuestion] {
        var numbers = SeededGenerator(seed: seed)
        return (0..<count).map { index in
            let letters = (0..<Int.random(in: 8...1500, using: &numbers)).map { _ in
                UInt8(ascii: "a") + UInt8.random(in: 0..<26, using: &numbers)
            }
            return ChaosQuestion(
                prompt: String(decoding: letters, as: UTF8.self),
                newTokens: .random(in: 20...300, using: &numbers),
                seed: .random(in: 1...1_000_000, using: &numbers),
                isGreedy: index.isMultiple(of: 2),
                choices: index % 5 == 4 ? 2 : 1, isStreamed: index % 4 != 3,
                hasLogprobs: index % 3 == 2,
                // Printable, so that a text of random bytes has it sooner or later.
                stop: index % 6 == 5
                    ? String(UnicodeScalar(UInt8.random(in: 33...126, using: &numbers))) : nil)
        }
    }

    var body: [UInt8] {
        var fields: [String: Any] = [
            "prompt": prompt, "max_tokens": newTokens, "n": choices, "stream": isStreamed,
            "ignore_eos": true, "temperature": isGreedy ? 0 : 0.9, "seed": seed,
        ]
        if hasLogprobs { fields["logprobs"] = 1 }
        if let stop { fields["stop"] = [stop] }
        if isStreamed { fields["stream_options"] = ["include_usage": true] }
        return (try? JSONSerialization.data(withJSONObject: fields)).map(Array.init) ?? []
    }

    /// Asks once and tells what came of it; nothing is thrown but a cancellation.
    func ask(_ gateway: NetworkAddress, within deadline: Duration) async throws -> ChaosOutcome {
        try await withThrowingTaskGroup(of: ChaosOutcome.self) { group in
            group.addTask { try await send(to: gateway) }
            group.addTask {
                try await Task.sleep(for: deadline)
                return .brokenOff("no end within \(deadline)")
            }
            defer { group.cancelAll() }
            return try await group.next() ?? .brokenOff("no answer")
        }
    }

    private func send(to gateway: NetworkAddress) async throws -> ChaosOutcome {
        let call = HTTPCall(
            "POST", gateway, Self.path, headers: ["content-type": "application/json"], body: body)
        var bytes: [UInt8] = []
        var last = ContinuousClock.now
        var first: ContinuousClock.Instant?
        var gap = Duration.zero
        do {
            let head = try await call.stream { _, chunk in
                bytes += chunk
                let now = ContinuousClock.now
                if first == nil { first = now } else { gap = max(gap, now - last) }
                last = now
            }
            guard head.status == 200 else {
                let words = String(decoding: bytes.prefix(300), as: UTF8.self)
                return head.status == 429 || head.status == 503
                    ? .refused : .failed("status \(head.status): \(words)")
            }
        } catch HTTPCallError.notReached {
            return .unreached
        } catch {
            try Task.checkCancellation()
            return .brokenOff("\(error)")
        }
        var answer = ChaosAnswer()
        if let problem = isStreamed ? answer.readStream(bytes) : answer.readWhole(bytes) {
            return problem
        }
        return .answered(answer, longestGap: isStreamed ? gap : nil)
    }
}

/// What came of a request.
enum ChaosOutcome: Sendable {
    /// - longestGap: longest time between two pieces of a stream.
    case answered(ChaosAnswer, longestGap: Duration?)
    /// 429 or 503: ask again.
    case refused
    /// The gateway is down: ask another.
    case unreached
    /// An error in place of an answer, or at its end.
    case failed(String)
    /// It ended without a word, or not at all.
    case brokenOff(String)
}

/// Everything of an answer that must be the same each time.
struct ChaosAnswer: Hashable, Sendable {
    struct Choice: Hashable, Sendable {
        var text = ""
        var finish = ""
        var logprobTokens: [String] = []
    }

    var choices: [Int: Choice] = [:]
    var promptTokens = 0
    var completionTokens = 0

    /// Gives what is wrong with it, if anything.
    mutating func readStream(_ bytes: [UInt8]) -> ChaosOutcome? {
        let events = String(decoding: bytes, as: UTF8.self).components(separatedBy: "\n\n")
            .filter { !$0.isEmpty }
        for event in events.dropLast() {
            let data = event.dropFirst("data: ".count)
            if data.hasPrefix("{\"error\"") { return .failed(String(data.prefix(300))) }
            guard read(Data(data.utf8)) else { return .brokenOff("not an event: \(data)") }
        }
        return events.last == "data: [DONE]" ? nil : .brokenOff("the stream has no end mark")
    }

    mutating func readWhole(_ bytes: [UInt8]) -> ChaosOutcome? {
        read(Data(bytes)) ? nil : .brokenOff("not JSON: \(bytes.count) bytes")
    }

    private mutating func read(_ data: Data) -> Bool {
        guard let object = try? JSONSerialization.jsonObject(with: data) as? [String: Any] else {
            return false
        }
        for entry in object["choices"] as? [[String: Any]] ?? [] {
            let index = entry["index"] as? Int ?? 0
            choices[index, default: Choice()].text += entry["text"] as? String ?? ""
            if let finish = entry["finish_reason"] as? String { choices[index]?.finish = finish }
            let logprobs = entry["logprobs"] as? [String: Any]
            choices[index]?.logprobTokens += logprobs?["tokens"] as? [String] ?? []
        }
        if let usage = object["usage"] as? [String: Any] {
            promptTokens = usage["prompt_tokens"] as? Int ?? 0
            completionTokens = usage["completion_tokens"] as? Int ?? 0
        }
        return true
    }
}
