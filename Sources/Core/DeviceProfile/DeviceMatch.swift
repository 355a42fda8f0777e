extension DeviceProfile {
    /// The profile of a device by the name that a driver gives it; nil if none fits.
    ///
    /// A profile fits if the words of its name or of an alias stand in `text` in a row; of several
    /// the one with most letters in common, so that `H100 SXM 350W` isn't taken for `H100 SXM`.
    package static func matching(
        _ text: String, kind: DeviceKind? = nil, in profiles: [DeviceProfile] = catalogue
    ) -> DeviceProfile? {
        let words = deviceWords(text)
        var best: (length: Int, profile: DeviceProfile)?
        for profile in profiles where kind == nil || profile.kind == kind {
            for name in [profile.name] + profile.aliases {
                let wanted = deviceWords(name)
                guard !wanted.isEmpty, words.contains(inARow: wanted) else { continue }
                let length = wanted.reduce(0) { $0 + $1.count }
                if length > best?.length ?? 0 { best = (length, profile) }
            }
        }
        return best?.profile
    }
}

/// Words of letters and digits in small letters, makers' decorations left out.
private func deviceWords(_ text: String) -> [String] {
    text.lowercased().split { !($0.isLetter || $0.isNumber || $0 == "+") }.map(String.init)
        .filter { !["r", "tm", "cpu", "processor", "nvidia", "geforce"].contains($0) }
}

extension [String] {
    fileprivate func contains(inARow wanted: [String]) -> Bool {
        guard count >= wanted.count else { return false }
        return (0...(count - wanted.count)).contains { start in
            wanted.indices.allSatisfy { self[start + $0] == wanted[$0] }
        }
    }
}
