import Configuration
import FoundationEssentials
import Yams

/// Where settings come from: command line, environment, file, in this order.
struct SettingsSources {
    /// A value as text and the place to name when it is wrong.
    struct Finding {
        var source: String
        var text: String
        /// A flag without a value.
        var isBare = false
    }

    static let environmentPrefix = "pdserve"
    private static let maximumFileBytes = 1 << 20

    private let commandLine: CommandLineArgumentsProvider
    private let environment: EnvironmentVariablesProvider
    private var file: InMemoryProvider?
    private var filePath = ""
    /// Flags as given, without the dashes.
    let flags: [String]
    /// Keys in the file, at the top and in the service's own section.
    private(set) var fileKeys: [String] = []

    /// - Parameter arguments: without the program's name.
    init(
        arguments: [String], environment variables: [String: String]
    ) throws(SettingsError) {
        flags = try Self.flags(arguments)
        commandLine = CommandLineArgumentsProvider(arguments: ["service"] + arguments)
        environment = EnvironmentVariablesProvider(environmentVariables: variables)
    }

    /// Checks that each argument is a flag or the one value after it.
    private static func flags(_ arguments: [String]) throws(SettingsError) -> [String] {
        var flags: [String] = []
        var takesValue = false
        for argument in arguments {
            if argument.hasPrefix("--"), argument.count > 2 {
                let name = argument.dropFirst(2).prefix { $0 != "=" }
                flags.append(String(name))
                takesValue = name.endIndex == argument.endIndex
            } else if takesValue {
                takesValue = false
            } else {
                throw .strayArgument(argument)
            }
        }
        return flags
    }

    func find(_ key: String) throws(SettingsError) -> Finding? {
        if let values = strings(commandLine, [key]) {
            guard flags.count(where: { $0 == key }) < 2 else {
                throw .invalid(
                    source: "--\(key)", value: values.joined(separator: ","),
                    expected: "given only once")
            }
            return Finding(
                source: "--\(key)", text: values.joined(separator: ","),
                isBare: values.isEmpty)
        }
        if let value = try? environment.value(
            forKey: AbsoluteConfigKey([Self.environmentPrefix, key]), type: .string
        ).value, case .string(let text) = value.content {
            return Finding(source: Self.variable(key), text: text)
        }
        if let file, let values = strings(file, [key]) {
            return Finding(
                source: "\(key) in \(filePath)", text: values.joined(separator: ","))
        }
        return nil
    }

    private func strings(_ provider: some ConfigProvider, _ key: [String]) -> [String]? {
        let found = try? provider.value(forKey: AbsoluteConfigKey(key), type: .stringArray).value
        guard case .stringArray(let values) = found?.content else { return nil }
        return values
    }

    static func variable(_ key: String) -> String {
        let name = key.map { $0 == "-" ? "_" : $0.uppercased() }.joined()
        return "\(environmentPrefix.uppercased())_\(name)"
    }
}

// MARK: - File

extension SettingsSources {
    /// Reads a YAML file (JSON is YAML).
    ///
    /// Values stand at the top, for every service that shares the file, or in a section named after
    /// the service, which wins. Sections of other services are skipped.
    mutating func load(_ path: String, service: String) throws(SettingsError) {
        filePath = path
        let table = try Self.table(path)
        var values: [String: [String]] = [:]
        for (node, value) in table {
            let key = node.scalar?.string ?? ""
            guard let section = value.mapping else {
                values[key] = try strings(value, key: key)
                continue
            }
            guard key == service else { continue }
            for (node, value) in section {
                let key = node.scalar?.string ?? ""
                values[key] = try strings(value, key: "\(service).\(key)")
            }
        }
        fileKeys = values.keys.sorted()
        var content: [AbsoluteConfigKey: ConfigValue] = [:]
        for (key, strings) in values {
            content[AbsoluteConfigKey([key])] = ConfigValue(.stringArray(strings), isSecret: false)
        }
        file = InMemoryProvider(name: path, values: content)
    }

    func nameInFile(_ key: String) -> String { "'\(key)' in \(filePath)" }

    private static func table(_ path: String) throws(SettingsError) -> Node.Mapping {
        let data: Data
        do {
            data = try Data(contentsOf: URL(filePath: path))
        } catch {
            throw .unreadableFile(
                path: path, reason: (error as? CocoaError)?.code.sentence ?? "\(error)")
        }
        guard data.count <= maximumFileBytes else {
            throw .malformedFile(path: path, reason: "it is larger than \(maximumFileBytes) bytes")
        }
        do {
            guard let node = try Yams.compose(yaml: String(decoding: data, as: UTF8.self)) else {
                return Node.Mapping([])
            }
            if let table = node.mapping { return table }
        } catch {
            throw .malformedFile(path: path, reason: "\(error)")
        }
        throw .malformedFile(path: path, reason: "it is not a table of keys and values")
    }

    private func strings(_ node: Node, key: String) throws(SettingsError) -> [String] {
        if let scalar = node.scalar { return [scalar.string] }
        guard let sequence = node.sequence else {
            throw .malformedFile(path: filePath, reason: "'\(key)' is neither a value nor a list")
        }
        var values: [String] = []
        for element in sequence {
            guard let scalar = element.scalar else {
                throw .malformedFile(path: filePath, reason: "'\(key)' is not a list of values")
            }
            values.append(scalar.string)
        }
        return values
    }
}

extension CocoaError.Code {
    fileprivate var sentence: String? {
        switch self {
        case .fileReadNoSuchFile, .fileNoSuchFile: "there is no such file"
        case .fileReadNoPermission: "permission denied"
        default: nil
        }
    }
}
