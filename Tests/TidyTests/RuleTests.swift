import Testing

/// A rule that can't fail says nothing: each one is shown what breaks it.
@Suite struct RuleTests {
    private let manifest = Manifest(
        text: """
            case .cLibrary: [.cLibrary]
            case .core: [.cLibrary, .core]
            case .adapter: [.cLibrary, .core, .adapter]
            case .service: [.core, .adapter]
            Module(
                layer: .cLibrary, name: "COpenSSL", pkgConfig: "openssl"),
            Module(layer: .cLibrary, name: "CZstd"),
            Module(layer: .cLibrary, name: "CNobodysLibrary")
            Module(layer: .core, name: "ServingTypes"),
            Module(layer: .core, name: "Scheduling", uses: ["ServingTypes"]),
            Module(
                layer: .core, name: "Roles",
                uses: ["ServingTypes", "Scheduling", "Transport"]),
            Module(layer: .adapter, name: "Transport", uses: ["COpenSSL"], products: [
            Module(layer: .service, name: "WorkerService"),
            Module(
                layer: .service, name: "GatewayService",
                uses: ["Transport", "Roles", "WorkerService"])
            """)

    @Test func `every rule finds its bad samples and passes its good ones`() {
        for rule in Rule.all {
            #expect(!rule.bad.isEmpty && !rule.good.isEmpty, "\(rule)")
            for sample in rule.bad {
                #expect(!findings(of: rule, in: sample).isEmpty, "\(rule) passes: \(sample.text)")
            }
            for sample in rule.good {
                #expect(findings(of: rule, in: sample).isEmpty, "\(rule) refuses: \(sample.text)")
            }
        }
    }

    private func findings(of rule: Rule, in sample: Rule.Sample) -> [Finding] {
        rule.check(SourceFile(path: sample.path, text: sample.text), manifest)
    }

    @Test func `the manifest is read with its layers, rows and tests`() {
        #expect(manifest.imports["service"] == ["core", "adapter"])
        #expect(manifest.modules.map(\.name).count == 9)
        #expect(manifest["Roles"]?.uses == ["ServingTypes", "Scheduling", "Transport"])
        #expect(Manifest(text: #"("RolesTests", ["Roles"]),"#).tests == ["RolesTests"])
    }

    @Test func `only code is left of a text`() {
        let text = #"""
            let a = "x\"y\(b("!") + "z")w" // note
            /* one /* two */ three */ let c = #"a"b"# + `d e!`
            let e = #/x"y/#, f = """
                g " h
                """
            """#
        let code = #"""
            let a = "    \(b(" ") + " ") " ~~~~~~~
            ~~~~~~~~~~~~~~~~~~~~~~~~~ let c = #"   "# + `    `
            let e = #/   /#, f = """
            ~~~~~~~~~
                """
            """#
        #expect(SwiftText.code(of: text) == code.replacing("~", with: " "))
        #expect(SwiftText.code(of: text, keepingComments: true).contains("// note"))
    }
}
