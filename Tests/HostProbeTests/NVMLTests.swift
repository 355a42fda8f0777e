import Foundation
import HostProbe
import ServingTypes
import Testing

/// NVIDIA's library, in the place of which stands one that answers from a file.
@Suite(.serialized) struct NVMLTests {
    /// Compiles the library into a folder of its own.
    private func library() throws -> URL {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "nvml-\(UInt64.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let file = folder.appending(path: "libnvidia-ml.so.1")
        let compiler = Process()
        compiler.executableURL = URL(filePath: "/usr/bin/env")
        compiler.arguments = [
            "clang", "-shared", "-fPIC", "-o", file.path,
            Recorded.folder.appending(path: "nvml.c").path,
        ]
        try compiler.run()
        compiler.waitUntilExit()
        try #require(compiler.terminationStatus == 0)
        return file
    }

    @Test func `devices are read with what is wrong with them`() throws {
        let file = try library()
        defer { try? FileManager.default.removeItem(at: file.deletingLastPathComponent()) }
        unsafe setenv("NVML_RECORDED", Recorded.folder.appending(path: "nvml-devices.txt").path, 1)
        #expect(NVMLProbe.isInstalled(path: file.path))
        let probe = NVMLProbe(path: file.path)
        let samples = try probe.read()
        #expect(
            samples.map(\.reading.id)
                == ["0000:c1:00.0", "0000:c2:00.0", "0000:c3:00.0", "0000:c4:00.0"])
        let well = samples[0]
        #expect(well.reading.name == "NVIDIA_H100")
        #expect(well.reading.totalMemoryBytes == 81_559 << 20)
        #expect(well.reading.freeMemoryBytes == 40_000 << 20)
        #expect(well.reading.busyFraction == 0.97)
        #expect(well.reading.temperatureCelsius == 71)
        #expect(well.reading.powerWatts == 689)
        #expect(well.reading.correctedErrors == 12)
        #expect((well.hotCelsius, well.criticalCelsius) == (87, 92))
        #expect(well.throttling == [], "a power cap is no fault")
        #expect(well.alarms == [])
        #expect(samples[1].throttling.count == 2)
        #expect(samples[1].reading.uncorrectedErrors == 2)
        #expect(samples[1].alarms.map(\.grade) == [.degraded])
        #expect(
            samples[2].alarms
                == [.init(.lost, "its driver has lost it"), .init(.lost, "XID 79")])
        #expect(samples[3].alarms.map(\.text).last == "XID 48")
        // What has come once stays for a while.
        #expect(try probe.read()[3].alarms.map(\.grade) == [.failing, .failing])
    }

    @Test func `a driver that is not loaded is an error, not an end`() throws {
        let file = try library()
        defer { try? FileManager.default.removeItem(at: file.deletingLastPathComponent()) }
        unsafe setenv("NVML_BROKEN", "1", 1)
        defer { unsafe unsetenv("NVML_BROKEN") }
        #expect(throws: ProbeError.failed("\(file.path) can't be used: NVML's code 9")) {
            try NVMLProbe(path: file.path).read()
        }
    }

    @Test func `a host without the library has no such probe`() {
        #expect(!NVMLProbe.isInstalled(path: "/nonexistent/libnvidia-ml.so.1"))
        #expect(throws: ProbeError.self) {
            try NVMLProbe(path: "/nonexistent/libnvidia-ml.so.1").read()
        }
    }
}
