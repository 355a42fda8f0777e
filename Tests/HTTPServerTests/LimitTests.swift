import Foundation
import Glibc
import HTTPServer
import ServiceRuntime
import ServingTypes
import Testing

@Suite struct LimitTests {
    private func limits(_ change: (inout HTTPLimits) -> Void) -> HTTPLimits {
        var limits = HTTPLimits()
        change(&limits)
        return limits
    }

    @Test func `a large body is refused by its length before it is read`() async throws {
        let calls = Flag()
        var routes = routes()
        routes.add("POST", "/length") { _ in
            calls.set()
            return .json([])
        }
        try await withEndpoint(routes) { _, port, _ in
            await onThread {
                let client = RawClient(port)
                let start = ProcessClock.now()
                client.send("POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
                let answer = client.receiveAnswer()
                #expect(ProcessClock.now() - start < .seconds(1))
                #expect(answer.head.hasPrefix("HTTP/1.1 413 "))
                #expect(answer.head.lowercased().contains("connection: close"))
                #expect(answer.body.contains("\"code\":\"request_too_large\""))
            }
            // One that sends first and reads later gets the answer too and can't send it all.
            await onThread {
                let client = RawClient(port)
                client.send("POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
                let piece = [UInt8](repeating: 65, count: 1 << 20)
                var sent = 0
                for _ in 0..<95 {
                    let count = client.send(piece)
                    sent += count
                    if count < piece.count { break }
                }
                #expect(sent < 40 << 20, "\(sent) bytes were taken")
                #expect(client.receiveAll().hasPrefix("HTTP/1.1 413 "))
            }
        }
        #expect(!calls.isSet)
    }

    @Test func `a body in chunks is refused when it grows too large`() async throws {
        let limits = limits { $0.bodyBytes = 100_000 }
        try await withEndpoint(routes(), limits: limits) { _, port, _ in
            await onThread {
                let head = "POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                let piece = "2710\r\n" + String(repeating: "a", count: 10_000) + "\r\n"
                let client = RawClient(port)
                client.send(head)
                for _ in 0..<10 { client.send(piece) }
                client.send("0\r\n\r\n")
                #expect(client.receiveAnswer().body == "100000")
                client.send(head)
                for _ in 0..<11 { client.send(piece) }
                #expect(client.receiveAll().hasPrefix("HTTP/1.1 413 "))
            }
        }
    }

    @Test func `a refused request waits for the answers before it`() async throws {
        let limits = limits { $0.bodyBytes = 1000 }
        let gate = Flag()
        var routes = routes()
        routes.add("GET", "/slow") { _ in
            while !gate.isSet { try await Task.sleep(for: .milliseconds(2)) }
            return .bytes(Array("slow".utf8), type: "text/plain")
        }
        let made = routes
        try await withEndpoint(made, limits: limits) { _, port, _ in
            await onThread {
                let client = RawClient(port)
                client.get("/slow")
                client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")
                client.get("/hello")
                gate.set()
                let first = client.receiveAnswer()
                let text = first.head + first.body + client.receiveAll()
                #expect(first.head.hasPrefix("HTTP/1.1 200 "))
                #expect(text.contains("HTTP/1.1 413 ") && !text.contains("hello"))
            }
        }
    }

    @Test func `expectations are met before the body is sent`() async throws {
        let limits = limits { $0.bodyBytes = 1000 }
        try await withEndpoint(routes(), limits: limits) { _, port, _ in
            await onThread {
                let expect = "Host: x\r\nExpect: 100-continue\r\n"
                let client = RawClient(port)
                client.send("POST /echo HTTP/1.1\r\n\(expect)Content-Length: 4\r\n\r\n")
                #expect(client.receive(through: "\r\n\r\n").hasPrefix("HTTP/1.1 100 Continue\r\n"))
                client.send("body")
                #expect(client.receiveAnswer().body == "body")
                client.send("POST /echo HTTP/1.1\r\n\(expect)Content-Length: 4000\r\n\r\n")
                #expect(client.receiveAll().hasPrefix("HTTP/1.1 413 "))
            }
        }
    }

    @Test func `slow heads, slow bodies and idle connections are closed`() async throws {
        let limits = limits {
            $0.headTime = .milliseconds(200)
            $0.bodyTime = .milliseconds(200)
            $0.idleTime = .milliseconds(200)
        }
        let calls = Flag()
        var routes = routes()
        routes.add("POST", "/length") { _ in
            calls.set()
            return .json([])
        }
        try await withEndpoint(routes, limits: limits) { endpoint, port, _ in
            /// Sends the text byte by byte until the server ends it; gives what it said and when.
            @Sendable func drip(_ start: String, _ drops: String) -> (String, Duration) {
                let client = RawClient(port)
                let began = ProcessClock.now()
                client.send(start)
                for drop in drops where ProcessClock.now() - began < .seconds(3) {
                    if client.send(String(drop)) == 0 { break }
                    var pause = timespec(tv_sec: 0, tv_nsec: 20_000_000)
                    _ = unsafe nanosleep(&pause, nil)
                }
                let text = client.receiveAll()
                return (text, ProcessClock.now() - began)
            }
            let line = String(repeating: "x", count: 60)
            async let silent = onThread { drip("", "") }
            async let head = onThread { drip("GET /hello HTTP/1.1\r\nX-", line) }
            async let body = onThread {
                drip("POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", line)
            }
            async let idle = onThread {
                drip("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", "")
            }
            let results = await [silent, head, body, idle]
            #expect(results[0].0.isEmpty && results[1].0.isEmpty)
            #expect(results[2].0.hasPrefix("HTTP/1.1 408 "), "\(results[2].0)")
            #expect(results[3].0.hasSuffix("hello"))
            for (_, time) in results {
                #expect((.milliseconds(150) ... .seconds(3)).contains(time))
            }
            #expect(await eventually { endpoint.openConnections == 0 })
        }
        #expect(!calls.isSet)
    }

    @Test func `a body that breaks off reaches no handler`() async throws {
        let calls = Flag()
        var routes = routes()
        routes.add("POST", "/length") { _ in
            calls.set()
            return .json([])
        }
        try await withEndpoint(routes) { endpoint, port, _ in
            await onThread {
                for ending in [RawClient.close, RawClient.endSending, RawClient.reset] {
                    for framing in [
                        "Content-Length: 100\r\n\r\nhalf",
                        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
                    ] {
                        let client = RawClient(port)
                        client.send("POST /length HTTP/1.1\r\nHost: x\r\n\(framing)")
                        ending(client)()
                        _ = client.receiveAll()
                    }
                }
            }
            #expect(await eventually { endpoint.openConnections == 0 })
        }
        #expect(!calls.isSet)
    }

    @Test func `what is not HTTP is refused and closed`() async throws {
        try await withEndpoint(routes()) { _, port, _ in
            await onThread {
                let long = String(repeating: "x", count: 40_000)
                let many = (0..<200).map { "x\($0): 1\r\n" }.joined()
                for text in [
                    "nonsense\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}",
                    "GET /hello HTTP/1.1\r\nX: \(long)",
                    "GET /\(long) HTTP/1.1\r\nHost: x\r\n\r\n",
                    "GET /hello HTTP/1.1\r\nHost: x\r\n\(many)\r\n",
                    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
                        + "Transfer-Encoding: chunked\r\n\r\n",
                    "POST /echo HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                ] {
                    let client = RawClient(port)
                    client.send(text)
                    let answer = client.receiveAll()
                    #expect(
                        answer.hasPrefix("HTTP/1.1 400 ") || answer.hasPrefix("HTTP/1.1 413 "),
                        "\(text.prefix(80)): \(answer.prefix(80))")
                }
                let client = RawClient(port)
                client.get("/hello")
                #expect(client.receiveAnswer().body == "hello")
            }
        }
    }

    @Test func `connections beyond the limit get 503 until one closes`() async throws {
        let limits = limits { $0.connections = 2 }
        let metrics = MetricsRegistry()
        try await withEndpoint(routes(), limits: limits, metrics: metrics) { endpoint, port, _ in
            let held = await onThread {
                (0..<2).map { _ in
                    let client = RawClient(port)
                    client.get("/hello")
                    #expect(client.receiveAnswer().body == "hello")
                    return client
                }
            }
            await onThread {
                let client = RawClient(port)
                client.get("/hello")
                let text = client.receiveAll()
                #expect(text.hasPrefix("HTTP/1.1 503 ") && text.contains("Too many connections."))
                #expect(text.lowercased().contains("retry-after: 1"))
            }
            #expect(metrics.value("http_refused", ["reason": "connections"]) == 1)
            held[0].close()
            #expect(await eventually { endpoint.openConnections == 1 })
            await onThread {
                let client = RawClient(port)
                client.get("/hello")
                #expect(client.receiveAnswer().body == "hello")
            }
            held[1].close()
        }
    }
}
