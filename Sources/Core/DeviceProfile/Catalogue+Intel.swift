private let xeonSource = """
    https://servethehome.com/intel-xeon-max-9480-deep-dive-intel-has-64gb-hbm2e-onboard-like-a-gpu\
    -or-ai-accelerator/3: Xeon Platinum 8480+ has 56 cores and 8 channels of DDR5; 4800 MT/s and \
    350 W: https://gamersinfotech.com/2021/04/08
    """
private let baseClock = "its base clock of 2 GHz"

extension DeviceProfile {
    static let intel = [xeon8480]

    package static let xeon8480 = DeviceProfile(
        name: "Xeon Platinum 8480+",
        aliases: [
            "Intel(R) Xeon(R) Platinum 8480+", "Intel(R) Xeon(R) Platinum 8480C",
            "Xeon Platinum 8480C", "Xeon 8480+",
        ],
        kind: .cpu, maker: "Intel",
        compute: [
            .float32: .estimate(
                7.17 * tera, "56 cores x 64 FLOP (two 512-bit FMA) at " + baseClock),
            .bfloat16: .estimate(
                114.7 * tera, "56 cores x 1024 FLOP (AMX) at " + baseClock),
            .int8: .estimate(
                28.7 * tera, "VNNI, four times FP32; with AMX eight times it, at " + baseClock),
        ],
        memoryBytes: .estimate(
            256 * giga, "8 modules of 32 GB; the host's own memory where it is known"),
        memoryBytesPerSecond: Figure(
            307.2 * giga, xeonSource + "; 8 x 8 bytes x 4.8 GT/s"),
        networkBytesPerSecond: .estimate(12.5 * giga, "a 100 Gbps adapter"),
        powerWatts: Figure(350, xeonSource), efficiency: .processor)
}
