import Foundation
import ServingTypes
import Testing

@testable import HostProbe

/// Readings of a Linux host.
@Suite struct HostTests {
    private let proc = Recorded.folder.appending(path: "proc").path
    private let sys = Recorded.folder.appending(path: "sys").path

    @Test func `processors, heat, memory and stalls are read`() throws {
        let probe = ProcessorProbe(procPath: proc, sysPath: sys)
        let samples = try probe.read()
        #expect(samples.map(\.reading.id) == ["cpu", "memory"])
        #expect(samples[0].reading.name == "AMD EPYC 9654 96-Core Processor")
        #expect(samples[0].loadPerProcessor == 1.75)
        #expect(samples[0].reading.temperatureCelsius == 83, "of the zone nearest to its limit")
        #expect(samples[0].hotCelsius == 90)
        #expect(samples[0].criticalCelsius == 100)
        #expect(samples[1].reading.totalMemoryBytes == 131_841_536 << 10)
        #expect(samples[1].reading.freeMemoryBytes == 65_920_768 << 10)
        #expect(samples[1].stalledFraction == 0.0425)
    }

    @Test func `a host that says nothing gives readings without numbers`() throws {
        let samples = try ProcessorProbe(procPath: "/nonexistent", sysPath: "/nonexistent").read()
        #expect(samples.map(\.reading.totalMemoryBytes) == [0, 0])
        #expect(samples[1].stalledFraction == nil)
        #expect(samples[0].loadPerProcessor == nil)
    }

    @Test func `this host is read, and the busy part of its time between two readings`() throws {
        let probe = ProcessorProbe()
        _ = try probe.read()
        let end = ContinuousClock.now + .milliseconds(300)
        while ContinuousClock.now < end {}
        let samples = try probe.read()
        #expect(samples[0].reading.busyFraction > 0)
        #expect(samples[1].reading.totalMemoryBytes > 1 << 20)
    }

    @Test func `disks have room, and a folder that is not there is said`() throws {
        let samples = try DiskProbe(folders: ["/", "/nonexistent"]).read()
        #expect(samples[0].reading.totalMemoryBytes > samples[0].reading.freeMemoryBytes)
        #expect(samples[0].alarms == [])
        #expect(samples[1].alarms.map(\.grade) == [.degraded])
    }

    private final class Slow: DeviceProbe {
        let name = "slow"
        func read() throws(ProbeError) -> [DeviceSample] {
            Thread.sleep(forTimeInterval: 5)
            return []
        }
    }

    @Test func `a probe that hangs delays nobody and is said to be overdue`() async throws {
        let thread = ProbeThread("slow", deadline: .milliseconds(100)) { Slow() }
        let start = ContinuousClock.now
        #expect(thread.report == nil)
        while thread.report == nil { try await Task.sleep(for: .milliseconds(10)) }
        #expect(ContinuousClock.now - start < .seconds(4))
        guard case .overdue(let age)? = thread.report?.result else {
            Issue.record("it is not overdue")
            return
        }
        #expect(age >= .milliseconds(100))
    }

    @Test func `readings come again and again with rising numbers`() async throws {
        let proc = proc
        let thread = ProbeThread("host", interval: .milliseconds(10), deadline: .seconds(5)) {
            ProcessorProbe(procPath: proc)
        }
        var numbers: Set<UInt64> = []
        let end = ContinuousClock.now + .seconds(20)
        while numbers.count < 3, ContinuousClock.now < end {
            if let report = thread.report { numbers.insert(report.number) }
            try await Task.sleep(for: .milliseconds(5))
        }
        #expect(numbers.count == 3)
    }
}
