private let mi300xSource = """
    AMD Instinct MI300X data sheet as quoted by https://aiwiki.ai/wiki/amd_instinct_mi300x and \
    https://www.emergentmind.com/topics/amd-mi300x-gpu: CDNA 3, 304 compute units, 192 GB HBM3, \
    5.3 TB/s, 128 GB/s both ways per Infinity Fabric link and 448 GB/s one way to 7 others; 750 W
    """
private let mi300xCompute = """
    https://www.jaredwatkins.com/research/ai-accelerators/amd-instinct/mi300-series/: about 1.3 \
    PFLOPS FP16 and 2.6 PFLOPS FP8, without sparsity; exactly 304 units x 2048 x 2.1 GHz = 1307.4 T
    """
private let epycSource = """
    https://www.hpctech.co.jp/product/amd-epyc-9004-series/: EPYC 9654 has 96 cores at 2.4 GHz, \
    12 channels DDR5-4800, BF16, VNNI and AVX-512 on 256-bit data paths, 128 lanes PCIe Gen5, 360 W
    """

extension DeviceProfile {
    static let amd = [mi300x, epyc9654]

    package static let mi300x = DeviceProfile(
        name: "MI300X", aliases: ["AMD Instinct MI300X", "Instinct MI300X", "gfx942"], kind: .gpu,
        maker: "AMD",
        compute: [
            .float32: Figure(
                163.4 * tera, "304 units x 256 x 2.1 GHz; 164.6 T in https://gpu.blog/gpus"),
            .float16: Figure(1307.4 * tera, mi300xCompute),
            .bfloat16: Figure(1307.4 * tera, mi300xCompute),
            .float8: Figure(2614.9 * tera, mi300xCompute),
            .int8: Figure(2614.9 * tera, mi300xCompute),
        ],
        memoryBytes: Figure(192 * giga, mi300xSource),
        memoryBytesPerSecond: Figure(5300 * giga, mi300xSource),
        networkBytesPerSecond: .estimate(50 * giga, "a 400 Gbps adapter per device"),
        peerBytesPerSecond: Figure(448 * giga, mi300xSource),
        hostBytesPerSecond: .estimate(64 * giga, "PCIe Gen5 x16, one way"),
        powerWatts: Figure(750, mi300xSource),
        pricePerHour: Figure(
            1.78, "https://gpu.blog/gpus/instinct-mi300x-mi300x: 1.71 and 1.85 $/h"),
        efficiency: .accelerator)

    package static let epyc9654 = DeviceProfile(
        name: "EPYC 9654",
        aliases: ["AMD EPYC 9654 96-Core Processor", "AMD EPYC 9654P 96-Core Processor"],
        kind: .cpu, maker: "AMD",
        compute: [
            .float32: .estimate(
                7.37 * tera, "96 cores x 32 FLOP (two 256-bit FMA) x 2.4 GHz"),
            .bfloat16: .estimate(14.7 * tera, "twice FP32 (dot products of pairs)"),
            .int8: .estimate(29.5 * tera, "four times FP32 (VNNI)"),
        ],
        memoryBytes: .estimate(
            384 * giga, "12 modules of 32 GB; the host's own memory where it is known"),
        memoryBytesPerSecond: Figure(
            460.8 * giga, epycSource + "; 12 x 8 bytes x 4.8 GT/s"),
        networkBytesPerSecond: .estimate(12.5 * giga, "a 100 Gbps adapter"),
        powerWatts: Figure(360, epycSource), efficiency: .processor)
}
