import Foundation
import ServingTypes

/// Sends completion requests with token ids over one connection and times the answers.
struct CompletionClient: Sendable {
    static let path = "/v1/completions"

    private struct Chunk: Decodable {
        struct Choice: Decodable {
            var finish_reason: String?
        }
        var choices: [Choice]
    }

    let connection: TimedConnection

    /// - Parameter token: what every token of the answer is to be; nil: what the model says.
    static func body(
        _ prompt: [TokenID], newTokens: Int, isStreamed: Bool, always token: TokenID? = nil
    ) -> [UInt8] {
        let tokens = prompt.map(String.init).joined(separator: ",")
        let bias = token.map { ",\"logit_bias\":{\"\($0)\":100}" } ?? ""
        return Array(
            """
            {"prompt":[\(tokens)],"max_tokens":\(newTokens),"temperature":0,\
            "ignore_eos":true,"stream":\(isStreamed)\(bias)}
            """.utf8)
    }

    /// One request whose tokens come as they are made.
    ///
    /// A token without text of its own, such as half a character, comes with the next one; `second`
    /// is of use only if the first two tokens have text. Times of a model that makes no sense are
    /// of use with `always` only.
    func stream(
        _ prompt: [TokenID], newTokens: Int, always token: TokenID? = nil
    ) async throws -> TokenTimes {
        let body = Self.body(prompt, newTokens: newTokens, isStreamed: true, always: token)
        let answer = try await connection.call("POST", Self.path, body: body)
        guard answer.status == 200 else { throw Self.unexpected(answer) }
        var times = TokenTimes()
        times.tokenCount = newTokens
        times.total = answer.total
        var pieces = 0
        for (data, time) in answer.events where data.first == UInt8(ascii: "{") {
            let chunk = try? JSONDecoder().decode(Chunk.self, from: Data(data))
            guard let choice = chunk?.choices.first else { throw Self.unexpected(answer) }
            times.last = time
            if choice.finish_reason != nil { return times.ended(pieces: pieces, at: time) }
            pieces += 1
            if pieces == 1 { times.first = time }
            if pieces == 2 { times.second = time }
        }
        throw Self.unexpected(answer)
    }

    /// One request that is answered at once; gives the time of the whole answer.
    func complete(_ prompt: [TokenID], newTokens: Int) async throws -> Duration {
        let body = Self.body(prompt, newTokens: newTokens, isStreamed: false)
        let answer = try await connection.call("POST", Self.path, body: body)
        guard answer.status == 200 else { throw Self.unexpected(answer) }
        return answer.total
    }

    static func unexpected(_ answer: TimedAnswer) -> MeasurementError {
        .unexpectedAnswer(
            status: answer.status,
            body: String(decoding: answer.body.suffix(300), as: UTF8.self))
    }
}

extension TokenTimes {
    fileprivate func ended(pieces: Int, at time: Duration) -> TokenTimes {
        var times = self
        if pieces == 0 { times.first = time }
        return times
    }
}

/// Prompts cut from one text, the same in every run.
struct PromptSource: Sendable {
    private let tokens: [TokenID]

    /// - Parameter tokenize: tokens of a text, without any added.
    init(_ tokenize: (String) -> [TokenID]) { tokens = tokenize(Self.text) }

    /// A prompt of this many tokens; other numbers give prompts with another beginning.
    func prompt(tokens count: Int, number: Int) -> [TokenID] {
        let start = number * 7
        return (start..<start + count).map { tokens[$0 % tokens.count] }
    }

    private static let text = """
        A function that yields values one at a time is called a generator. Each call of next runs \
        the body until the following yield, which suspends it and keeps its local variables, so a \
        long sequence needs no list in memory. When the body returns, the caller sees the end of \
        the iteration. Files are opened with a mode that says whether they are read or written; \
        the with statement closes them even if an exception is raised. A dictionary maps keys to \
        values and remembers the order in which keys were added. Two sets can be united, \
        intersected and subtracted. Modules are found along a path of folders, loaded once, and \
        kept in a table by name. A class may inherit from several others; methods are looked up \
        from left to right. Threads share memory and need locks, processes share nothing and send \
        messages. Numbers with a fraction are rounded to the nearest value that the machine can \
        hold, which is why a tenth added ten times is not quite one.
        """
}
