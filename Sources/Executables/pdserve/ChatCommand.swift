import ArgumentParser
import Foundation
import HTTPClient
import ServingTypes

/// Talks to a gateway in the terminal.
struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat",
        abstract: "Send a message to a gateway, or talk to it line by line.")

    @Option(help: "Address of the gateway.")
    var gateway = "127.0.0.1:8080"

    @Option(help: "Sampling temperature.")
    var temperature = 0.6

    @Option(help: "Repeat penalty.")
    var repeatPenalty = 1.15

    @Option(help: "Most tokens in one answer.")
    var maxTokens = 256

    @Argument(help: "The message; without it lines are read from the terminal.")
    var message: [String] = []

    func run() async throws {
        let target = try HTTPTarget(gateway, defaultPath: "/v1/chat/completions")
        var session = ChatSession(
            address: target.address, temperature: temperature, repeatPenalty: repeatPenalty,
            maxTokens: maxTokens)
        guard message.isEmpty else {
            try await session.say(message.joined(separator: " "))
            return
        }
        write("Write a line and press return; an empty line ends.")
        while let line = readLine(), !line.isEmpty { try await session.say(line) }
    }
}

/// One conversation with a gateway.
struct ChatSession {
    struct Message: Codable {
        var role: String
        var content: String
    }

    private struct Request: Encodable {
        var messages: [Message]
        var stream = true
        var temperature: Double
        var repeat_penalty: Double
        var max_tokens: Int
    }

    private struct Chunk: Decodable {
        struct Choice: Decodable {
            struct Delta: Decodable { var content: String? }
            var delta: Delta
        }
        struct Failure: Decodable { var message: String }
        var choices: [Choice]?
        var error: Failure?
    }

    let address: NetworkAddress
    var temperature: Double
    var repeatPenalty: Double
    var maxTokens: Int
    private var messages: [Message] = []

    init(address: NetworkAddress, temperature: Double, repeatPenalty: Double, maxTokens: Int) {
        self.address = address
        self.temperature = temperature
        self.repeatPenalty = repeatPenalty
        self.maxTokens = maxTokens
    }

    /// Sends a message and prints the answer as it comes.
    mutating func say(_ text: String) async throws {
        messages.append(Message(role: "user", content: text))
        let body = try JSONEncoder().encode(
            Request(
                messages: messages, temperature: temperature, repeat_penalty: repeatPenalty,
                max_tokens: maxTokens))
        var events = ServerSentEvents()
        var answer = ""
        var failure: String?
        try await HTTPCall(
            "POST", address, "/v1/chat/completions",
            headers: ["content-type": "application/json"], body: Array(body)
        ).stream { head, bytes in
            let pieces = head.status == 200 ? events.add(bytes) : [Data(bytes)]
            for data in pieces where data != Data("[DONE]".utf8) {
                let chunk = try JSONDecoder().decode(Chunk.self, from: data)
                failure = chunk.error?.message ?? failure
                let content = chunk.choices?.first?.delta.content ?? ""
                answer += content
                write(content, terminator: "")
            }
        }
        write("")
        if let failure { throw ChatFailure(message: failure) }
        messages.append(Message(role: "assistant", content: answer))
    }
}

/// The gateway's own words on why it gave no answer.
struct ChatFailure: Error, CustomStringConvertible {
    var message: String
    var description: String { "the gateway answers: \(message)" }
}

/// Cuts a byte stream into the data of its events.
struct ServerSentEvents {
    private var buffer: [UInt8] = []

    mutating func add(_ bytes: [UInt8]) -> [Data] {
        buffer += bytes
        var events: [Data] = []
        while let end = buffer.firstRange(of: [10, 10]) {
            let event = buffer[..<end.lowerBound]
            let prefix = Array("data: ".utf8)
            if event.starts(with: prefix) { events.append(Data(event.dropFirst(prefix.count))) }
            buffer.removeSubrange(..<end.upperBound)
        }
        return events
    }
}
