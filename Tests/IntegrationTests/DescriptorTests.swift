import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// Real processes that may open few files, and peers that take them all.
@Suite(.serialized) struct DescriptorTests {
    private static let limit = 100
    private static let completion = #"{"prompt":"Lists are","max_tokens":4}"#

    /// Takes more connections than the process has files, sees that it neither dies nor spins, and
    /// lets go.
    private func flood(
        _ process: ManagedProcess, _ address: NetworkAddress?, _ cluster: TestCluster,
        expects report: String?
    ) async throws {
        let address = try #require(address)
        let before = process.openFileCount
        let sockets = RawSockets(2 * Self.limit, to: address)
        #expect(sockets.files.count == 2 * Self.limit)
        try await awaited("it takes what it can") { process.openFileCount > before + 5 }
        // Long enough for libdispatch to look at its threads, which needs a file.
        let used = process.processorSeconds
        try await Task.sleep(for: .milliseconds(1200))
        let seconds = process.processorSeconds - used
        #expect(seconds < 0.7, "\(process.name) spins at \(address): \(seconds) s")
        #expect(process.isRunning)
        #expect(process.openFileCount < Self.limit, "none is left for anything else")
        if let report {
            try await awaited("\(process.name) says why") {
                process.logTail(lines: 10_000).contains(report)
            }
        }
        if process.role != .gateway {
            #expect(try await cluster.post("/v1/completions", Self.completion).status == 200)
        }
        sockets.end()
        try await awaited("the files are free again") { process.openFileCount <= before + 3 }
        try await awaited("it serves again") {
            let answer = try? await cluster.post("/v1/completions", Self.completion)
            return answer?.status == 200
        }
    }

    @Test func `processes without free files go on, say so, and come back`() async throws {
        let few = ["/usr/bin/prlimit", "--nofile=\(Self.limit):\(Self.limit)"]
        try await TestCluster.run(
            engine: "simulated", arguments: [.gateway: ["--http-head-limit", "60s"]],
            settings: {
                for name in ["gateway", "scheduler", "decode-worker-1"] {
                    $0.commandsByName[name] = few
                }
            }
        ) { cluster in
            #expect(try await cluster.post("/v1/completions", Self.completion).status == 200)
            let all = cluster.cluster
            let gateway = try #require(all.processes(of: .gateway).first)
            let scheduler = try #require(all.processes(of: .scheduler).first)
            let worker = try #require(all.processes(of: .decodeWorker).first)
            let stream = Task {
                try await cluster.stream(
                    "/v1/completions", #"{"prompt":"x","max_tokens":600,"stream":true}"#)
            }
            let wait = #"listener="#
            try await flood(gateway, gateway.announcement.http, cluster, expects: nil)
            async let other: Void = flood(
                scheduler, scheduler.announcement.control, cluster, expects: wait + "control")
            try await flood(
                worker, worker.announcement.control, cluster, expects: wait + "control")
            try await other
            try await flood(worker, worker.announcement.bulk, cluster, expects: wait + "bulk")
            let pauses = try #require(
                try await cluster.metric("process_accept_pauses", of: worker))
            #expect(pauses > 0)
            // Ten a second, and one line in ten seconds.
            let lines = worker.logTail(lines: 10_000).components(separatedBy: "too few files")
            #expect(lines.count - 1 <= 8, "\(lines.count - 1) reports of \(pauses) pauses")
            #expect(try await stream.value.last == "[DONE]", "what was open has gone on")
        }
    }
}
