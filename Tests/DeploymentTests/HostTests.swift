import Foundation
import Testing

/// Units of systemd, the chart, and what documents say of ports and versions.
@Suite struct HostTests {
    @Test func `each service has a unit that starts it`() throws {
        let units = try Deployment.files("Docker/systemd", ending: ".service")
        #expect(units.count == Deployment.services.count)
        for service in Deployment.services {
            let unit = try #require(
                units.first { $0.hasPrefix("pdserve-\(service)") }, "\(service)")
            let text = try Deployment.text("Docker/systemd/\(unit)")
            let line = try #require(text.firstMatch(of: #/(?m)^ExecStart=(.*)/#)).1
            #expect(line.split(separator: " ").first == "/usr/local/bin/\(service)")
            let known = try #require(Deployment.settings[service])
            for flag in line.matches(of: #/--([a-z-]+)/#) {
                let name = "PDSERVE_" + flag.1.uppercased().replacing("-", with: "_")
                #expect(known.contains(name), "\(unit): --\(flag.1)")
            }
            for wanted in [
                "User=pdserve", "NoNewPrivileges=yes", "ProtectSystem=strict", "Restart=always",
                "LimitNOFILE=", "TimeoutStopSec=40", "ExecReload=/bin/kill -HUP $MAINPID",
            ] { #expect(text.contains(wanted), "\(unit) has no \(wanted)") }
        }
    }

    @Test func `settings of units are known`() throws {
        let shared = try #require(Deployment.settings["gateway"])
        for file in try Deployment.files("Docker/systemd", ending: ".env") {
            let name = file.replacing(".env", with: "")
            let service = name == "decode-1" ? "decode-worker" : name
            let known = Deployment.settings[service] ?? shared
            let keys = try Deployment.text("Docker/systemd/\(file)").split(separator: "\n")
                .filter { !$0.hasPrefix("#") }.compactMap { $0.split(separator: "=").first }
            #expect(!keys.isEmpty)
            #expect(keys.filter { !known.contains(String($0)) }.isEmpty, "\(file)")
        }
    }

    @Test func `the chart's settings are known`() throws {
        let folder = "Docker/helm/pdserve/templates"
        let all = Deployment.settings.values.reduce(Set()) { $0.union($1) }
        let perFile = [
            "scheduler.yaml": ["scheduler"], "gateway.yaml": ["gateway"],
            "health-agent.yaml": ["health-agent"],
            "workers.yaml": ["prefill-worker", "decode-worker"],
        ]
        for (file, services) in perFile {
            let text = try Deployment.text("\(folder)/\(file)")
            let names = text.matches(of: #/name: (PDSERVE_[A-Z_]+)/#).map { String($0.1) }
            #expect(!names.isEmpty, "\(file)")
            for service in services {
                let known = try #require(Deployment.settings[service])
                #expect(names.filter { !known.contains($0) }.isEmpty, "\(file)")
            }
        }
        let helpers = try Deployment.text("\(folder)/_helpers.tpl")
        let names = helpers.matches(of: #/name: (PDSERVE_[A-Z_]+)/#).map { String($0.1) }
        #expect(names.count > 4 && names.allSatisfy(all.contains))
    }

    @Test(.enabled(if: Deployment.has(["helm", "version"]), "helm is not installed"))
    func `helm renders the chart`() throws {
        for settings in [
            [], ["--set", "decodeWorker.autoscaling.enabled=true"],
            ["--set", "scheduler.replicas=2,scheduler.store=etcd:https://etcd:2379"],
        ] {
            let (status, words) = try Deployment.tool(
                ["helm", "template", "test", "Docker/helm/pdserve"] + settings)
            #expect(status == 0, "\(words)")
        }
    }

    @Test func `the chart is of this version`() throws {
        let chart = try Deployment.yaml("Docker/helm/pdserve/Chart.yaml")
        let said = try Deployment.output("pdserve", ["--version"])
        let version = try #require(said.split(separator: " ").first.map(String.init))
        #expect(chart["appVersion"] as? String == version)
        #expect(try Deployment.text("CHANGELOG.md").contains("\n## \(version)\n"))
        _ = try Deployment.yaml("Docker/helm/pdserve/values.yaml")
    }

    @Test func `all services tell the same version and commit`() throws {
        let said = try (Deployment.services + ["pdserve"]).map { program in
            let words = try Deployment.output(program, ["--version"])
            return words.replacing("\(program) ", with: "")
                .trimmingCharacters(in: .whitespacesAndNewlines)
        }
        #expect(Set(said).count == 1, "\(said)")
        let one = try #require(said.first)
        #expect(one.contains(#/^\d+\.\d+\.\d+ \((commit [0-9a-z-]+|development build)\)$/#))
    }

    @Test func `each port by default is in the table of ports`() throws {
        let page = try Deployment.text("Documentation/network.md")
        for service in Deployment.services {
            let help = try Deployment.output(service, ["--help"])
            for match in help.matches(of: #/\[127\.0\.0\.1:(\d+)\]/#) {
                #expect(page.contains("| \(match.1) |"), "\(service): \(match.1)")
            }
        }
    }
}
