import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// Workers that die, or stand still, while KV goes from one to the other.
@Suite(.serialized) struct KVLossTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var engine: String
        var signal: Int32
        var localFolder: String?

        var testDescription: String {
            "\(engine), signal \(signal), \(localFolder ?? "memory")"
        }

        var arguments: [String] { localFolder.map { ["--local-folder", $0] } ?? [] }
        /// Some 1500 tokens, so that the KV takes a few chunks.
        var promptCharacters: Int { engine == "llama" ? 4400 : 1500 }
    }

    private static let isLong = ProcessInfo.processInfo.environment["KV_FAULTS"] == "long"
    private static let answerTokens = 24
    private static let moments: [Duration] =
        (isLong ? [20, 60, 120, 200, 300, 450, 700, 1000] : [150]).map { .milliseconds($0) }
    private static let cases =
        [
            Case(engine: "llama", signal: SIGKILL, localFolder: "none"),
            Case(engine: "simulated", signal: SIGSTOP, localFolder: nil),
        ]
        + (isLong
            ? [
                Case(engine: "llama", signal: SIGSTOP, localFolder: nil),
                Case(engine: "simulated", signal: SIGKILL, localFolder: "none"),
            ] : [])

    /// The same request each time.
    private static func body(_ one: Case) throws -> String {
        let text = try String(
            contentsOf: TestCluster.root.appending(path: "ARCHITECTURE.md"), encoding: .utf8)
        let prose = text.components(separatedBy: "\n\n").dropFirst().joined(separator: " ")
        let prompt = prose.filter { $0.isLetter || $0 == " " || $0 == "." || $0 == "," }
        return #"{"prompt":"\#(prompt.prefix(one.promptCharacters))","max_tokens":"#
            + #"\#(answerTokens),"temperature":0,"seed":5,"ignore_eos":true}"#
    }

    @Test(arguments: cases)
    func `requests outlive a worker that is lost while their KV travels`(
        one: Case
    ) async throws {
        try await TestCluster.run(
            prefill: 2, decode: 2, engine: one.engine,
            arguments: [.prefillWorker: one.arguments, .decodeWorker: one.arguments]
        ) { cluster in
            let body = try Self.body(one)
            let whole = try await cluster.post("/v1/completions", body).json
            let tokens = try #require(whole["usage"]["prompt_tokens"].int)
            #expect((1200...1900).contains(tokens), "\(tokens) tokens")
            // A model's tokens also depend, in near-ties, on what is computed beside them.
            let text = one.engine == "simulated" ? whole["choices"][0]["text"].string : nil
            for role in [Role.prefillWorker, .decodeWorker] {
                for moment in Self.moments {
                    try await lose(role, by: one.signal, after: moment, (body, text), cluster)
                }
            }
        }
    }

    /// Loses a worker while requests are under way, sees them answered and starts it again.
    private func lose(
        _ role: Role, by signal: Int32, after moment: Duration,
        _ sample: (body: String, text: String?), _ cluster: TestCluster
    ) async throws {
        let name = "\(role.name) by \(signal) after \(moment)"
        let lost = try #require(
            cluster.cluster.processes(of: role).first { $0.name == "\(role.name)-1" })
        let started = ContinuousClock.now
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<3 {
                group.addTask {
                    let (status, answer) = try await cluster.post(
                        "/v1/completions", sample.body)
                    #expect(status == 200, "\(name): \(answer)")
                    #expect(
                        answer["usage"]["completion_tokens"].int == Self.answerTokens, "\(name)")
                    guard let text = sample.text else { return }
                    #expect(answer["choices"][0]["text"].string == text, "\(name)")
                }
            }
            try await Task.sleep(for: moment)
            lost.signal(signal)
            try await group.waitForAll()
        }
        #expect(ContinuousClock.now - started < .seconds(30), "\(name)")
        try await checkFree(cluster, but: lost)
        lost.signal(SIGKILL)
        await lost.waitUntilExit(within: .seconds(5))
        try await cluster.cluster.startWorker(role, number: 1)
        try await checkFree(cluster, but: nil)
    }

    /// Waits until the workers that are left hold nothing.
    private func checkFree(_ cluster: TestCluster, but lost: ManagedProcess?) async throws {
        for worker in cluster.cluster.processes(of: .prefillWorker) where worker !== lost {
            for name in ["held_bytes", "stranded_transfers", "stranded_bytes"] {
                try await cluster.wait(for: "prefill_kv_\(name)", of: worker, toBe: 0)
            }
            try await cluster.wait(for: "prefill_free_slots", of: worker, toBe: 4)
        }
        for worker in cluster.cluster.processes(of: .decodeWorker) where worker !== lost {
            for name in ["reserved_bytes", "landed_bytes", "stranded_transfers", "stranded_bytes"] {
                try await cluster.wait(for: "decode_kv_\(name)", of: worker, toBe: 0)
            }
        }
    }
}
