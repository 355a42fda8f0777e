import Foundation
import HTTPClient
import LocalCluster
import ServingTypes
import Synchronization
import Testing

/// Upgrades as a person makes and watches them: by `pdserve`.
extension TestCluster {
    struct ShownWorker: Equatable {
        var worker: String
        var role: String
        var group: String
    }

    /// What became of streams that ran one after the other in many places.
    struct Load {
        var answered = 0
        var lost: [String] = []
    }

    func pdserve(_ command: String, _ arguments: [String]) async throws -> String {
        let scheduler = try #require(cluster.schedulerAddress)
        let process = Process()
        process.executableURL = Self.executables.appending(path: "pdserve")
        process.arguments =
            [command] + arguments + [
                "--scheduler", scheduler.description, "--cluster", cluster.settings.cluster,
                "--certificates", cluster.settings.folder.appending(path: "certificates").path,
            ]
        let output = cluster.settings.folder.appending(
            path: "pdserve-\(UInt32.random(in: 0 ... .max)).out")
        _ = FileManager.default.createFile(atPath: output.path, contents: nil)
        let file = try FileHandle(forWritingTo: output)
        defer { try? file.close() }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = file
        process.standardError = file
        try process.run()
        while process.isRunning { try await Task.sleep(for: .milliseconds(10)) }
        let text = (try? String(contentsOf: output, encoding: .utf8)) ?? ""
        guard process.terminationStatus == 0 else {
            throw TestFailure("pdserve \(command) ended with \(process.terminationStatus): \(text)")
        }
        return text
    }

    @discardableResult
    func upgrade(_ arguments: String...) async throws -> String {
        try await pdserve("upgrade", arguments)
    }

    private func upgradeLine() async throws -> String {
        let lines = try await pdserve("status", []).split(separator: "\n")
        return lines.last { $0.hasPrefix("upgrade: ") }.map(String.init) ?? ""
    }

    /// Waits until the upgrade's line has one of the words.
    @discardableResult
    func waitForUpgrade(_ words: String...) async throws -> String {
        let end = ContinuousClock.now + .seconds(150)
        var line = ""
        while ContinuousClock.now < end {
            line = try await upgradeLine()
            if words.contains(where: { line.contains($0) }) { return line }
            try await Task.sleep(for: .milliseconds(100))
        }
        let decisions = try await pdserve("status", ["--why"])
        throw TestFailure("after 150 s: \(line), not \(words)\n\(decisions)")
    }

    /// The first worker that has left for its new model.
    func firstMover() async throws -> String {
        let end = ContinuousClock.now + .seconds(30)
        while ContinuousClock.now < end {
            let line = try await upgradeLine()
            if let way = line.range(of: " on the way"), let start = line.range(of: "; ") {
                return line[start.upperBound..<way.lowerBound]
                    .split(separator: ",").first.map(String.init) ?? ""
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        throw TestFailure("nobody leaves")
    }

    func members() async throws -> [ShownWorker] {
        try await pdserve("status", []).split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ", omittingEmptySubsequences: true)
            guard fields.count > 4, fields[0].contains("-worker-") else { return nil }
            return ShownWorker(
                worker: String(fields[0]), role: String(fields[1]), group: String(fields[3]))
        }
    }

    /// Waits until so many workers are shown with a group.
    func members(_ count: Int) async throws -> [ShownWorker] {
        let end = ContinuousClock.now + .seconds(20)
        while true {
            let members = try await members()
            if members.count == count, members.allSatisfy({ $0.group.contains("/") }) {
                return members
            }
            guard ContinuousClock.now < end else {
                throw TestFailure("not \(count) workers with a group: \(members)")
            }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    /// Waits until everybody does what it did before.
    func waitForMembers(_ wanted: [ShownWorker]) async throws {
        let end = ContinuousClock.now + .seconds(20)
        while try await members() != wanted {
            guard ContinuousClock.now < end else {
                throw TestFailure("after 20 s: \(try await members()), not \(wanted)")
            }
            try await Task.sleep(for: .milliseconds(100))
        }
    }

    func printMoves() async throws {
        for line in try await pdserve("status", ["--why"]).split(separator: "\n")
        where line.contains("has the model of") {
            print(line)
        }
    }

    /// The text of one greedy answer.
    func greedy() async throws -> String {
        let answer = try await post(
            "/v1/completions",
            #"{"prompt": "The module os", "max_tokens": 24, "temperature": 0}"#)
        return try #require(answer.json["choices"][0]["text"].string)
    }

    /// Fifty streams at once, again and again, until the body has ended.
    ///
    /// The same prompt and seed always give the same text, whoever writes it.
    func load(streams: Int = 50, while body: () async throws -> Void) async throws -> Load {
        let record = LoadRecord()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<streams {
                group.addTask {
                    while !record.isOver {
                        do {
                            record.answered(number, try await self.text(ofStream: number))
                        } catch {
                            record.lost("\(error)")
                        }
                    }
                }
            }
            defer { record.end() }
            try await Task.sleep(for: .seconds(1))
            try await body()
            record.end()
            try await group.waitForAll()
        }
        return record.load
    }

    private func text(ofStream number: Int) async throws -> String {
        let prompt = "stream \(number): " + String(repeating: "word ", count: 20)
        let events = try await stream(
            "/v1/completions",
            #"{"prompt": "\#(prompt)", "max_tokens": 120, "seed": 1, "stream": true}"#)
        guard events.last == "[DONE]" else {
            throw TestFailure("a stream ends with \(events.last ?? "nothing")")
        }
        return try events.dropLast().map {
            try JSONValue(text: $0)["choices"][0]["text"].string ?? ""
        }.joined()
    }
}

/// Notes of many streams.
private final class LoadRecord: Sendable {
    private struct State {
        var load = TestCluster.Load()
        var texts: [Int: String] = [:]
        var isOver = false
    }

    private let state = Mutex(State())

    var isOver: Bool { state.withLock { $0.isOver } }
    var load: TestCluster.Load { state.withLock { $0.load } }

    func end() { state.withLock { $0.isOver = true } }
    func lost(_ reason: String) { state.withLock { $0.load.lost.append(reason) } }

    func answered(_ number: Int, _ text: String) {
        state.withLock { state in
            state.load.answered += 1
            let expected = state.texts[number] ?? text
            state.texts[number] = expected
            if text != expected { state.load.lost.append("other text: \(text)") }
        }
    }
}
