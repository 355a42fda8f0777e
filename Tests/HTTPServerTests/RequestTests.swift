import ChatAPI
import Foundation
import HTTPServer
import Logging
import NIOCore
import ServiceLifecycle
import ServiceRuntime
import ServingTypes
import Testing

func routes() -> HTTPRoutes {
    var routes = HTTPRoutes()
    routes.add("GET", "/hello") { _ in .bytes(Array("hello".utf8), type: "text/plain") }
    routes.add("POST", "/echo") { call in .bytes(call.body, type: "text/plain") }
    routes.add("POST", "/length") { call in .json(Array("\(call.body.count)".utf8)) }
    routes.add("GET", "/models/*") { call in
        .bytes(Array("\(call.rest)?\(call.query ?? "-")".utf8), type: "text/plain")
    }
    routes.add("GET", "/busy") { _ in throw APIError.overloaded(retryAfterSeconds: 7) }
    routes.add("GET", "/broken") { _ in throw Broken(secret: "s3cret") }
    routes.add("GET", "/header") { call in
        .bytes(Array((call.header("x-one") ?? "none").utf8), type: "text/plain")
    }
    routes.add("GET", "/all") { call in
        let fields = call.headers.filter { $0.key.hasPrefix("x-") }.map { "\($0.key)=\($0.value)" }
        let text = ([call.remoteAddress] + fields.sorted()).joined(separator: ";")
        return .bytes(Array(text.utf8), type: "text/plain")
    }
    routes.add("GET", "/locked") { _ in throw APIError.unauthorized }
    return routes
}

private struct Broken: Error { var secret: String }

@Suite struct RequestTests {
    @Test func `requests on one connection are answered one after the other`() async throws {
        try await withEndpoint(routes()) { _, port, _ in
            await onThread {
                let client = RawClient(port)
                client.get("/hello")
                let first = client.receiveAnswer()
                #expect(first.head.hasPrefix("HTTP/1.1 200 OK") && first.body == "hello")
                #expect(first.head.lowercased().contains("date: "))
                client.post("/echo", "é body")
                #expect(client.receiveAnswer().body == "é body")
                client.get("/header", headers: "X-One: a\r\nx-one: b\r\n")
                #expect(client.receiveAnswer().body == "a, b")
                client.send("HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n")
                let head = client.receive(through: "\r\n\r\n")
                #expect(head.lowercased().contains("content-length: 5"))
                #expect(head.hasSuffix("\r\n\r\n"))
                client.get("/hello", headers: "Connection: close\r\n")
                #expect(client.receiveAll().hasSuffix("hello"))
            }
        }
    }

    @Test func `pipelined requests are answered in order`() async throws {
        try await withEndpoint(routes()) { _, port, _ in
            await onThread {
                let client = RawClient(port)
                let all = (0..<50).map {
                    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: "
                        + "\("number \($0)".count)\r\n\r\nnumber \($0)"
                }
                client.send(all.joined())
                client.get("/hello", headers: "Connection: close\r\n")
                let text = client.receiveAll()
                var rest = text[...]
                for index in 0..<50 {
                    guard let found = String(rest).range(of: "number \(index)") else {
                        Issue.record("number \(index) is missing")
                        return
                    }
                    rest = Substring(String(rest)[found.upperBound...])
                }
                #expect(rest.hasSuffix("hello"))
            }
        }
    }

    @Test func `paths and methods that are not there get OpenAI's errors`() async throws {
        try await withEndpoint(routes()) { _, port, _ in
            await onThread {
                let client = RawClient(port)
                client.get("/nothing?x=1")
                let missing = client.receiveAnswer()
                #expect(missing.head.hasPrefix("HTTP/1.1 404 "))
                #expect(missing.head.lowercased().contains("content-type: application/json"))
                #expect(
                    missing.body
                        == #"{"error":{"message":"There is nothing at GET /nothing.","#
                        + #""type":"invalid_request_error","param":null,"code":"not_found"}}"#)
                client.post("/hello", "x")
                let wrong = client.receiveAnswer()
                #expect(wrong.head.hasPrefix("HTTP/1.1 405 "))
                #expect(wrong.body.contains("POST is not allowed here, only GET."))
                client.get("/models/org/a%20b%2Fc?full=1")
                #expect(client.receiveAnswer().body == "org/a b/c?full=1")
                client.get("/models/")
                #expect(client.receiveAnswer().head.hasPrefix("HTTP/1.1 404 "))
                client.get("/hello/")
                #expect(client.receiveAnswer().body == "hello")
            }
        }
    }

    @Test func `handlers' errors become answers without details`() async throws {
        let metrics = MetricsRegistry()
        try await withEndpoint(routes(), metrics: metrics) { _, port, _ in
            await onThread {
                let client = RawClient(port)
                client.get("/busy")
                let busy = client.receiveAnswer()
                #expect(busy.head.hasPrefix("HTTP/1.1 503 "))
                #expect(busy.head.lowercased().contains("retry-after: 7"))
                #expect(busy.body.contains("\"code\":\"overloaded\""))
                client.get("/broken")
                let broken = client.receiveAnswer()
                #expect(broken.head.hasPrefix("HTTP/1.1 500 "))
                #expect(broken.body.contains("internal_error") && !broken.body.contains("s3cret"))
            }
            #expect(metrics.value("http_requests", ["route": "/busy", "status": "503"]) == 1)
        }
    }

    @Test func `a handler sees all fields in lower case and the client's address`() async throws {
        try await withEndpoint(routes()) { _, port, _ in
            await onThread {
                let client = RawClient(port)
                client.get("/all", headers: "X-One: a\r\nx-one: b\r\nX-Two:  c \r\n")
                #expect(client.receiveAnswer().body == "127.0.0.1;x-one=a, b;x-two=c")
                client.get("/locked")
                let locked = client.receiveAnswer().head
                #expect(locked.hasPrefix("HTTP/1.1 401 "))
                #expect(locked.lowercased().contains("www-authenticate: bearer realm="))
            }
        }
    }

    @Test func `a client that only ends its sending side is answered`() async throws {
        try await withEndpoint(routes()) { _, port, _ in
            await onThread {
                for _ in 0..<20 {
                    let client = RawClient(port)
                    client.get("/hello")
                    client.endSending()
                    #expect(client.receiveAll().hasSuffix("hello"))
                }
            }
        }
    }

    @Test func `operators see life, health and metrics`() async throws {
        let metrics = MetricsRegistry()
        metrics.observe("test_value_bytes", "A value.") { 5 }
        var routes = HTTPRoutes()
        routes.addAdministration(metrics: metrics) { .unavailable("no \"worker\"") }
        try await withEndpoint(routes) { _, port, _ in
            await onThread {
                let client = RawClient(port)
                client.get("/live")
                #expect(client.receiveAnswer().body == #"{"status":"ok"}"#)
                client.get("/health")
                let health = client.receiveAnswer()
                #expect(health.head.hasPrefix("HTTP/1.1 503 "))
                #expect(
                    health.body == #"{"status":"unavailable","reason":"no \"worker\""}"#)
                client.get("/metrics")
                let text = client.receiveAnswer()
                #expect(text.head.contains("text/plain; version=0.0.4"))
                #expect(text.body.contains("\ntest_value_bytes 5\n"))
            }
        }
    }

    #if os(Linux)
        @Test func `the kernel gives up clients that vanished`() async throws {
            let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let (values, input) = AsyncStream.makeStream(of: Int.self)
            let endpoint = HTTPEndpoint(
                address: NetworkAddress(host: "127.0.0.1", port: 0), routes: routes(),
                logger: logger,
                prepare: { channel in
                    let option = NIOBSDSocket.Option(rawValue: TCP_USER_TIMEOUT)
                    channel.getOption(.tcpOption(option)).whenSuccess { input.yield(Int($0)) }
                })
            let group = ServiceGroup(services: [endpoint], logger: logger)
            async let running: Void = group.run()
            let port = try await endpoint.boundAddress().port
            let client = await onThread { RawClient(port) }
            #expect(await values.first { _ in true } == 30_000)
            client.close()
            await group.triggerGracefulShutdown()
            try await running
        }
    #endif

    @Test func `an address that is taken is named`() async throws {
        try await withEndpoint(routes()) { endpoint, port, _ in
            let address = NetworkAddress(host: "127.0.0.1", port: port)
            let second = HTTPEndpoint(address: address, routes: routes(), logger: .init(label: "x"))
            await #expect(throws: HTTPServerError.addressInUse(address)) { try await second.run() }
            await #expect(throws: HTTPServerError.addressInUse(address)) {
                try await second.boundAddress()
            }
            #expect(
                HTTPServerError.addressInUse(address).description
                    == "127.0.0.1:\(port) is in use by another process")
            let foreign = NetworkAddress(host: "192.0.2.1", port: 1)
            let third = HTTPEndpoint(address: foreign, routes: routes(), logger: .init(label: "x"))
            await #expect(throws: HTTPServerError.self) { try await third.run() }
        }
    }
}
