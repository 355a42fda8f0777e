import DeviceDiscovery
import DeviceProfile
import ServingTypes
import Testing

struct DeviceDiscoveryTests {
    private let facts = ProcessorFacts(
        name: "Some Processor", cores: 8, hertz: 2.5e9, flags: ["avx512f", "avx512_vnni"],
        memoryBytes: 64e9)

    @Test func aKnownNameGetsItsProfile() {
        let reading = DeviceReading(
            name: "NVIDIA H100 80GB HBM3", kind: "GPU", totalMemoryBytes: 1, freeMemoryBytes: 0)
        let found = DeviceDiscovery.match(
            reading, source: "NVML", profiles: DeviceProfile.catalogue, facts: facts)
        #expect(found.profile?.name == "H100 SXM")
        #expect(!found.isDerived)
    }

    @Test func anUnknownProcessorGetsADerivedProfile() {
        let reading = DeviceReading(
            name: "Some Processor", kind: "CPU", totalMemoryBytes: 1, freeMemoryBytes: 0)
        let found = DeviceDiscovery.match(
            reading, source: "ggml", profiles: DeviceProfile.catalogue, facts: facts)
        #expect(found.isDerived)
        // 8 cores x 64 x 2.5 GHz; dot products of bytes are four times as fast.
        #expect(found.profile?.compute[.float32]?.value == 1.28e12)
        #expect(found.profile?.compute[.int8]?.value == 5.12e12)
        #expect(found.profile?.memoryBytes.value == 64e9)
    }

    @Test func anUnknownCardGetsNone() {
        let reading = DeviceReading(
            name: "Card 7", kind: "GPU", totalMemoryBytes: 1, freeMemoryBytes: 0)
        let found = DeviceDiscovery.match(
            reading, source: "ggml", profiles: DeviceProfile.catalogue, facts: facts)
        #expect(found.profile == nil)
    }

    @Test func readsCpuinfo() throws {
        let text = """
            processor\t: 0
            model name\t: Intel(R) Xeon(R) Processor @ 2.50GHz
            cpu MHz\t\t: 2500.123
            physical id\t: 0
            core id\t\t: 0
            flags\t\t: fpu fma avx2

            processor\t: 1
            model name\t: Intel(R) Xeon(R) Processor @ 2.50GHz
            cpu MHz\t\t: 2600
            physical id\t: 0
            core id\t\t: 0
            flags\t\t: fpu fma avx2
            """
        let facts = try #require(ProcessorFacts(cpuinfo: text, memoryBytes: 1))
        #expect(facts.cores == 1)
        #expect(facts.hertz == 2.6e9)
        #expect(facts.flags == ["fpu", "fma", "avx2"])
        #expect(facts.name == "Intel(R) Xeon(R) Processor @ 2.50GHz")
        #expect(ProcessorFacts(cpuinfo: "", memoryBytes: 1) == nil)
    }

    @Test func thisHostHasProcessors() {
        let found = DeviceDiscovery.devices()
        let processors = found.filter { $0.reading.kind == "CPU" }
        #expect(processors.count == 1)
        #expect(processors.first?.profile != nil)
    }
}
