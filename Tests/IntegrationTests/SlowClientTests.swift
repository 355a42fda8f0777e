import Foundation
import HTTPClient
import LocalCluster
import ServingTypes
import Testing

/// Clients that send or read next to nothing, beside others.
@Suite(.serialized) struct SlowClientTests {
    private static let head =
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    private static let answer =
        #"{"prompt":"slow","max_tokens":2000,"ignore_eos":true,"logprobs":1,"stream":true}"#

    private func arguments(unread: Int) -> [Role: [String]] {
        [
            .gateway: [
                "--http-head-limit", "3s", "--http-body-time-limit", "3s", "--http-stall-limit",
                "2s", "--http-send-buffer", "4KiB", "--unread-limit", "\(unread)",
            ],
            .prefillWorker: ["--simulated-speed", "0"],
            .decodeWorker: ["--simulated-speed", "0"],
        ]
    }

    private func cut(
        _ reason: String, _ cluster: TestCluster, _ gateway: ManagedProcess
    ) async throws -> Double {
        try await cluster.metric(#"http_clients_cut_total{reason="\#(reason)"}"#, of: gateway) ?? 0
    }

    @Test func `200 slow clients at once cost nobody else anything`() async throws {
        try await TestCluster.run(
            engine: "simulated", arguments: arguments(unread: 32)
        ) { cluster in
            let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
            let decode = try #require(cluster.cluster.processes(of: .decodeWorker).first)
            let prefill = try #require(cluster.cluster.processes(of: .prefillWorker).first)
            let address = try cluster.http
            _ = try await cluster.post("/v1/completions", #"{"prompt":"a","max_tokens":2}"#)
            let files = gateway.openFileCount
            let post = Self.head + "Content-Length: \(Self.answer.utf8.count)\r\n\r\n" + Self.answer
            let silent = RawSockets(50, to: address)
            let heads = RawSockets(50, to: address)
            let bodies = RawSockets(40, to: address)
            let deaf = RawSockets(40, to: address, receiveBytes: 4096)
            let sipping = RawSockets(20, to: address, receiveBytes: 4096)
            try await Task.sleep(for: .milliseconds(100))
            heads.send("POST /v1/completions HTTP/1.1\r\nX-Long: ")
            bodies.send(Self.head + "Content-Length: 4000\r\n\r\n")
            deaf.send(post)
            sipping.send(post)
            let dripping = Task {
                while !Task.isCancelled {
                    heads.send("x")
                    bodies.send("x")
                    sipping.receive(1)
                    try? await Task.sleep(for: .milliseconds(200))
                }
            }
            defer { dripping.cancel() }
            for number in 0..<10 {
                let events = try await cluster.stream(
                    "/v1/completions",
                    #"{"prompt":"fast \#(number)","max_tokens":20,"ignore_eos":true,"stream":true}"#
                )
                #expect(events.last == "[DONE]")
            }
            try await awaited("readers are cut off") {
                try await cut("stalled", cluster, gateway) == 60
            }
            #expect(try await cluster.metric("gateway_clients_slow_total", of: gateway) == 60)
            try await awaited("senders are cut off") {
                let heads = try await cut("head", cluster, gateway)
                return try await cut("body", cluster, gateway) == 40 && heads == 100
            }
            try await cluster.wait(for: "gateway_requests_open", of: gateway, toBe: 0)
            try await cluster.waitForFreeKV(of: decode)
            try await cluster.waitForFreeKV(of: prefill)
            try await cluster.wait(for: "decode_kv_reserved_bytes", of: decode, toBe: 0)
            #expect(silent.receive(1) == 50)
            try await awaited("no file is left over") { gateway.openFileCount <= files + 2 }
        }
    }

    @Test func `who reads slowly, but reads, learns why the answer ends`() async throws {
        var arguments = arguments(unread: 16)
        arguments[.gateway]? += ["--http-stall-limit", "60s"]
        try await TestCluster.run(engine: "simulated", arguments: arguments) { cluster in
            let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
            let decode = try #require(cluster.cluster.processes(of: .decodeWorker).first)
            let slow = RawSockets(1, to: try cluster.http, receiveBytes: 4096)
            try await Task.sleep(for: .milliseconds(50))
            slow.send(
                Self.head + "Content-Length: \(Self.answer.utf8.count)\r\n\r\n" + Self.answer)
            try await awaited("its request has ended") {
                try await cluster.metric("gateway_clients_slow_total", of: gateway) == 1
            }
            try await cluster.waitForFreeKV(of: decode)
            var text = ""
            try await awaited("the end of the stream") {
                text += slow.text()
                return text.contains("data: [DONE]")
            }
            #expect(text.contains(#""code":"client_too_slow""#))
            let pieces = text.components(separatedBy: "data: ").count
            #expect(pieces < 2000, "\(pieces) pieces were kept for it")
        }
    }
}
