import ArgumentParser
import ClusterFile
import ClusterRules
import ServingTypes

/// Makes an API key and the entry of the cluster file that lets it in.
struct KeyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key",
        abstract: "Make an API key for a client, and its entry for the cluster file.",
        discussion: """
            The key is shown once and kept nowhere: the file holds its SHA-256 hash. Put the entry \
            under 'keys' of the scenarios that the client may use.
            """)

    @Argument(help: "Whose key it is: letters, digits, '-', '_' and '.'.")
    var name: String

    func run() throws {
        let key = APIKeyText.random()
        let hash = APIKeyText.hexHash(of: key)
        let entry = "- name: \(name)\n  sha256: \(hash)"
        let scenario = "scenarios: [{name: a, keys: [{name: \(name), sha256: \(hash)}]}]"
        guard let spec = try? ClusterFile.parse(scenario), spec.scenarios[0].keys[0].name == name
        else {
            throw ValidationError(
                "'\(name)' can't be a name; use up to \(ClusterFile.Limits.nameBytes) letters, "
                    + "digits, '-', '_' and '.'.")
        }
        write("key for the client: \(key)\nentry for the cluster file:\n\(entry)")
    }
}

enum APIKeyText {
    static let prefix = "pd-"
    static let randomBytes = 32

    /// `pd-` and 256 bits from the system's generator, as hexadecimal digits.
    static func random() -> String {
        var generator = SystemRandomNumberGenerator()
        let bytes = (0..<randomBytes).map { _ in UInt8.random(in: .min ... .max, using: &generator)
        }
        return prefix + hex(bytes)
    }

    static func hexHash(of key: String) -> String { hex(SHA256.hash(Array(key.utf8))) }

    private static func hex(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
