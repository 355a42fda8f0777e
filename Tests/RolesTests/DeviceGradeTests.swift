import Roles
import ServingTypes
import Testing

/// Grades of devices, over time.
@Suite struct DeviceGradeTests {
    /// A grader with a clock; each reading comes two seconds after the one before it.
    private struct Bench {
        var grader = DeviceGrader()
        var now = MonotonicTime.start
        var number: UInt64 = 0

        mutating func read(_ samples: [DeviceSample]) {
            take(.devices(samples))
        }

        mutating func take(_ result: ProbeReport.Result) {
            now = now + .seconds(2)
            number += 1
            grader.take(ProbeReport(probe: "NVML", number: number, result: result), now: now)
        }

        /// The grades after so many of these readings.
        mutating func grades(_ count: Int, _ sample: DeviceSample) -> [DeviceGrade] {
            (0..<count).compactMap { _ in
                read([sample])
                return grader.readings.first?.grade
            }
        }

        var reason: String { grader.readings.first?.reason ?? "" }
    }

    private func gpu(
        celsius: Double = 50, uncorrected: UInt64 = 0, corrected: UInt64 = 0,
        alarms: [DeviceSample.Alarm] = []
    ) -> DeviceSample {
        var reading = DeviceReading(
            id: "0000:c1:00.0", name: "H100", kind: "GPU", totalMemoryBytes: 1 << 36,
            freeMemoryBytes: 1 << 35)
        reading.temperatureCelsius = celsius
        reading.uncorrectedErrors = uncorrected
        reading.correctedErrors = corrected
        var sample = DeviceSample(reading)
        sample.hotCelsius = 87
        sample.criticalCelsius = 92
        sample.alarms = alarms
        return sample
    }

    @Test func `a grade sinks after some bad readings and rises after a while`() {
        var bench = Bench()
        #expect(bench.grades(3, gpu()) == [.ok, .ok, .ok])
        #expect(bench.grades(3, gpu(celsius: 88)) == [.ok, .ok, .degraded])
        #expect(bench.reason == "it is 88 °C hot, 87 is too hot")
        #expect(bench.grades(15, gpu()).allSatisfy { $0 == .degraded })
        #expect(bench.grades(1, gpu()) == [.ok])
        #expect(bench.reason.isEmpty)
    }

    @Test func `a value that swings around its threshold moves no grade`() {
        var bench = Bench()
        for _ in 0..<20 {
            #expect(bench.grades(2, gpu(celsius: 88)) == [.ok, .ok])
            #expect(bench.grades(1, gpu(celsius: 86)) == [.ok])
        }
        _ = bench.grades(3, gpu(celsius: 88))
        for _ in 0..<40 {
            // Within the margin: it stays as it is.
            #expect(bench.grades(1, gpu(celsius: 85)) == [.degraded])
        }
        for _ in 0..<10 {
            #expect(bench.grades(10, gpu()).last == .degraded)
            #expect(bench.grades(1, gpu(celsius: 88)) == [.degraded])
        }
    }

    @Test func `a device that its driver lost, or lists no more, is lost`() {
        var bench = Bench()
        _ = bench.grades(1, gpu())
        #expect(
            bench.grades(3, gpu(alarms: [.init(.lost, "its driver has lost it")])).last == .lost)
        var other = Bench()
        _ = other.grades(1, gpu())
        for _ in 0..<3 { other.read([]) }
        #expect(other.grader.readings.map(\.grade) == [.lost])
        #expect(other.reason == "its driver does not list it any more")
    }

    @Test func `errors count while they are new`() {
        var bench = Bench()
        #expect(bench.grades(3, gpu(uncorrected: 100)).last == .ok, "they are old")
        #expect(bench.grades(3, gpu(uncorrected: 101)).last == .degraded)
        #expect(bench.grades(3, gpu(uncorrected: 108)).last == .failing)
        #expect(bench.reason == "8 uncorrected memory errors lately")
        #expect(bench.grades(400, gpu(uncorrected: 108)).last == .ok)
        #expect(bench.grades(3, gpu(uncorrected: 0)).last == .ok, "it was reset")
        #expect(bench.grades(3, gpu(corrected: 5000)).last == .degraded)
    }

    @Test func `of several faults the worst counts and all are said`() {
        var bench = Bench()
        var sample = gpu(celsius: 93, alarms: [.init(.degraded, "XID 13")])
        sample.throttling = ["the hardware slows it down"]
        #expect(bench.grades(3, sample).last == .failing)
        #expect(
            bench.reason
                == "XID 13; it is 93 °C hot, 92 is critical; "
                + "it runs slower: the hardware slows it down")
    }

    @Test func `a probe that hangs makes its devices degraded, then failing`() {
        var bench = Bench()
        _ = bench.grades(1, gpu())
        for _ in 0..<3 { bench.take(.overdue(.seconds(6))) }
        #expect(bench.grader.readings.map(\.grade) == [.degraded])
        for _ in 0..<3 { bench.take(.overdue(.seconds(61))) }
        #expect(bench.grader.readings.map(\.grade) == [.failing])
        #expect(bench.reason == "NVML has not answered for 61 s")
    }

    @Test func `a probe that never named a device is shown itself until it does`() {
        var bench = Bench()
        for _ in 0..<3 { bench.take(.failed("the driver is not loaded")) }
        #expect(bench.grader.readings.map(\.id) == ["probe:NVML"])
        #expect(bench.grader.readings.map(\.grade) == [.degraded])
        bench.read([gpu()])
        #expect(bench.grader.readings.map(\.id) == ["0000:c1:00.0"])
    }

    @Test func `a reading counts once, however often it is given`() {
        var grader = DeviceGrader()
        let report = ProbeReport(
            probe: "NVML", number: 1, result: .devices([gpu(celsius: 99)]))
        for second in 0..<10 { grader.take(report, now: .start + .seconds(second)) }
        #expect(grader.readings.map(\.grade) == [.ok])
    }

    @Test func `memory, disks and stalls of the host are judged by what is left`() {
        func part(_ kind: String, free: UInt64, stalled: Double? = nil) -> DeviceSample {
            var sample = DeviceSample(
                DeviceReading(
                    id: kind, name: kind, kind: kind, totalMemoryBytes: 1000 << 20,
                    freeMemoryBytes: free << 20))
            sample.stalledFraction = stalled
            return sample
        }
        for (sample, grade) in [
            (part("memory", free: 500), DeviceGrade.ok), (part("memory", free: 40), .degraded),
            (part("memory", free: 9), .failing), (part("disk", free: 40), .degraded),
            (part("disk", free: 4), .failing), (part("memory", free: 500, stalled: 0.3), .degraded),
            (part("memory", free: 500, stalled: 0.9), .failing),
        ] {
            var bench = Bench()
            #expect(bench.grades(3, sample).last == grade, "\(sample)")
        }
    }

    @Test func `the number of devices has a bound`() {
        var limits = DeviceLimits()
        limits.maximumDevices = 2
        var grader = DeviceGrader(limits: limits)
        let samples = (0..<5).map { number in
            DeviceSample(
                DeviceReading(
                    id: "\(number)", name: "", kind: "GPU", totalMemoryBytes: 0,
                    freeMemoryBytes: 0))
        }
        grader.take(ProbeReport(probe: "x", number: 1, result: .devices(samples)), now: .start)
        #expect(grader.readings.count == 2)
    }
}
