import Testing

/// The rules hold in this tree.
@Suite struct TreeTests {
    private let tree = Tree.this

    @Test func `the tree was found`() {
        #expect(tree.files.contains { $0.path == "Package.swift" })
        #expect(tree.files.count { $0.isSource } > 20)
        #expect(tree.manifest["ServingTypes"]?.layer == "core")
    }

    @Test func `the tree keeps every rule`() {
        for rule in Rule.all {
            let found = tree.files.flatMap { rule.check($0, tree.manifest) }
            #expect(Bool(found.isEmpty), "\(rule): \(list(found))")
        }
    }

    @Test func `folders of Sources and rows of Package.swift are the same`() {
        var folders: [String] = []
        for layer in Tree.folders(in: "Sources") {
            folders += Tree.folders(in: "Sources/\(layer)").map { "\(layer)/\($0)" }
        }
        let rows = tree.manifest.modules.map { module in
            "\(tree.manifest.folders[module.layer] ?? module.layer)/\(module.name)"
        }
        #expect(folders.sorted() == rows.sorted())
    }

    @Test func `folders of Tests and rows of Package.swift are the same`() {
        #expect(Tree.folders(in: "Tests") == Set(tree.manifest.tests).sorted())
    }

    @Test func `each C library has an owner`() {
        let libraries = tree.manifest.modules.filter { $0.layer == "cLibrary" }.map(\.name)
        let orphans = libraries.filter { cLibraryOwners[$0] == nil }
        #expect(orphans.isEmpty, "add to cLibraryOwners: \(orphans)")
    }

    @Test func `ARCHITECTURE names every module`() throws {
        let text = try #require(Tree.text(of: "ARCHITECTURE.md"))
        let missing = tree.manifest.modules.map(\.name).filter { !text.contains("`\($0)`") }
        #expect(missing.isEmpty, "missing: \(missing)")
    }

    @Test func `links of documents lead somewhere`() throws {
        for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
            let text = try #require(Tree.text(of: document))
            let targets = text.matches(of: #/\]\(([^)#:]+)(?:#[^)]*)?\)/#).map { String($0.1) }
            let dead = targets.filter { !Tree.exists($0) }
            #expect(dead.isEmpty, "\(document): \(dead)")
        }
    }

    @Test func `documents name targets that the Makefile has`() throws {
        for document in ["README.md", "CONTRIBUTING.md"] {
            let text = try #require(Tree.text(of: document))
            let makefile = try #require(Tree.text(of: "Makefile"))
            let named = Set(text.matches(of: #/make ([a-z][a-z-]+)/#).map { String($0.1) })
            let missing = named.filter { !"\n\(makefile)".contains("\n\($0):") }
            #expect(missing.isEmpty, "\(document): \(missing)")
        }
    }

    /// At most 20 findings, one a line.
    private func list(_ findings: [Finding]) -> String {
        let more = findings.count > 20 ? "\n… \(findings.count - 20) more" : ""
        return "\n" + findings.prefix(20).map(\.description).joined(separator: "\n") + more
    }
}
