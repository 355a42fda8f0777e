import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// Schedulers that die, hang and come back, while requests are served.
@Suite(.serialized) struct StandbyTests {
    private func health(_ process: ManagedProcess) async throws -> String? {
        let address = try #require(process.announcement.admin)
        let (head, body) = try await HTTPCall("GET", address, "/health").collect()
        #expect(head.status == 200)
        return try JSONValue(body)["status"].string
    }

    private func waitForHealth(
        _ status: String, of process: ManagedProcess, within deadline: Duration = .seconds(20)
    ) async throws {
        let end = ContinuousClock.now + deadline
        while try await health(process) != status {
            try #require(ContinuousClock.now < end, "\(process.name) is not \(status)")
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    private func scheduler(_ number: Int, _ cluster: TestCluster) throws -> ManagedProcess {
        try #require(cluster.cluster.all.first { $0.name == "scheduler-\(number)" })
    }

    private func epoch(_ cluster: TestCluster) async throws -> Double {
        let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
        return try #require(try await cluster.metric("gateway_view_epoch", of: gateway))
    }

    private func waitForEpoch(
        after epoch: Double, _ cluster: TestCluster, within deadline: Duration = .seconds(30)
    ) async throws {
        let end = ContinuousClock.now + deadline
        while try await self.epoch(cluster) <= epoch {
            try #require(ContinuousClock.now < end, "no view of the new leader")
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    /// Role and group of each worker, as `pdserve status` shows them.
    private func places(_ cluster: TestCluster) async throws -> [String] {
        let status = try await cluster.pdserve("status")
        #expect(status.status == 0, "\(status.output)")
        return status.output.split(separator: "\n")
            .filter { $0.contains("-worker-") && $0.contains("127.0.0.1") }
            .map { $0.split(separator: " ").prefix(4).joined(separator: " ") }.sorted()
    }

    private func waitForPlaces(_ expected: [String], _ cluster: TestCluster) async throws {
        let end = ContinuousClock.now + .seconds(20)
        var seen: [String] = []
        repeat {
            seen = try await places(cluster)
            if seen == expected { return }
            try await Task.sleep(for: .milliseconds(100))
        } while ContinuousClock.now < end
        #expect(seen == expected)
    }

    private func assign(_ cluster: TestCluster) async throws -> [String] {
        try await cluster.waitForOutput(of: "status") { $0.contains("2 prefill, 2 decode") }
        let reply = try await cluster.pdserve("assign", "decode-worker-2", "prefill")
        #expect(reply.status == 0, "\(reply.output)")
        try await cluster.waitForOutput(of: "status") { $0.contains("3 prefill, 1 decode") }
        let scale = try await cluster.pdserve("scale", "default", "--prefill", "3")
        #expect(scale.status == 0, "\(scale.output)")
        try await Task.sleep(for: .seconds(1))
        return try await places(cluster)
    }

    @Test func `a standby follows a leader that is killed under load, and nothing is lost`()
        async throws
    {
        try await TestCluster.run(
            prefill: 2, decode: 2, engine: "simulated", settings: { $0.schedulers = 2 }
        ) { cluster in
            let before = try await assign(cluster)
            #expect(try await health(scheduler(1, cluster)) == "ok")
            #expect(try await health(scheduler(2, cluster)) == "standby")
            let first = try scheduler(1, cluster)
            #expect(try await cluster.metric("scheduler_leads", of: first) == 1)
            try await cluster.underLoad {
                try await Task.sleep(for: .seconds(1))
                let epoch = try await self.epoch(cluster)
                let killed = ContinuousClock.now
                first.signal(SIGKILL)
                try await waitForEpoch(after: epoch, cluster)
                print("first view of the new leader after \(ContinuousClock.now - killed)")
                #expect(ContinuousClock.now - killed < .seconds(10))
                try await waitForHealth("ok", of: scheduler(2, cluster))
                try await waitForPlaces(before, cluster)
                try await Task.sleep(for: .seconds(2))
                #expect(try await places(cluster) == before)
            }
            // What people asked for is known, with who asked; no worker was moved.
            let events = try await cluster.pdserve("events", "--last", "200")
            #expect(events.status == 0)
            #expect(events.output.contains("assign worker=decode-worker-2 role=prefill: done"))
            #expect(events.output.contains("administrator"))
            #expect(events.output.components(separatedBy: "leads with epoch").count == 3)
            let second = events.output.components(separatedBy: "leads with epoch").last ?? ""
            #expect(!second.contains(" becomes "), "\(second)")
            let json = try await cluster.pdserve("events", "--last", "3", "--json")
            #expect(
                try JSONValue(text: String(json.output.split(separator: "\n")[0]))["kind"]
                    .string != nil)
            let audit = try await cluster.pdserve("scale", "default", "--prefill", "auto")
            #expect(audit.status == 0, "\(audit.output)")
            // And back, to a scheduler that was started again.
            try await cluster.cluster.startScheduler(number: 1)
            try await waitForHealth("standby", of: scheduler(1, cluster))
            try scheduler(2, cluster).signal(SIGTERM)
            try await waitForHealth("ok", of: scheduler(1, cluster))
            try await waitForPlaces(before, cluster)
        }
    }

    @Test func `a leader with a file that hangs is followed once it is killed`() async throws {
        try await TestCluster.run(
            decode: 2, engine: "simulated", settings: { $0.schedulers = 2 }
        ) { cluster in
            let (first, second) = try (scheduler(1, cluster), scheduler(2, cluster))
            try await cluster.underLoad {
                let epoch = try await self.epoch(cluster)
                first.signal(SIGSTOP)
                // It keeps the lock; requests need no scheduler.
                try await Task.sleep(for: .seconds(1))
                #expect(try await health(second) == "standby")
                #expect(try await self.epoch(cluster) == epoch)
                let killed = ContinuousClock.now
                first.signal(SIGKILL)
                try await waitForEpoch(after: epoch, cluster)
                print("first view after the kill of a hung leader: \(ContinuousClock.now - killed)")
                try await waitForHealth("ok", of: second)
                try await cluster.waitForOutput(of: "status") { $0.contains("1 prefill, 2 decode") }
            }
        }
    }

    @Test func `a gateway that starts while no scheduler is there serves by the last view`()
        async throws
    {
        try await TestCluster.run(engine: "simulated") { cluster in
            // The view is kept every two seconds.
            try await Task.sleep(for: .seconds(3))
            let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
            scheduler.signal(SIGKILL)
            await scheduler.waitUntilExit(within: .seconds(5))
            let gateway = try await cluster.cluster.startGateway(
                name: "gateway-2", httpListen: "127.0.0.1:0")
            let address = try #require(gateway.announcement.http)
            let end = ContinuousClock.now + .seconds(20)
            while true {
                let (head, _) = try await HTTPCall("GET", address, "/health").collect()
                if head.status == 200 { break }
                try #require(ContinuousClock.now < end, "it does not serve")
                try await Task.sleep(for: .milliseconds(50))
            }
            let (head, body) = try await HTTPCall(
                "POST", address, "/v1/completions",
                headers: ["content-type": "application/json"],
                body: Array(#"{"prompt":"Hello there","max_tokens":4}"#.utf8)
            ).collect()
            #expect(head.status == 200, "\(String(decoding: body, as: UTF8.self))")
            #expect(try await cluster.metric("gateway_view_epoch", of: gateway) == 0)
            // The scheduler's own view takes its place.
            let control = try #require(scheduler.announcement.control)
            try await cluster.cluster.startScheduler(listen: control.description)
            let again = ContinuousClock.now + .seconds(20)
            while try await cluster.metric("gateway_view_epoch", of: gateway) == 0 {
                try #require(ContinuousClock.now < again, "no view of the scheduler")
                try await Task.sleep(for: .milliseconds(50))
            }
        }
    }

    @Test(
        .enabled(
            if: Etcd.executable != nil,
            "etcd is not on PATH; apt-get install etcd-server brings it"))
    func `a leader that slept longer than its lease does nothing more and stands by`()
        async throws
    {
        let etcd = try await Etcd()
        defer { etcd.stop() }
        try await TestCluster.run(
            prefill: 2, decode: 2, engine: "simulated",
            arguments: [.scheduler: ["--store-lease", "2s"]],
            settings: {
                $0.schedulers = 2
                $0.store = "etcd:\(etcd.endpoint)"
            }
        ) { cluster in
            let before = try await assign(cluster)
            let (first, second) = try (scheduler(1, cluster), scheduler(2, cluster))
            try await cluster.underLoad {
                let epoch = try await self.epoch(cluster)
                let stopped = ContinuousClock.now
                first.signal(SIGSTOP)
                try await waitForEpoch(after: epoch, cluster)
                print("first view after a hang: \(ContinuousClock.now - stopped), lease 2 s")
                // An idle connection would end only after ten seconds.
                #expect(ContinuousClock.now - stopped < .seconds(9))
                try await waitForHealth("ok", of: second)
                try await waitForPlaces(before, cluster)
                let new = try await self.epoch(cluster)
                let orders =
                    try await cluster.metric(
                        "scheduler_assignments_total", of: second) ?? 0
                first.signal(SIGCONT)
                try await waitForHealth("standby", of: first)
                try await Task.sleep(for: .seconds(2))
                #expect(try await self.epoch(cluster) == new)
                #expect(try await places(cluster) == before)
                #expect(
                    try await cluster.metric("scheduler_assignments_total", of: second) == orders)
            }
            #expect(first.logTail(lines: 200).contains("leads no more"))
            #expect(try await cluster.metric("scheduler_leads", of: first) == 0)
            // It is as good as any standby.
            let epoch = try await self.epoch(cluster)
            second.signal(SIGKILL)
            try await waitForHealth("ok", of: first)
            try await waitForEpoch(after: epoch, cluster)
            try await waitForPlaces(before, cluster)
        }
    }
}

/// An etcd of the test's own, with one member.
private final class Etcd: Sendable {
    static let executable: String? = (ProcessInfo.processInfo.environment["PATH"] ?? "")
        .split(separator: ":").map { "\($0)/etcd" }
        .first { FileManager.default.isExecutableFile(atPath: $0) }

    let endpoint: String
    private let process = Process()
    private let folder = FileManager.default.temporaryDirectory
        .appending(path: "etcd-\(UInt32.random(in: 0 ... .max))")

    init() async throws {
        let address = try FreePort.take()
        endpoint = "http://\(address)"
        process.executableURL = URL(fileURLWithPath: Self.executable ?? "")
        process.arguments = [
            "--data-dir", folder.path, "--listen-client-urls", endpoint,
            "--advertise-client-urls", endpoint, "--listen-peer-urls", "http://127.0.0.1:0",
            "--log-level", "error",
        ]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        let end = ContinuousClock.now + .seconds(20)
        while true {
            let answer = try? await HTTPCall("GET", address, "/health").collect()
            if answer?.head.status == 200 { return }
            try #require(ContinuousClock.now < end, "etcd does not start")
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    func stop() {
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        try? FileManager.default.removeItem(at: folder)
    }
}
