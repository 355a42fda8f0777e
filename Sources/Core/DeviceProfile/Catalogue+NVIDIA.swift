private let a100Source = """
    https://glennklockwood.com/garden/processors/A100 (after NVIDIA's data sheet and white \
    paper): dense TF32 156, FP16/BF16 312, INT8 624, INT4 1248, FP32 19.5 T; 80 GB, 2.039 TB/s; \
    NVLink 300+300 GB/s, PCIe Gen4 32+32 GB/s, 400 W
    """
private let h100Source = """
    https://glennklockwood.com/garden/processors/h100 (after NVIDIA's architecture paper): dense \
    TF32 494.7, FP16/BF16 989.4, FP8 and INT8 1978.9, FP32 66.9 T; 80 GB HBM3, 3.35 TB/s; NVLink \
    900, PCIe Gen5 128 GB/s both ways together, 700 W
    """
private let splitwiseSource = """
    Splitwise (arXiv 2311.18677), table I: InfiniBand 200 Gbps per A100 and 400 Gbps per H100
    """
private let priceSource = """
    https://www.mercatus-ai.com/blog/cloud-gpu-pricing, May 2026: the range of specialised \
    providers, its middle
    """

extension DeviceProfile {
    static let nvidia = [
        a100, h100, h100Capped, h200, l40s, rtx4090, rtx5090, gb10,
    ]

    package static let a100 = DeviceProfile(
        name: "A100-80GB",
        aliases: [
            "NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB", "A100-SXM4-80GB", "A100 80GB", "A100",
        ],
        kind: .gpu, maker: "NVIDIA",
        compute: [
            .float32: Figure(19.5 * tera, a100Source),
            .tensorFloat32: Figure(156 * tera, a100Source),
            .float16: Figure(312 * tera, a100Source), .bfloat16: Figure(312 * tera, a100Source),
            .int8: Figure(624 * tera, a100Source), .int4: Figure(1248 * tera, a100Source),
        ],
        memoryBytes: Figure(80 * giga, a100Source),
        memoryBytesPerSecond: Figure(2039 * giga, a100Source),
        networkBytesPerSecond: Figure(25 * giga, splitwiseSource),
        peerBytesPerSecond: Figure(300 * giga, a100Source),
        hostBytesPerSecond: Figure(32 * giga, a100Source),
        powerWatts: Figure(400, a100Source), pricePerHour: Figure(1.3, priceSource),
        efficiency: .accelerator)

    package static let h100 = DeviceProfile(
        name: "H100 SXM",
        aliases: ["NVIDIA H100 80GB HBM3", "H100 80GB HBM3", "H100 SXM5", "H100-SXM", "H100"],
        kind: .gpu, maker: "NVIDIA", compute: hopperCompute,
        memoryBytes: Figure(80 * giga, h100Source),
        memoryBytesPerSecond: Figure(3350 * giga, h100Source),
        networkBytesPerSecond: Figure(50 * giga, splitwiseSource),
        peerBytesPerSecond: Figure(450 * giga, h100Source),
        hostBytesPerSecond: Figure(64 * giga, h100Source),
        powerWatts: Figure(700, h100Source), pricePerHour: Figure(3, priceSource),
        efficiency: .accelerator)

    private static let hopperCompute: [NumberType: Figure] = [
        .float32: Figure(66.9 * tera, h100Source),
        .tensorFloat32: Figure(494.7 * tera, h100Source),
        .float16: Figure(989.4 * tera, h100Source), .bfloat16: Figure(989.4 * tera, h100Source),
        .float8: Figure(1978.9 * tera, h100Source), .int8: Figure(1978.9 * tera, h100Source),
    ]

    /// An H100 whose power is capped to half, as Splitwise's token machines: prefill takes 1.3
    /// times as long, decode as long as before.
    package static let h100Capped: DeviceProfile = {
        var profile = h100
        profile.name = "H100 SXM 350W"
        profile.aliases = ["H100-pcap", "HHcap"]
        profile.powerWatts = Figure(
            350, "Splitwise (arXiv 2311.18677), section 5: token GPUs capped to 50 % of 700 W")
        profile.efficiency.computeShare = .estimate(
            h100.efficiency.computeShare.value / 1.3,
            """
            rows H100-pcap of github.com/Mutinifni/splitwise-sim perf_model.csv: prompt time 1.30 \
            times the H100's, token time the same
            """)
        return profile
    }()

    private static let h200Source = """
        https://www.aiminingco.com/gpu/h200/specs: the H100's die with 141 GB HBM3e, 4.8 TB/s, \
        NVLink 900 GB/s, 700 W
        """

    package static let h200: DeviceProfile = {
        var profile = h100
        profile.name = "H200"
        profile.aliases = ["NVIDIA H200", "H200 SXM"]
        profile.memoryBytes = Figure(141 * giga, h200Source)
        profile.memoryBytesPerSecond = Figure(4800 * giga, h200Source)
        profile.powerWatts = Figure(700, h200Source)
        profile.pricePerHour = Figure(4, priceSource)
        return profile
    }()

    private static let l40sSource = """
        https://www.mullet.se/product.html?product_id=355414 (NVIDIA's table): dense TF32 183, \
        FP16/BF16 362.05, FP8 733, FP32 91.6 T; 48 GB, 864 GB/s, PCIe Gen4 64 GB/s both ways, \
        350 W
        """

    package static let l40s = DeviceProfile(
        name: "L40S", aliases: ["NVIDIA L40S"], kind: .gpu, maker: "NVIDIA",
        compute: [
            .float32: Figure(91.6 * tera, l40sSource),
            .tensorFloat32: Figure(183 * tera, l40sSource),
            .float16: Figure(362.05 * tera, l40sSource),
            .bfloat16: Figure(362.05 * tera, l40sSource), .float8: Figure(733 * tera, l40sSource),
            .int8: .estimate(733 * tera, "as FP8, as on all cards of this generation"),
        ],
        memoryBytes: Figure(48 * giga, l40sSource),
        memoryBytesPerSecond: Figure(864 * giga, l40sSource),
        networkBytesPerSecond: .estimate(25 * giga, "a 200 Gbps adapter per card"),
        hostBytesPerSecond: Figure(32 * giga, l40sSource),
        powerWatts: Figure(350, l40sSource), efficiency: .accelerator)

    private static let rtx4090Source = """
        https://hmc-tech.com/gpus/nvidia-geforce-rtx-4090-vs-nvidia-rtx-pro-5000-blackwell: dense \
        FP16 and BF16 with FP32 sums 165.2, FP8 330.3, INT8 660.6, INT4 1321, FP32 82.58 T; \
        24 GB, 1.01 TB/s, 450 W
        """
    private static let homeNetwork = Figure.estimate(1.25 * giga, "10 Gbit/s Ethernet")

    package static let rtx4090 = DeviceProfile(
        name: "RTX 4090", aliases: ["NVIDIA GeForce RTX 4090", "GeForce RTX 4090"], kind: .gpu,
        maker: "NVIDIA",
        compute: [
            .float32: Figure(82.58 * tera, rtx4090Source),
            .tensorFloat32: Figure(82.58 * tera, rtx4090Source),
            .float16: Figure(165.2 * tera, rtx4090Source),
            .bfloat16: Figure(165.2 * tera, rtx4090Source),
            .float8: Figure(330.3 * tera, rtx4090Source),
            .int8: Figure(660.6 * tera, rtx4090Source), .int4: Figure(1321 * tera, rtx4090Source),
        ],
        memoryBytes: Figure(24 * giga, rtx4090Source),
        memoryBytesPerSecond: Figure(1008 * giga, "https://cputronic.com: 1008 GB/s"),
        networkBytesPerSecond: homeNetwork,
        hostBytesPerSecond: Figure(
            32 * giga, "https://cputronic.com: PCIe 4.0 x16, 32 GB/s one way"),
        powerWatts: Figure(450, rtx4090Source),
        efficiency: .llama(
            compute: 0.6, bandwidth: 0.8, "one card, no exchange with others: large products"))

    private static let rtx5090Source = """
        https://www.spheron.network/blog/nvidia-rtx-5090-specs/: with sparsity FP16 838.4, FP8 \
        1676.8, FP4 3352 T; FP32 105.2 T; 32 GB, 1792 GB/s, PCIe Gen5 x16, 575 W
        """

    package static let rtx5090 = DeviceProfile(
        name: "RTX 5090", aliases: ["NVIDIA GeForce RTX 5090", "GeForce RTX 5090"], kind: .gpu,
        maker: "NVIDIA",
        compute: [
            .float32: Figure(105.2 * tera, rtx5090Source),
            .float16: .estimate(
                209.6 * tera,
                "a quarter of the 838.4 T with sparsity: half without, half with FP32 sums"),
            .bfloat16: .estimate(209.6 * tera, "as FP16"),
            .float8: .estimate(419.2 * tera, "a quarter of the 1676.8 T with sparsity"),
            .float4: .estimate(1676 * tera, "half of the 3352 T with sparsity"),
        ],
        memoryBytes: Figure(32 * giga, rtx5090Source),
        memoryBytesPerSecond: Figure(1792 * giga, rtx5090Source),
        networkBytesPerSecond: homeNetwork,
        hostBytesPerSecond: Figure(64 * giga, rtx5090Source + "; 64 GB/s one way"),
        powerWatts: Figure(575, rtx5090Source),
        efficiency: .llama(
            compute: 0.6, bandwidth: 0.8, "one card, no exchange with others: large products"))

    private static let gb10Source = """
        https://ai-infrastructure.net/dgx-spark/: 1 PFLOP FP4 with sparsity, 128 GB LPDDR5x at \
        273 GB/s shared by processor and GPU, ConnectX-7 200 Gb/s, about 140 W
        """
    private static let exoSource = """
        EXO's report on a DGX Spark and a Mac (blog.exolabs.net/nvidia-dgx-spark): about 100 \
        TFLOPs FP16; prefill of 8192 tokens of Llama-3.1-8B in 16 bits in 1.47 s, 32 tokens \
        decoded in 2.87 s
        """

    package static let gb10 = DeviceProfile(
        name: "GB10", aliases: ["NVIDIA GB10", "DGX Spark"], kind: .gpu, maker: "NVIDIA",
        compute: [
            .float32: Figure(
                31 * tera, "https://meterpreter.org (Hot Chips 2025): about 31 TFLOPS FP32"),
            .float16: Figure(100 * tera, exoSource), .bfloat16: Figure(100 * tera, exoSource),
            .float8: .estimate(250 * tera, "a quarter of the 1 PFLOP FP4 with sparsity"),
            .float4: .estimate(500 * tera, "half of the 1 PFLOP FP4 with sparsity"),
        ],
        memoryBytes: Figure(128 * giga, gb10Source),
        memoryBytesPerSecond: Figure(273 * giga, gb10Source),
        networkBytesPerSecond: Figure(25 * giga, gb10Source),
        powerWatts: Figure(140, gb10Source),
        efficiency: .llama(
            compute: 0.9, bandwidth: 0.66,
            "8192 tokens in 1.47 s, 32 tokens in 2.87 s: " + exoSource))
}
