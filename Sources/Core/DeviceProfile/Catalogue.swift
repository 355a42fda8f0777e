extension DeviceProfile {
    /// The devices whose figures are known, by maker.
    package static let catalogue: [DeviceProfile] = nvidia + amd + apple + huawei + intel

    /// The catalogue's device of this name or alias, small or capital letters alike.
    package static func named(_ name: String) -> DeviceProfile? {
        catalogue.first { $0.name.lowercased() == name.lowercased() }
            ?? catalogue.first { $0.isCalled(name) }
    }

    /// Whether this is its name or an alias, small or capital letters alike.
    package func isCalled(_ name: String) -> Bool {
        ([self.name] + aliases).contains { $0.lowercased() == name.lowercased() }
    }
}

extension DeviceEfficiency {
    /// What a tuned engine on a data-centre accelerator reaches.
    static let accelerator = DeviceEfficiency(
        computeShare: .estimate(
            0.45,
            """
            between 0.27 (H100) and 0.40 (A100), which Llama-2-70B on 8 devices reaches at 2048 \
            prompt tokens (134.4 and 282.7 ms, github.com/Mutinifni/splitwise-sim perf_model.csv, \
            an engine of 2023), and the 0.6 or so of tuned large matrix products
            """),
        bandwidthShare: .estimate(
            0.65, "half to three quarters of the peak is usual for weight reading kernels"),
        secondsPerStep: .estimate(
            0.003, "scheduling, sampling and kernel starts of one iteration: a few milliseconds"))

    /// What llama.cpp reaches on a single graphics card or a unified-memory computer.
    static func llama(compute: Double, bandwidth: Double, _ derivation: String)
        -> DeviceEfficiency
    {
        DeviceEfficiency(
            computeShare: .estimate(compute, derivation),
            bandwidthShare: .estimate(bandwidth, derivation),
            secondsPerStep: .estimate(0.001, "kernel starts and sampling of one iteration"))
    }

    static let processor = DeviceEfficiency(
        computeShare: .estimate(
            0.3, "ggml's matrix products on many cores against the instruction's peak"),
        bandwidthShare: .estimate(
            0.65,
            "about 200 of 307 GB/s on Sapphire Rapids (betterhackernews.com/item/43114418)"),
        secondsPerStep: .estimate(0.001, "thread barriers and sampling of one iteration"))
}

/// Prefixes of units, for figures that read like their sources.
let giga = 1e9
let tera = 1e12
let gibi = 1_073_741_824.0
