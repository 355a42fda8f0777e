/// What Package.swift says about modules and layers.
struct Manifest: Sendable {
    struct Module: Sendable, Hashable {
        var layer: String
        var name: String
        var uses: [String]
    }

    /// Layer to the layers it may import, by the cases of `Layer`.
    var imports: [String: [String]] = [:]
    /// Layer to its folder in Sources.
    var folders: [String: String] = [:]
    var modules: [Module] = []
    var tests: [String] = []

    init(text: String) {
        for line in text.split(separator: "\n") {
            if let match = line.firstMatch(of: #/case \.(\w+): \[(.*)\]/#) {
                imports[String(match.1)] = match.2.split(separator: ",").map {
                    String($0.trimming { $0 == " " || $0 == "." })
                }
            } else if let match = line.firstMatch(of: #/case (\w+) = "(\w+)"/#) {
                folders[String(match.1)] = String(match.2)
            }
        }
        for match in text.matches(
            of: #/Module\(\s*layer: \.(\w+),\s*name: "([^"]+)"(?:,\s*uses: \[([^\]]*)\])?/#)
        {
            let uses = match.3.map { Self.strings(in: $0) } ?? []
            modules.append(Module(layer: String(match.1), name: String(match.2), uses: uses))
        }
        tests = text.matches(of: #/"(\w+Tests)"/#).map { String($0.1) }
    }

    private static func strings(in text: Substring) -> [String] {
        text.matches(of: #/"([^"]+)"/#).map { String($0.1) }
    }

    subscript(name: String) -> Module? { modules.first { $0.name == name } }
}

extension Substring {
    /// The text without the characters at both ends for which `isMargin` holds.
    fileprivate func trimming(while isMargin: (Character) -> Bool) -> Substring {
        var text = drop(while: isMargin)
        while let last = text.last, isMargin(last) { text.removeLast() }
        return text
    }
}
