import ChatAPI
import HTTPServer
import ServiceLifecycle
import ServiceRuntime
import ServingTypes
import Synchronization
import Testing

final class Flag: Sendable {
    private let state = Mutex<MonotonicTime?>(nil)

    var isSet: Bool { state.withLock { $0 != nil } }
    /// When it was set first.
    var time: MonotonicTime? { state.withLock { $0 } }
    func set() {
        let now = ProcessClock.now()
        state.withLock { $0 = $0 ?? now }
    }
}

/// One stream whose test decides when something comes.
final class Stream: Sendable {
    let stream: AsyncStream<[UInt8]>
    let input: AsyncStream<[UInt8]>.Continuation
    let ended = Flag()

    init() {
        (stream, input) = AsyncStream.makeStream()
        input.onTermination = { [ended] _ in ended.set() }
    }

    func send(_ text: String) { input.yield(Array(text.utf8)) }
}

@Suite(.serialized) struct StreamTests {
    private func routes(_ stream: Stream, started: Flag = Flag()) -> HTTPRoutes {
        var routes = HTTPServerTests.routes()
        routes.add("GET", "/stream") { _ in
            started.set()
            return .events(stream.stream)
        }
        return routes
    }

    @Test func `each chunk leaves when it is made and the connection stays`() async throws {
        let stream = Stream()
        try await withEndpoint(routes(stream)) { _, port, _ in
            await onThread {
                let client = RawClient(port)
                client.get("/stream")
                let head = client.receive(through: "\r\n\r\n")
                #expect(head.lowercased().contains("content-type: text/event-stream"))
                #expect(head.lowercased().contains("transfer-encoding: chunked"))
                for index in 0..<20 {
                    stream.send("data: \(index)\n\n")
                    let text = client.receive(through: "data: \(index)\n\n\r\n")
                    #expect(text.hasSuffix("data: \(index)\n\n\r\n"), "\(text)")
                }
                stream.input.finish()
                #expect(client.receive(through: "0\r\n\r\n") == "0\r\n\r\n")
                client.get("/hello")
                #expect(client.receiveAnswer().body == "hello")
            }
        }
    }

    enum Ending: CaseIterable { case close, reset, endSending }

    private func end(_ client: RawClient, _ ending: Ending) {
        switch ending {
        case .close: client.close()
        case .reset: client.reset()
        case .endSending: client.endSending()
        }
    }

    @Test(arguments: Ending.allCases)
    func `a client that leaves is noticed while nothing is written`(ending: Ending) async throws {
        let metrics = MetricsRegistry()
        for pipelined in [false, true] {
            let stream = Stream()
            try await withEndpoint(routes(stream), metrics: metrics) { _, port, _ in
                let left = await onThread {
                    let client = RawClient(port)
                    client.get("/stream")
                    // Requests behind the running one must not hide the end of the stream.
                    if pipelined { for _ in 0..<100 { client.get("/hello") } }
                    _ = client.receive(through: "\r\n\r\n")
                    stream.send("data: 1\n\n")
                    _ = client.receive(through: "data: 1")
                    let left = ProcessClock.now()
                    end(client, ending)
                    return left
                }
                #expect(await eventually { stream.ended.isSet })
                let time = try #require(stream.ended.time) - left
                print("noticed \(ending), pipelined \(pipelined), after \(time)")
                #expect(time < .milliseconds(50))
            }
        }
        #expect(metrics.value("http_clients_left", ["route": "/stream"]) == 2)
    }

    @Test(arguments: Ending.allCases)
    func `a client that leaves cancels a handler that has not answered`(
        ending: Ending
    ) async throws {
        let (started, cancelled) = (Flag(), Flag())
        var routes = HTTPServerTests.routes()
        routes.add("POST", "/wait") { _ in
            started.set()
            do {
                try await Task.sleep(for: .seconds(60))
            } catch {
                cancelled.set()
                throw error
            }
            return .json([])
        }
        try await withEndpoint(routes) { endpoint, port, _ in
            let client = await onThread {
                let client = RawClient(port)
                client.post("/wait", "x")
                return client
            }
            #expect(await eventually { started.isSet })
            let left = ProcessClock.now()
            end(client, ending)
            #expect(await eventually { cancelled.isSet })
            let time = try #require(cancelled.time) - left
            print("cancelled handler, \(ending), after \(time)")
            #expect(time < .milliseconds(50))
            client.close()
            #expect(await eventually { endpoint.openConnections == 0 })
        }
    }

    @Test func `a client that reads nothing is cut off`() async throws {
        var limits = HTTPLimits()
        limits.stallTime = .milliseconds(200)
        let stream = Stream()
        for _ in 0..<400 { stream.input.yield([UInt8](repeating: 65, count: 65_536)) }
        try await withEndpoint(routes(stream), limits: limits) { endpoint, port, _ in
            let client = await onThread {
                let client = RawClient(port, receiveBufferBytes: 4096)
                client.get("/stream")
                return client
            }
            #expect(await eventually { endpoint.openConnections == 1 })
            #expect(await eventually { endpoint.openConnections == 0 })
            #expect(await eventually { stream.ended.isSet })
            client.close()
        }
    }

    @Test func `a stream that fails does not look complete`() async throws {
        var routes = HTTPRoutes()
        routes.add("GET", "/fails") { _ in
            .events(
                AsyncThrowingStream<[UInt8], any Error> {
                    $0.yield(Array("data: 1\n\n".utf8))
                    $0.finish(throwing: CancellationError())
                })
        }
        try await withEndpoint(routes) { _, port, _ in
            await onThread {
                let client = RawClient(port)
                client.get("/fails")
                let text = client.receiveAll()
                #expect(text.contains("data: 1") && !text.hasSuffix("0\r\n\r\n"))
            }
        }
    }

    @Test func `two hundred streams run at once`() async throws {
        let count = 200
        var routes = HTTPRoutes()
        routes.add("GET", "/count/*") { call in
            .events(
                AsyncStream { continuation in
                    let task = Task {
                        for index in 0..<20 {
                            continuation.yield(Array("data: \(call.rest)-\(index)\n\n".utf8))
                            try? await Task.sleep(for: .milliseconds(5))
                        }
                        continuation.finish()
                    }
                    continuation.onTermination = { _ in task.cancel() }
                })
        }
        let made = routes
        try await withEndpoint(made) { endpoint, port, _ in
            let start = ProcessClock.now()
            let texts = await onThread {
                let clients = (0..<count).map { _ in RawClient(port) }
                for (index, client) in clients.enumerated() { client.get("/count/\(index)") }
                return clients.map { $0.receive(through: "0\r\n\r\n") }
            }
            print("200 streams of 20 events took \(ProcessClock.now() - start)")
            for (index, text) in texts.enumerated() {
                for event in 0..<20 {
                    #expect(text.contains("data: \(index)-\(event)\n\n"))
                }
            }
            #expect(await eventually { endpoint.openConnections == 0 })
        }
    }

    @Test func `shutdown lets answers end and takes no new ones`() async throws {
        let stream = Stream()
        try await withEndpoint(routes(stream)) { endpoint, port, group in
            let (client, idle) = await onThread {
                let idle = RawClient(port)
                idle.get("/hello")
                #expect(idle.receiveAnswer().body == "hello")
                let client = RawClient(port)
                client.get("/stream")
                _ = client.receive(through: "\r\n\r\n")
                return (client, idle)
            }
            await group.triggerGracefulShutdown()
            #expect(await onThread { idle.receive() } == "")
            await onThread {
                let late = RawClient(port)
                late.get("/hello")
                #expect(late.receive() ?? "" == "")
                stream.send("data: late\n\n")
                #expect(client.receive(through: "late\n\n\r\n").contains("data: late"))
                stream.input.finish()
                #expect(client.receiveAll().hasSuffix("0\r\n\r\n"))
            }
        }
    }

    @Test func `shutdown cuts off what does not end`() async throws {
        let stream = Stream()
        var limits = HTTPLimits()
        limits.drainTime = .milliseconds(100)
        try await withEndpoint(routes(stream), limits: limits) { _, port, group in
            let client = await onThread {
                let client = RawClient(port)
                client.get("/stream")
                _ = client.receive(through: "\r\n\r\n")
                return client
            }
            await group.triggerGracefulShutdown()
            let text = await onThread { client.receiveAll() }
            #expect(!text.hasSuffix("0\r\n\r\n"))
            #expect(await eventually { stream.ended.isSet })
        }
    }
}
