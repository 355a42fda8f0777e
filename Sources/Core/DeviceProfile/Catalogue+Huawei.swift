private let simulator = """
    github.com/JiusiServe/light-llm-simulator, conf/hardware_config.py (commit 5df25c7)
    """
private let b2Source = """
    \(simulator): 910B2 64 GB, FP16 353.8 and INT8 707.9 T (24 cores at 1.8 GHz), 1.6 TB/s, \
    196 GB/s within a host
    """
private let b3Source = """
    \(simulator): 910B3 64 GB, FP16 294.9 and INT8 589.8 T (20 cores at 1.8 GHz), 1.6 TB/s, \
    196 GB/s within a host
    """
private let b4Source = """
    \(simulator): 910B4 32 GB, FP16 245.7 and INT8 491.5 T, 0.8 TB/s, 32 GB/s within a host
    """
private let cSource = """
    \(simulator): each of the two chips of an A3 64 GB, FP16 353.8 and INT8 707.9 T, 1.6 TB/s, \
    196 GB/s; https://techpowerup.com/335749: 780 T and 3200 GB/s for both
    """
private let powerSource = """
    https://boardor.com/blog/huawei-ascend-910b-outperforms-h20-910c-approaches-h100: 310 W
    """

extension DeviceProfile {
    static let huawei = [ascend910B, ascend910B2, ascend910B4, ascend910C]

    /// The 910B3, which stands for its family.
    package static let ascend910B = ascend(
        "Ascend 910B", ["Ascend910B", "Ascend910B3", "910B3", "910B"], source: b3Source,
        float16: 294.9, int8: 589.8, gigabytes: 64, bandwidth: 1600, peer: 196)
    package static let ascend910B2 = ascend(
        "Ascend 910B2", ["Ascend910B2", "910B2", "Ascend910B1", "910B1"], source: b2Source,
        float16: 353.8, int8: 707.9, gigabytes: 64, bandwidth: 1600, peer: 196)
    package static let ascend910B4 = ascend(
        "Ascend 910B4", ["Ascend910B4", "910B4"], source: b4Source,
        float16: 245.7, int8: 491.5, gigabytes: 32, bandwidth: 800, peer: 32)

    package static let ascend910C: DeviceProfile = {
        var profile = ascend(
            "Ascend 910C", ["Ascend910C", "Ascend910_93", "910C"], source: cSource,
            float16: 707.6, int8: 1415.8, gigabytes: 128, bandwidth: 3200, peer: 392)
        profile.networkBytesPerSecond = .estimate(50 * giga, "two 200 Gbps RoCE ports")
        profile.powerWatts = .estimate(620, "two 910B at 310 W")
        return profile
    }()

    /// - Parameters:
    ///   - float16: 10¹² operations per second, as is `int8`.
    ///   - bandwidth: of the memory in 10⁹ bytes per second, as is `peer`.
    private static func ascend(
        _ name: String, _ aliases: [String], source: String, float16: Double, int8: Double,
        gigabytes: Double, bandwidth: Double, peer: Double
    ) -> DeviceProfile {
        DeviceProfile(
            name: name, aliases: aliases, kind: .npu, maker: "Huawei",
            compute: [
                .float16: Figure(float16 * tera, source),
                .bfloat16: .estimate(float16 * tera, "as FP16"),
                .int8: Figure(int8 * tera, source),
            ],
            memoryBytes: Figure(gigabytes * giga, source),
            memoryBytesPerSecond: Figure(bandwidth * giga, source),
            networkBytesPerSecond: .estimate(25 * giga, "a 200 Gbps RoCE port per device"),
            peerBytesPerSecond: Figure(peer * giga, source),
            hostBytesPerSecond: .estimate(32 * giga, "PCIe Gen4 x16, one way"),
            powerWatts: Figure(310, powerSource), efficiency: .accelerator)
    }
}
