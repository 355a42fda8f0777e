import Foundation

/// A file of the tree, or a sample of one.
struct SourceFile: Sendable {
    /// Path in the tree, with slashes.
    let path: String
    let lines: [String]
    /// The lines without the contents of strings.
    let linesWithComments: [String]
    /// The lines without comments and the contents of strings.
    let code: [String]

    init(path: String, text: String) {
        self.path = path
        lines = Self.lines(of: text)
        guard path.hasSuffix(".swift") else {
            linesWithComments = lines
            code = lines
            return
        }
        linesWithComments = Self.lines(of: SwiftText.code(of: text, keepingComments: true))
        code = Self.lines(of: SwiftText.code(of: text))
    }

    private static func lines(of text: String) -> [String] {
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if lines.last == "" { lines.removeLast() }
        return lines
    }

    var isSwift: Bool { path.hasSuffix(".swift") }
    var isGenerated: Bool { path.contains(".pb-c.") }
    var isSource: Bool { path.hasPrefix("Sources/") }
    var isTest: Bool { path.hasPrefix("Tests/") }
    var isExecutable: Bool { path.hasPrefix("Sources/Executables/") }
    var isCore: Bool { path.hasPrefix("Sources/Core/") }

    /// Module that the file belongs to: `Sources/<layer>/<module>/…`, `Tests/<module>/…`.
    var module: String? {
        let parts = path.split(separator: "/").map(String.init)
        if isSource, parts.count > 3 { return parts[2] }
        if isTest, parts.count > 2 { return parts[1] }
        return nil
    }

    func finding(line index: Int, _ what: String) -> Finding {
        Finding(path: path, line: index + 1, what: what)
    }
}

/// A place that breaks a rule.
struct Finding: Sendable, CustomStringConvertible {
    var path: String
    var line: Int
    var what: String

    var description: String { "\(path):\(line): \(what)" }
}

/// The files that rules look at.
struct Tree: Sendable {
    static let root = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()

    /// The tree these tests are part of, read once.
    static let this = Tree()

    private static let roots = [
        ".ci", "Docker", "Makefile", "Package.swift", "Protocols", "Scripts", "Sources", "Tests",
        "docker-compose.yml",
    ]
    private static let extensions: Set<String> = [
        "c", "cc", "cpp", "h", "hpp", "modulemap", "proto", "sh", "swift", "yaml", "yml",
    ]
    private static let names: Set<String> = ["Dockerfile", "Makefile", "run"]

    let files: [SourceFile]
    let manifest: Manifest

    private init() {
        files = Self.paths().sorted().compactMap { path in
            Self.text(of: path).map { SourceFile(path: path, text: $0) }
        }
        manifest = Manifest(text: Self.text(of: "Package.swift") ?? "")
    }

    static func text(of path: String) -> String? {
        try? String(contentsOf: root.appending(path: path), encoding: .utf8)
    }

    /// Names of the folders in a folder of the tree.
    static func folders(in path: String) -> [String] {
        let folder = root.appending(path: path)
        let names = try? FileManager.default.contentsOfDirectory(atPath: folder.path())
        return (names ?? []).filter { isFolder("\(path)/\($0)") }.sorted()
    }

    static func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: root.appending(path: path).path())
    }

    private static func isFolder(_ path: String) -> Bool {
        let url = root.appending(path: path)
        return (try? url.resourceValues(forKeys: [.isDirectoryKey]))?.isDirectory == true
    }

    private static func paths() -> [String] {
        var paths: [String] = []
        for name in roots where exists(name) {
            guard isFolder(name) else {
                paths.append(name)
                continue
            }
            let found = FileManager.default.enumerator(atPath: root.appending(path: name).path())
            while let path = found?.nextObject() as? String { paths.append("\(name)/\(path)") }
        }
        return paths.filter { path in
            let name = path.split(separator: "/").last.map(String.init) ?? path
            let parts = name.split(separator: ".").map(String.init)
            let isKnown =
                names.contains(name)
                || parts.count > 1 && extensions.contains(parts[parts.count - 1])
            return isKnown && !isFolder(path)
        }
    }
}
