import LlamaEngine
package import ServingTypes
import Synchronization

/// Requests sent to a running cluster at given times, whatever becomes of those before.
package final class OpenLoad: Sendable {
    /// One request of it.
    package struct Request: Sendable, Hashable {
        /// After the beginning.
        package var seconds: Double
        package var promptTokens: Int
        package var newTokens: Int

        package init(seconds: Double, promptTokens: Int, newTokens: Int) {
            self.seconds = seconds
            self.promptTokens = promptTokens
            self.newTokens = newTokens
        }
    }

    /// What its client saw; times in seconds.
    package struct Answer: Sendable, Hashable {
        package var request: Request
        package var ttft: Double
        /// Until the second token; nil for answers of one.
        package var second: Double?
        /// Until the last token.
        package var endToEnd: Double
        /// Mean time between tokens.
        package var tpot: Double?
    }

    private let source: PromptSource
    /// All answers consist of it, so that each token has text, whatever the model.
    private let token: TokenID?
    private let address: NetworkAddress
    private let idle = Mutex<[TimedConnection]>([])
    private let answers = Mutex<[Answer]>([])
    private let numbers = Mutex(0)

    /// - Parameter modelPath: the model whose vocabulary prompts are made of.
    package init(modelPath: String, address: NetworkAddress) throws {
        let tokenizer = try LlamaTokenizer(modelPath: modelPath)
        source = PromptSource {
            tokenizer.tokenize($0, addsSpecial: false, parsesSpecial: false)
        }
        token = tokenizer.tokenize("at the end", addsSpecial: false, parsesSpecial: false).last
        self.address = address
    }

    /// What was answered so far.
    package var answered: [Answer] { answers.withLock { $0 } }

    /// Sends all of them and waits for all answers.
    ///
    /// - Throws: at the first request that is not answered whole.
    package func send(_ requests: [Request]) async throws {
        let begin = ContinuousClock.now
        try await withThrowingTaskGroup(of: Void.self) { group in
            for request in requests {
                try await Task.sleep(until: begin + .seconds(request.seconds))
                group.addTask { _ = try await self.ask(request) }
            }
            try await group.waitForAll()
        }
    }

    /// Sends one; takes it down, too.
    package func ask(_ request: Request) async throws -> Answer {
        let number = numbers.withLock { number in
            number += 1
            return number
        }
        let prompt = source.prompt(tokens: request.promptTokens, number: number)
        let connection = try await connection()
        let times = try await CompletionClient(connection: connection)
            .stream(prompt, newTokens: request.newTokens, always: token)
        idle.withLock { $0.append(connection) }
        let answer = Answer(
            request: request, ttft: times.first.seconds, second: times.second?.seconds,
            endToEnd: times.last.seconds, tpot: times.timePerToken?.seconds)
        answers.withLock { $0.append(answer) }
        return answer
    }

    private func connection() async throws -> TimedConnection {
        if let known = idle.withLock({ $0.popLast() }) { return known }
        return try await TimedConnection(to: address)
    }

    /// Closes its connections.
    package func end() async {
        let all = idle.withLock { idle in
            defer { idle = [] }
            return idle
        }
        for connection in all { await connection.close() }
    }
}
