extension ScenarioSpec {
    /// The key with this SHA-256 hash, 32 bytes; nil if there is none.
    ///
    /// Looks at every byte of every key, so that the time it takes says nothing about how nearly a
    /// guess was right.
    package func key(withHash hash: [UInt8]) -> APIKey? {
        var found: Int?
        for index in keys.indices where equalInConstantTime(keys[index].hash, hash) {
            found = found ?? index
        }
        return found.map { keys[$0] }
    }
}

/// Compares all bytes, whether or not the first ones differ; only the lengths are no secret.
private func equalInConstantTime(_ left: [UInt8], _ right: [UInt8]) -> Bool {
    guard left.count == right.count, !left.isEmpty else { return false }
    var difference: UInt8 = 0
    for index in left.indices { difference |= left[index] ^ right[index] }
    return difference == 0
}
