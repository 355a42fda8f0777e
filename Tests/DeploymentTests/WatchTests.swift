import Foundation
import Testing

/// What watches the product asks for readings that exist.
@Suite struct WatchTests {
    private typealias Table = Deployment.Table

    /// Names that are written in the sources; workers put their kind before some.
    private static let sources: String = {
        let folder = Deployment.root.appending(path: "Sources")
        let files = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)
        var text = ""
        while let file = files?.nextObject() as? URL {
            if file.pathExtension == "swift" {
                text += (try? String(contentsOf: file, encoding: .utf8)) ?? ""
            }
        }
        return text
    }()

    /// Whether some process has a metric of this name.
    private func exists(_ metric: String) -> Bool {
        var name = metric
        for suffix in ["_bucket", "_sum", "_count"] where name.hasSuffix(suffix) {
            name = String(name.dropLast(suffix.count))
        }
        var names = [name]
        for kind in ["prefill_", "decode_"] where name.hasPrefix(kind) {
            names.append("\\(role)_" + name.dropFirst(kind.count))
            names.append("_" + name.dropFirst(kind.count))
        }
        if name.hasPrefix("health_device") { names.append(String(name.dropFirst(13))) }
        // A counter may be named without its end.
        return names.contains { Self.sources.contains($0) }
            || names.contains { $0.hasSuffix("_total") && Self.sources.contains($0.dropLast(6)) }
    }

    private func metrics(in query: String) -> [String] {
        let code = query.replacing(#/"[^"]*"/#, with: "\"\"")
        let prefixes = "gateway|scheduler|prefill|decode|health|process|certificate|connections"
        let pattern = "\\b(?:\(prefixes))_[a-z_]+"
        guard let regex = try? Regex(pattern) else { return [] }
        return code.matches(of: regex).map { String(code[$0.range]) }
            // Names of families by a pattern.
            + query.matches(of: #/__name__=~"([^"]+)"/#).flatMap { match in
                ["prefill", "decode"].map { kind in
                    String(match.1).replacing("(prefill|decode)", with: kind)
                        .replacing(".*", with: kind)
                }
            }
    }

    private func rules() throws -> [Table] {
        let groups = try #require(
            try Deployment.yaml("Docker/watch/alerts.yml")["groups"] as? [Table])
        return groups.flatMap { $0["rules"] as? [Table] ?? [] }
    }

    @Test func `the samples tell a metric from none`() {
        #expect(exists("gateway_requests_open") && !exists("gateway_requests_imagined"))
        #expect(metrics(in: "sum(rate(gateway_requests_open{a=\"b_c\"}[5m]))").count == 1)
    }

    @Test func `alerts ask for metrics that exist, and say what is wrong`() throws {
        let rules = try rules()
        #expect(rules.count > 10)
        for rule in rules {
            let name = try #require(rule["alert"] as? String)
            let query = try #require(rule["expr"] as? String)
            let asked = metrics(in: query) + (query.contains("up") ? ["up"] : [])
            #expect(!asked.isEmpty, "\(name)")
            for metric in asked where metric != "up" {
                #expect(exists(metric), "\(name) asks for \(metric)")
            }
            let annotations = rule["annotations"] as? [String: String]
            #expect(annotations?["summary"]?.isEmpty == false, "\(name)")
            let severity = (rule["labels"] as? [String: String])?["severity"]
            #expect(["critical", "warning"].contains(severity), "\(name)")
        }
    }

    @Test func `each alert is explained`() throws {
        let page = try Deployment.text("Documentation/operations.md")
        let names = try rules().compactMap { $0["alert"] as? String }
        #expect(names.filter { !page.contains("| `\($0)` |") }.isEmpty)
        let explained = page.matches(of: #/(?m)^\| `([A-Z][A-Za-z]+)` \|/#).map { String($0.1) }
        #expect(Set(explained).subtracting(names).isEmpty)
    }

    @Test func `the dashboard asks for metrics that exist`() throws {
        let text = try Deployment.text("Docker/watch/dashboard.json")
        let board = try #require(
            try JSONSerialization.jsonObject(with: Data(text.utf8)) as? Table)
        let panels = try #require(board["panels"] as? [Table])
        let targets = panels.flatMap { $0["targets"] as? [Table] ?? [] }
        #expect(targets.count > 20)
        for target in targets {
            let query = try #require(target["expr"] as? String)
            let asked = metrics(in: query)
            #expect(!asked.isEmpty, "\(query)")
            for metric in asked { #expect(exists(metric), "\(query)") }
        }
        for panel in panels where panel["type"] as? String != "row" {
            #expect((panel["description"] as? String)?.isEmpty == false, "\(panel["title"] ?? "")")
        }
    }

    @Test func `each service is scraped where it listens`() throws {
        let jobs = try #require(
            try Deployment.yaml("Docker/watch/prometheus.yml")["scrape_configs"] as? [Table])
        let compose = try #require(
            try Deployment.yaml("docker-compose.yml")["services"] as? [String: Table])
        #expect(Set(jobs.compactMap { $0["job_name"] as? String }) == Set(Deployment.services))
        for job in jobs {
            for place in job["dns_sd_configs"] as? [Table] ?? [] {
                let port = try #require(place["port"] as? Int)
                for name in try #require(place["names"] as? [String]) {
                    let service = try #require(compose[name], "\(name)")
                    let environment = try #require(service["environment"] as? Table)
                    let listens = environment.filter { $0.key.hasSuffix("_LISTEN") }
                    #expect(
                        listens.values.contains { "\($0)".hasSuffix(":\(port)") }, "\(name)")
                }
            }
        }
    }

    /// Alerts fire when they should, where Prometheus' own tool is installed.
    @Test(.enabled(if: Deployment.has(["promtool", "--version"]), "promtool is not installed"))
    func `promtool reads the files, and alerts fire when they should`() throws {
        for command in [
            ["check", "config", "Docker/watch/prometheus.yml"],
            ["test", "rules", "Docker/watch/alerts.test.yml"],
        ] {
            let (status, words) = try Deployment.tool(["promtool"] + command)
            #expect(status == 0, "\(words)")
        }
    }
}
