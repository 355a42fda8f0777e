import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// Real processes whose wall clock jumps; that of the machine stays as it is.
@Suite(.serialized) struct ClockTests {
    /// From Debian's package libfaketime.
    private static let library: String? = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ].first { FileManager.default.fileExists(atPath: $0) }

    /// Starts a service with settings in its environment: Swift finds no arguments in a process to
    /// which libfaketime has added variables.
    private static let script = """
        library=$1 times=$2 program=$3; shift 3
        while [ $# -ge 2 ]; do
          name=PDSERVE_$(printf %s "${1#--}" | tr a-z- A-Z_)
          export "$name=$2"; shift 2
        done
        export FAKETIME_TIMESTAMP_FILE=$times FAKETIME_NO_CACHE=1 NO_FAKE_STAT=1
        export DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1 LD_PRELOAD=$library
        exec "$program"
        """

    private static let rules = """
        scenarios:
          - name: default
            match: {models: [simulated]}
            limits: {ttft: 10s}
          - name: limited
            match: {models: [limited]}
            model: simulated
            requests-per-minute: 2
            prefill: {minimum: 0}
            decode: {minimum: 0}

        """

    private func completion(_ model: String = "simulated", tokens: Int = 4) -> String {
        #"{"model":"\#(model)","prompt":"time","max_tokens":\#(tokens),"ignore_eos":true}"#
    }

    @Test(.enabled(if: library != nil, "libfaketime is not installed (apt-get install faketime)"))
    func `a wall clock that jumps by an hour moves no lease, no deadline, no rate and no term`()
        async throws
    {
        let library = try #require(Self.library)
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-clock-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let times = folder.appending(path: "times")
        func jump(_ offset: String) throws { try Data("\(offset)\n".utf8).write(to: times) }
        try jump("+0")
        let rules = folder.appending(path: "rules.yaml")
        try Data(Self.rules.utf8).write(to: rules)
        try await TestCluster.run(
            engine: "simulated",
            settings: { settings in
                settings.clusterFile = rules.path
                for name in [
                    "scheduler", "gateway", "health-agent", "prefill-worker-1", "decode-worker-1",
                ] {
                    settings.commandsByName[name] = [
                        "/bin/sh", "-c", Self.script, "sh", library, times.path,
                    ]
                }
            }
        ) { cluster in
            let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
            let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
            let before = try await cluster.post("/v1/completions", completion())
            #expect(before.status == 200)
            for _ in 0..<2 {
                #expect(try await cluster.post("/v1/completions", completion("limited")).status == 200)
            }
            let stream = Task {
                try await cluster.post("/v1/completions", completion(tokens: 300))
            }
            for (offset, seconds) in [("+3600", 3600), ("-3600", -3600)] {
                try jump(offset)
                let answer = try await cluster.post("/v1/completions", completion())
                #expect(answer.status == 200)
                let created = try #require(answer.json["created"].int)
                let expected = Int(Date().timeIntervalSince1970) + seconds
                #expect(abs(created - expected) < 300, "the clock has jumped: \(created)")
                // A jump forward must not fill the bucket of a minute.
                let limited = try await cluster.post("/v1/completions", completion("limited"))
                #expect(limited.status == 429)
                // Longer than beats and answers may be late.
                try await Task.sleep(for: .milliseconds(1500))
            }
            let (status, json) = try await stream.value
            #expect(status == 200 && json["usage"]["completion_tokens"].int == 300)
            #expect(try await cluster.metric("gateway_requests_restarted_total", of: gateway) == 0)
            #expect(!scheduler.logTail(lines: 1000).contains("lease"), "all workers have stayed")
            // It starts again an hour before its first life.
            let epoch = try await cluster.metric("gateway_view_epoch", of: gateway)
            let address = try #require(scheduler.announcement.control)
            scheduler.signal(SIGTERM)
            #expect(await scheduler.waitUntilExit(within: .seconds(20)))
            try await cluster.cluster.startScheduler(listen: address.description)
            try await cluster.cluster.startWorker(.decodeWorker, number: 2)
            try await awaited("the gateway follows the new scheduler") {
                gateway.logTail(lines: 1000).contains("a worker is connected worker=decode-worker-2")
            }
            let now = try await cluster.metric("gateway_view_epoch", of: gateway)
            #expect(try #require(now) > #require(epoch))
            #expect(try await cluster.post("/v1/completions", completion()).status == 200)
        }
    }
}
