import ClusterFile
import DeviceProfile

/// One device of a file while it is read.
struct DeviceEntry {
    private typealias Field = WritableKeyPath<DeviceProfile, Figure>
    private typealias OptionalField = WritableKeyPath<DeviceProfile, Figure?>

    private let value: FileValue
    private var texts: [String: String] = [:]
    private var aliases: [String]?
    private var kind: DeviceKind?
    private var figures: [String: Double] = [:]
    private var compute: [NumberType: Double] = [:]

    private static var textKeys: [String] { ["name", "base", "maker", "source"] }
    private static var figureKeys: [String] {
        [
            "memory-bytes", "memory-bandwidth", "network", "peer-link", "host-link", "power",
            "price-per-hour", "kv-export", "kv-import", "prefill-efficiency",
            "decode-efficiency", "step-seconds",
        ]
    }
    /// What a device that is based on no other must say.
    private static var requiredKeys: [String] { ["memory-bytes", "memory-bandwidth"] }
    private static var allKeys: [String] {
        textKeys + ["aliases", "kind", "compute"] + figureKeys
    }

    /// Nil if the entry isn't a table.
    init?(_ value: FileValue, _ problems: inout ProblemList) {
        self.value = value
        guard let members = value.members else {
            problems.add(
                value, "\(value.shown) is no table; write one with at least the key 'name'")
            return nil
        }
        for (name, member) in members { read(name, member, &problems) }
    }

    private mutating func read(
        _ name: String, _ member: FileValue, _ problems: inout ProblemList
    ) {
        switch name {
        case _ where Self.textKeys.contains(name):
            texts[name] = member.text
            if member.text == nil { problems.add(member, "\(member.shown) is no text") }
        case "aliases":
            aliases = member.elements?.compactMap(\.text)
            if aliases == nil { problems.add(member, "\(member.shown) is no list of names") }
        case "kind":
            kind = member.text.flatMap { DeviceKind(rawValue: $0) }
            if kind == nil { problems.add(member, "\(member.shown): write cpu, gpu or npu") }
        case "compute": readCompute(member, &problems)
        case _ where Self.figureKeys.contains(name):
            figures[name] = number(member, &problems, isShare: name.hasSuffix("efficiency"))
        default: problems.addUnknown(name, member, among: Self.allKeys)
        }
    }

    private mutating func readCompute(_ table: FileValue, _ problems: inout ProblemList) {
        guard let members = table.members else {
            return problems.add(table, "\(table.shown) is no table of operations per second")
        }
        for (name, member) in members {
            guard let type = NumberType(rawValue: name) else {
                problems.addUnknown(name, member, among: NumberType.allCases.map(\.rawValue))
                continue
            }
            compute[type] = number(member, &problems, isShare: false)
        }
    }

    private func number(
        _ member: FileValue, _ problems: inout ProblemList, isShare: Bool
    ) -> Double? {
        let number = member.text.flatMap(Self.number)
        guard let number, number > 0, !isShare || number <= 1 else {
            let wanted =
                isShare
                ? "a part above 0, at most 1" : "a number above 0 such as 3.35T, 80G or 312e12"
            problems.add(member, "\(member.shown) is not allowed; write \(wanted)")
            return nil
        }
        return number
    }

    /// A number with k, M, G, T or P after it, or Ki to Pi.
    static func number(_ text: String) -> Double? {
        var text = text[...]
        var factor = 1.0
        let isBinary = text.hasSuffix("i")
        if isBinary { text = text.dropLast() }
        if let place = text.last.flatMap({ "kMGTP".firstIndex(of: $0) })
            ?? (text.last == "K" ? "kMGTP".startIndex : nil)
        {
            for _ in 0...("kMGTP".distance(from: "kMGTP".startIndex, to: place)) {
                factor *= isBinary ? 1024 : 1000
            }
            text = text.dropLast()
        } else if isBinary {
            return nil
        }
        guard let number = Double(text), number.isFinite else { return nil }
        return number * factor
    }

    // MARK: Profile

    /// The device with what it doesn't say taken from the one it is based on.
    func profile(_ problems: inout ProblemList) -> DeviceProfile? {
        guard let name = texts["name"] else {
            problems.add(value, "'name' is missing; write what the device is to be called")
            return nil
        }
        if let base = texts["base"], DeviceProfile.named(base) == nil {
            problems.add(value, "base '\(base)' is not in the catalogue; there are \(Self.names)")
            return nil
        }
        guard let base = DeviceProfile.named(texts["base"] ?? name) else {
            return whole(name, &problems)
        }
        return changed(base, name: name)
    }

    private static var names: String {
        DeviceProfile.catalogue.map(\.name).joined(separator: ", ")
    }

    private var source: String { texts["source"] ?? "the file of devices" }

    private func whole(_ name: String, _ problems: inout ProblemList) -> DeviceProfile? {
        let missing = Self.requiredKeys.filter { figures[$0] == nil }
        guard let kind, !compute.isEmpty, missing.isEmpty else {
            problems.add(
                value,
                "'\(name)' is not in the catalogue: give a 'base' (\(Self.names)), or kind, "
                    + "compute, \(Self.requiredKeys.joined(separator: " and "))")
            return nil
        }
        let base = DeviceProfile.plain(name: name, kind: kind)
        return changed(base, name: name)
    }

    private func changed(_ base: DeviceProfile, name: String) -> DeviceProfile {
        var profile = base
        profile.name = name
        profile.aliases = aliases ?? (name == base.name ? base.aliases : [])
        profile.kind = kind ?? base.kind
        profile.maker = texts["maker"] ?? base.maker
        for (type, value) in compute { profile.compute[type] = Figure(value, source) }
        let fields: [(String, Field)] = [
            ("memory-bytes", \.memoryBytes), ("memory-bandwidth", \.memoryBytesPerSecond),
            ("network", \.networkBytesPerSecond), ("power", \.powerWatts),
            ("prefill-efficiency", \.efficiency.computeShare),
            ("decode-efficiency", \.efficiency.bandwidthShare),
            ("step-seconds", \.efficiency.secondsPerStep),
        ]
        for (key, field) in fields {
            if let value = figures[key] { profile[keyPath: field] = Figure(value, source) }
        }
        let optional: [(String, OptionalField)] = [
            ("peer-link", \.peerBytesPerSecond), ("host-link", \.hostBytesPerSecond),
            ("price-per-hour", \.pricePerHour), ("kv-export", \.kvExportBytesPerSecond),
            ("kv-import", \.kvImportBytesPerSecond),
        ]
        for (key, field) in optional {
            if let value = figures[key] { profile[keyPath: field] = Figure(value, source) }
        }
        return profile
    }
}
