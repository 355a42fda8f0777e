import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// Real processes whose wall clock jumps; that of the machine stays as it is.
@Suite(.serialized) struct ClockTests {
    /// Gives a process another wall clock, by the seconds in a file, and nothing else: waits until
    /// a moment of the wall clock end by it, as with the kernel's own.
    private static let source = #"""
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <semaphore.h>
        #include <stdlib.h>
        #include <sys/mman.h>
        #include <sys/syscall.h>
        #include <sys/time.h>
        #include <time.h>
        #include <unistd.h>

        static long offset(void) {
          static volatile long *seconds;
          if (!seconds) {
            const char *path = getenv("WALL_CLOCK_SECONDS");
            int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
            if (file < 0) return 0;
            void *page = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
            close(file);
            if (page == MAP_FAILED) return 0;
            seconds = page;
          }
          return *seconds;
        }
        int clock_gettime(clockid_t clock, struct timespec *time) {
          int code = syscall(SYS_clock_gettime, clock, time);
          if (!code && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
            time->tv_sec += offset();
          return code;
        }
        int gettimeofday(struct timeval *restrict time, void *restrict zone) {
          struct timespec now;
          clock_gettime(CLOCK_REALTIME, &now);
          time->tv_sec = now.tv_sec, time->tv_usec = now.tv_nsec / 1000;
          return 0;
        }
        time_t time(time_t *result) {
          struct timespec now;
          clock_gettime(CLOCK_REALTIME, &now);
          if (result) *result = now.tv_sec;
          return now.tv_sec;
        }
        int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict end) {
          while (1) {
            struct timespec now, next;
            clock_gettime(CLOCK_REALTIME, &now);
            long left = (end->tv_sec - now.tv_sec) * 1000000000L + end->tv_nsec - now.tv_nsec;
            long slice = left < 0 ? 0 : left < 20000000L ? left : 20000000L;
            clock_gettime(CLOCK_MONOTONIC, &next);
            next.tv_nsec += slice;
            if (next.tv_nsec >= 1000000000L) next.tv_sec++, next.tv_nsec -= 1000000000L;
            if (!sem_clockwait(semaphore, CLOCK_MONOTONIC, &next)) return 0;
            if (errno != ETIMEDOUT || left <= 0) return -1;
          }
        }
        """#

    /// The library made of it; nil without a C compiler.
    private static let library: URL? = {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-clock-\(UInt32.random(in: 0 ... .max))")
        let code = folder.appending(path: "clock.c")
        let library = folder.appending(path: "clock.so")
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            try Data(source.utf8).write(to: code)
            try runProgram("/usr/bin/cc", "-shared", "-fPIC", "-o", library.path, code.path)
            return library
        } catch {
            try? FileManager.default.removeItem(at: folder)
            return nil
        }
    }()

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

    @Test(.enabled(if: library != nil, "there is no C compiler /usr/bin/cc"))
    func `a wall clock that jumps by an hour moves no lease, no deadline, no rate and no term`()
        async throws
    {
        let library = try #require(Self.library)
        let folder = library.deletingLastPathComponent()
        defer { try? FileManager.default.removeItem(at: folder) }
        let seconds = folder.appending(path: "seconds")
        try Data(count: 8).write(to: seconds)
        let file = try FileHandle(forUpdating: seconds)
        func jump(_ offset: Int) throws {
            try file.seek(toOffset: 0)
            try file.write(contentsOf: unsafe withUnsafeBytes(of: offset) { unsafe Data($0) })
        }
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
                        "/usr/bin/env", "LD_PRELOAD=\(library.path)",
                        "WALL_CLOCK_SECONDS=\(seconds.path)",
                    ]
                }
            }
        ) { cluster in
            let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
            let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
            let before = try await cluster.post("/v1/completions", completion())
            #expect(before.status == 200)
            for _ in 0..<2 {
                let answer = try await cluster.post("/v1/completions", completion("limited"))
                #expect(answer.status == 200)
            }
            let stream = Task {
                try await cluster.post("/v1/completions", completion(tokens: 300))
            }
            for offset in [3600, -3600] {
                try jump(offset)
                let answer = try await cluster.post("/v1/completions", completion())
                #expect(answer.status == 200)
                let created = try #require(answer.json["created"].int)
                let expected = Int(Date().timeIntervalSince1970) + offset
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
            try await restart(scheduler, cluster, gateway)
        }
    }

    /// The scheduler starts again an hour before its first life.
    private func restart(
        _ scheduler: ManagedProcess, _ cluster: TestCluster, _ gateway: ManagedProcess
    ) async throws {
        let epoch = try await cluster.metric("gateway_view_epoch", of: gateway)
        let address = try #require(scheduler.announcement.control)
        scheduler.signal(SIGTERM)
        #expect(await scheduler.waitUntilExit(within: .seconds(20)))
        try await cluster.cluster.startScheduler(listen: address.description)
        try await cluster.cluster.startWorker(.decodeWorker, number: 2)
        try await awaited("the gateway follows the new scheduler") {
            gateway.logTail(lines: 1000).contains("is connected worker=decode-worker-2")
        }
        let now = try await cluster.metric("gateway_view_epoch", of: gateway)
        #expect(try #require(now) > #require(epoch))
        #expect(try await cluster.post("/v1/completions", completion()).status == 200)
    }
}
