import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Synchronization
import Testing

/// Workers and clients that come and go while others are served.
@Suite(.serialized) struct LifecycleTests {
    private final class Tally: Sendable {
        let served = Mutex(0)
        let failures = Mutex<[String]>([])
    }

    @Test func `workers come and go while requests are served`() async throws {
        try await TestCluster.run { cluster in
            let tally = Tally()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<3 {
                    group.addTask {
                        while !Task.isCancelled {
                            let (status, answer) = try await cluster.post(
                                "/v1/completions", #"{"prompt":"Lists are","max_tokens":8}"#)
                            tally.served.withLock { $0 += 1 }
                            if status != 200 { tally.failures.withLock { $0.append("\(answer)") } }
                        }
                    }
                }
                try await change(cluster)
                group.cancelAll()
                // A call that is cancelled in the middle ends with an error of its own.
                while await group.nextResult() != nil {}
            }
            #expect(tally.served.withLock { $0 } > 10)
            #expect(tally.failures.withLock { $0 } == [])
        }
    }

    /// Adds a pair of workers, sees it used, then takes the first pair away.
    private func change(_ cluster: TestCluster) async throws {
        let first =
            cluster.cluster.processes(of: .prefillWorker)
            + cluster.cluster.processes(of: .decodeWorker)
        for role in [Role.prefillWorker, .decodeWorker] {
            let new = try await cluster.cluster.startWorker(
                role, number: 2)
            let started = ContinuousClock.now
            let metric = role == .prefillWorker ? "prefill_engine_steps" : "decode_engine_steps"
            while (try await cluster.metric(metric, of: new) ?? 0) < 1 {
                try #require(ContinuousClock.now - started < .seconds(30), "\(role) is not used")
                try await Task.sleep(for: .milliseconds(50))
            }
            // A second is the promise on a quiet machine; tests beside this one take its cores.
            print("\(new.name) was used \(ContinuousClock.now - started) after its start")
        }
        for process in first {
            process.signal(SIGTERM)
            #expect(await process.waitUntilExit(within: .seconds(20)))
            #expect(process.exitStatus == 0)
        }
        let answer = try await cluster.post(
            "/v1/completions", #"{"prompt":"Lists are","max_tokens":8}"#)
        #expect(answer.status == 200)
    }

    @Test func `a killed worker costs a pause and no token`() async throws {
        let body =
            #"{"prompt":"The yield expression","max_tokens":1200,"temperature":0,"ignore_eos":true"#
        try await TestCluster.run(prefill: 2, decode: 2) { cluster in
            let whole = try await cluster.post("/v1/completions", body + "}").json
            let expected = try #require(whole["choices"][0]["text"].string)
            let events = try await withThrowingTaskGroup(of: [String].self) { group in
                for _ in 0..<2 {
                    group.addTask {
                        try await cluster.stream(
                            "/v1/completions",
                            body + #","stream":true,"stream_options":{"include_usage":true}}"#)
                    }
                }
                try await killBusy(.decodeWorker, cluster)
                return try await group.reduce(into: []) { $0.append($1) }
            }
            for stream in events {
                #expect(stream.last == "[DONE]")
                let chunks = try stream.dropLast().map { try JSONValue(text: $0) }
                #expect(!chunks.contains { $0["error"] != .null }, "\(chunks.last as Any)")
                let text = chunks.compactMap { $0["choices"][0]["text"].string }.joined()
                // Prefilling prompt and output anew may turn a near-tie; the start is the same.
                #expect(text.prefix(40) == expected.prefix(40))
                #expect(
                    chunks.last?["usage"]["completion_tokens"]
                        == whole["usage"]["completion_tokens"])
            }
            let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
            #expect(
                try await cluster.metric("gateway_requests_restarted_total", of: gateway) ?? 0 > 0)
        }
    }

    /// Kills a worker of the role that runs something.
    private func killBusy(_ role: Role, _ cluster: TestCluster) async throws {
        let end = ContinuousClock.now + .seconds(10)
        while ContinuousClock.now < end {
            for worker in cluster.cluster.processes(of: role)
            where try await cluster.metric("decode_running_sequences", of: worker) ?? 0 > 0 {
                return worker.signal(SIGKILL)
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        throw TestFailure("no \(role.name) ran anything")
    }

    @Test func `a client that leaves frees both workers`() async throws {
        try await TestCluster.run { cluster in
            let decode = try #require(cluster.cluster.processes(of: .decodeWorker).first)
            let prefill = try #require(cluster.cluster.processes(of: .prefillWorker).first)
            for streamed in [true, false] {
                let call = HTTPCall(
                    "POST", try cluster.http, "/v1/completions",
                    body: Array(
                        #"{"prompt":"a","max_tokens":2000,"stream":\#(streamed),"ignore_eos":true}"#
                            .utf8))
                let asked = Mutex<[String]>([])
                // Should one answer end, another request follows.
                let client = Task {
                    while !Task.isCancelled {
                        do {
                            let head = try await call.stream { _, _ in }
                            asked.withLock { $0.append("\(head.status)") }
                        } catch {
                            asked.withLock { $0.append("\(error)") }
                        }
                    }
                }
                do {
                    try await cluster.wait(for: "decode_running_sequences", of: decode, toBe: 1)
                } catch {
                    client.cancel()
                    throw TestFailure("\(error); answers: \(asked.withLock { $0 }.prefix(8))")
                }
                #expect(asked.withLock { $0 }.allSatisfy { $0 == "200" })
                client.cancel()
                let time = try await cluster.wait(
                    for: "decode_kv_reserved_bytes", of: decode, toBe: 0)
                #expect(time < .seconds(1), "freed after \(time)")
                try await cluster.waitForFreeKV(of: decode)
                try await cluster.wait(for: "prefill_free_slots", of: prefill, toBe: 4)
            }
        }
    }

    @Test func `serving goes on while the scheduler is away`() async throws {
        try await TestCluster.run { cluster in
            let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
            scheduler.signal(SIGKILL)
            await scheduler.waitUntilExit(within: .seconds(5))
            let body = #"{"prompt":"Lists are","max_tokens":4}"#
            #expect(try await cluster.post("/v1/completions", body).status == 200)
            let address = try #require(scheduler.announcement.control)
            try await cluster.cluster.startScheduler(listen: address.description)
            try await cluster.waitUntilHealthy()
            #expect(try await cluster.post("/v1/completions", body).status == 200)
        }
    }

    @Test func `a worker that hangs is taken out and its requests go elsewhere`() async throws {
        try await TestCluster.run(decode: 2) { cluster in
            let hung = try #require(cluster.cluster.processes(of: .decodeWorker).first)
            hung.signal(SIGSTOP)
            defer { hung.signal(SIGKILL) }
            let started = ContinuousClock.now
            for _ in 0..<4 {
                let answer = try await cluster.post(
                    "/v1/completions", #"{"prompt":"Lists are","max_tokens":4}"#)
                #expect(answer.status == 200)
            }
            #expect(ContinuousClock.now - started < .seconds(20))
        }
    }
}
