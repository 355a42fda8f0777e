private let m2Source = """
    https://hmc-tech.com/gpu/apple-32-core-m4-max-vs-apple-60-core-m2-ultra: 60 cores 21.47 T in \
    FP32 and FP16
    """
private let m3Source = """
    https://hmc-tech.com/gpu/apple-8-core-m4-fl-vs-apple-40-core-m3-max: the M3 Max with 40 cores \
    14.32 T in FP32 and FP16; the M3 Ultra is two of them
    """
private let m4Source = """
    https://hmc-tech.com/gpu/apple-32-core-m4-max-vs-apple-60-core-m2-ultra: 32 cores 13.74 T in \
    FP32 and FP16
    """
private let ultraMemory = """
    https://inforeader.com (table of Apple's chips, March 2025): M2 Ultra up to 192 GB, M3 Ultra \
    up to 512 GB, both 819.2 GB/s
    """
private let m4Memory = """
    https://macmegasite.com/2024/10/30: M4 Max with 16 and 40 cores, 546 GB/s; up to 128 GB
    """
private let tenGigabit = "10 Gbit/s Ethernet of the Mac Studio"
private let exoSource = """
    of EXO's report (blog.exolabs.net/nvidia-dgx-spark): Llama-3.1-8B in 16 bits on an M3 Ultra, \
    8192 tokens in 5.57 s (23.7 T) and 32 tokens in 0.85 s (606 GB/s)
    """

extension DeviceProfile {
    static let apple = [m2Ultra, m3Ultra, m4Max]

    package static let m2Ultra = DeviceProfile(
        name: "M2 Ultra", aliases: ["Apple M2 Ultra"], kind: .gpu, maker: "Apple",
        compute: [
            .float32: .estimate(27.2 * tera, "76/60 of the smaller one's: " + m2Source),
            .float16: .estimate(27.2 * tera, "as FP32: " + m2Source),
        ],
        memoryBytes: Figure(192 * giga, ultraMemory),
        memoryBytesPerSecond: Figure(819.2 * giga, ultraMemory),
        networkBytesPerSecond: .estimate(1.25 * giga, tenGigabit),
        powerWatts: .estimate(295, "the M2 Ultra's Mac Studio at its highest load"),
        efficiency: .llama(compute: 0.8, bandwidth: 0.74, "as the M3 Ultra, " + exoSource))

    package static let m3Ultra = DeviceProfile(
        name: "M3 Ultra", aliases: ["Apple M3 Ultra"], kind: .gpu, maker: "Apple",
        compute: [
            .float32: Figure(28.6 * tera, m3Source), .float16: Figure(28.6 * tera, m3Source),
            .bfloat16: .estimate(28.6 * tera, "as FP16"),
        ],
        memoryBytes: Figure(512 * giga, ultraMemory),
        memoryBytesPerSecond: Figure(819.2 * giga, ultraMemory),
        networkBytesPerSecond: .estimate(1.25 * giga, tenGigabit),
        powerWatts: .estimate(270, "the M3 Ultra's Mac Studio at its highest load"),
        efficiency: .llama(compute: 0.83, bandwidth: 0.74, exoSource))

    package static let m4Max = DeviceProfile(
        name: "M4 Max", aliases: ["Apple M4 Max"], kind: .gpu, maker: "Apple",
        compute: [
            .float32: .estimate(17.2 * tera, "40/32 of the smaller one's: " + m4Source),
            .float16: .estimate(17.2 * tera, "as FP32: " + m4Source),
            .bfloat16: .estimate(17.2 * tera, "as FP16"),
        ],
        memoryBytes: Figure(128 * giga, m4Memory),
        memoryBytesPerSecond: Figure(546 * giga, m4Memory),
        networkBytesPerSecond: .estimate(1.25 * giga, tenGigabit),
        powerWatts: .estimate(145, "the M4 Max's Mac Studio at its highest load"),
        efficiency: .llama(compute: 0.8, bandwidth: 0.74, "as the M3 Ultra, " + exoSource))
}
