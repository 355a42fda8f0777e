import ServingTypes

/// KV as models make it: fp16, one distribution per channel, rows of one token each.
///
/// Channel scales are log-normal, some channels lie far from zero; see the measurements behind
/// `CompressionRule` for how much of that compresses.
func sampleKV(bytes: Int, seed: UInt64) -> [UInt8] {
    var random = SeededGenerator(seed: seed)
    let channels = 128
    var scales: [Float] = []
    var means: [Float] = []
    for channel in 0..<channels {
        scales.append(0.3 + Float(random.below(100)) / 60)
        means.append(channel.isMultiple(of: 17) ? 6 : 0.2 * gaussian(&random))
    }
    var kv: [UInt8] = []
    kv.reserveCapacity(bytes)
    var channel = 0
    while kv.count < bytes {
        let value = Float16(means[channel] + scales[channel] * gaussian(&random))
        kv.append(UInt8(truncatingIfNeeded: value.bitPattern))
        kv.append(UInt8(truncatingIfNeeded: value.bitPattern >> 8))
        channel = (channel + 1) % channels
    }
    return kv
}

func noise(bytes: Int, seed: UInt64) -> [UInt8] {
    var random = SeededGenerator(seed: seed)
    return (0..<bytes).map { _ in UInt8(truncatingIfNeeded: random.next()) }
}

/// A number near the normal distribution: four uniform ones added, scaled to variance 1.
private func gaussian(_ random: inout SeededGenerator) -> Float {
    let bits = random.next()
    var sum: Float = 0
    for part in 0..<4 { sum += Float(UInt16(truncatingIfNeeded: bits >> UInt64(16 * part))) }
    return (sum / 65536 - 2) * 1.732
}
