/// Times from data sheets: whatever takes longer of computing and of reading memory, and a fixed
/// time per iteration.
///
/// Several devices share each layer's matrices (tensor parallel): each adds its compute and its
/// bandwidth, and after attention and feed-forward block they add up their results.
package struct Roofline: PerformanceModel, Hashable, Sendable {
    package let profile: DeviceProfile
    package let deviceCount: Int
    package let shape: ModelShape
    package let kvType: KVType

    /// Part of the memory for weights and KV; the rest is the runtime's.
    package static let usableMemory = 0.9

    private let operationsPerSecond: Double
    private let bytesPerSecond: Double
    private let secondsPerStep: Double
    /// Seconds per token to add up the parts of the devices.
    private let reductionSeconds: Double
    package let kvBytesPerToken: Int

    package init(
        profile: DeviceProfile, deviceCount: Int = 1, shape: ModelShape, kvType: KVType = .float16
    ) {
        let devices = Double(max(deviceCount, 1))
        self.profile = profile
        self.deviceCount = max(deviceCount, 1)
        self.shape = shape
        self.kvType = kvType
        let efficiency = profile.efficiency
        let compute = profile.compute(for: shape.weightType)?.perSecond ?? 0
        operationsPerSecond = max(compute * efficiency.computeShare.value * devices, 1)
        bytesPerSecond = max(
            profile.memoryBytesPerSecond.value * efficiency.bandwidthShare.value * devices, 1)
        secondsPerStep = efficiency.secondsPerStep.value
        kvBytesPerToken = max(shape.kvBytesPerToken(kvType), 1)

        // A ring all-reduce sends 2(d-1)/d of the data; two per layer, in 16 bits.
        let perToken = Double(shape.layers * 2 * shape.embedding * 2) * 2 * (devices - 1) / devices
        let link =
            profile.peerBytesPerSecond ?? profile.hostBytesPerSecond
            ?? profile.networkBytesPerSecond
        reductionSeconds = perToken / max(link.value, 1)
    }

    package func prefillSeconds(_ runs: [Range<Int>]) -> Double {
        mixedSeconds(runs, sequences: 0, contextTokens: 0)
    }

    package func decodeSeconds(sequences: Int, contextTokens: Int) -> Double {
        mixedSeconds([], sequences: sequences, contextTokens: contextTokens)
    }

    package func mixedSeconds(
        _ runs: [Range<Int>], sequences: Int, contextTokens: Int
    ) -> Double {
        let prompts = runs.filter { !$0.isEmpty }
        let promptTokens = prompts.reduce(0) { $0 + $1.count }
        let tokens = promptTokens + sequences
        guard tokens > 0 else { return 0 }
        let attended = prompts.reduce(Double(contextTokens)) { $0 + $1.attendedTokens }
        let operations =
            Double(tokens) * shape.operationsPerToken(context: 0)
            + attended * shape.attentionOperations
            // Only a prompt's last token and each sequence's one is scored.
            + Double(prompts.count + sequences) * shape.outputOperations
        let kept = prompts.reduce(contextTokens) { $0 + $1.upperBound }
        let bytes =
            shape.weightBytesRead(tokens: tokens) + Double(kept) * Double(kvBytesPerToken)
        return max(operations / operationsPerSecond, bytes / bytesPerSecond)
            + Double(tokens) * reductionSeconds + secondsPerStep
    }

    package var kvCapacityTokens: Int {
        let memory = profile.memoryBytes.value * Double(deviceCount) * Self.usableMemory
        return max(0, Int((memory - Double(shape.weightBytes)) / Double(kvBytesPerToken)))
    }

    package var kvExportBytesPerSecond: Double { rate(profile.kvExportBytesPerSecond) }
    package var kvImportBytesPerSecond: Double { rate(profile.kvImportBytesPerSecond) }

    /// Copying reads and writes memory, so at most half its bandwidth.
    private func rate(_ known: Figure?) -> Double {
        if let known { return known.value * Double(deviceCount) }
        let copy =
            profile.memoryBytesPerSecond.value * profile.efficiency.bandwidthShare.value / 2
        return min(copy, profile.hostBytesPerSecond?.value ?? copy) * Double(deviceCount)
    }

    package var linkBytesPerSecond: Double {
        profile.networkBytesPerSecond.value * Double(deviceCount)
    }
}
