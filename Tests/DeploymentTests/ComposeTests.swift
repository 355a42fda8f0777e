import Foundation
import Testing

/// docker-compose.yml means what it should, without an engine that runs it.
@Suite struct ComposeTests {
    private typealias Table = Deployment.Table

    private let compose: Table
    private let services: [String: Table]
    private let text: String

    init() throws {
        text = try Deployment.text("docker-compose.yml")
        compose = try Deployment.yaml("docker-compose.yml")
        services = try #require(compose["services"] as? [String: Table])
    }

    private func command(of service: Table) -> [String] {
        (service["command"] as? [Any] ?? []).map { "\($0)" }
    }

    /// Services of the product's own image, by name.
    private var own: [String: Table] {
        services.filter { "\($0.value["image"] ?? "")".contains("PDSERVE_IMAGE") }
    }

    /// Own services that serve, and which executable each runs.
    private var running: [(name: String, executable: String, service: Table)] {
        own.compactMap { name, service in
            guard let executable = command(of: service).first,
                Deployment.services.contains(executable)
            else { return nil }
            return (name, executable, service)
        }
    }

    @Test func `all five services are there`() {
        #expect(Set(running.map(\.executable)) == Set(Deployment.services))
        // A name that only this machine knows is not asked for elsewhere.
        #expect(own.values.allSatisfy { $0["pull_policy"] as? String == "never" })
        let others = own.keys.filter { name in !running.contains { $0.name == name } }
        #expect(
            others.sorted() == [
                "admin", "certificates", "etcd-certificates", "prometheus-volume",
            ])
    }

    @Test func `no container has more rights than it needs`() {
        for (name, service) in services {
            #expect(service["read_only"] as? Bool == true, "\(name)")
            #expect(service["cap_drop"] as? [String] == ["ALL"], "\(name)")
            #expect(
                service["security_opt"] as? [String] == ["no-new-privileges:true"], "\(name)")
            #expect(service["privileged"] == nil && service["cap_add"] == nil, "\(name)")
            for limit in ["cpus", "mem_limit", "pids_limit", "logging"] {
                #expect(service[limit] != nil, "\(name) has no \(limit)")
            }
        }
    }

    @Test func `what serves is started again, in order, and asked whether it is well`() {
        for (name, service) in services where service["restart"] as? String != "no" {
            #expect(service["restart"] as? String == "unless-stopped", "\(name)")
            let health = service["healthcheck"] as? Table
            #expect(health?["test"] is [Any], "\(name)")
            #expect(health?["interval"] != nil && health?["timeout"] != nil, "\(name)")
        }
        for (name, service) in services {
            for (other, rule) in service["depends_on"] as? [String: Table] ?? [:] {
                let needed = services[other]
                #expect(needed != nil, "\(name) waits for \(other)")
                let isOnce = needed?["restart"] as? String == "no"
                let condition = isOnce ? "service_completed_successfully" : "service_healthy"
                #expect(rule["condition"] as? String == condition, "\(name) waits for \(other)")
                // Who starts without a profile may not need one who does not.
                if service["profiles"] == nil, needed?["profiles"] != nil {
                    #expect(rule["required"] as? Bool == false, "\(name) waits for \(other)")
                }
            }
        }
    }

    @Test func `services are asked where they listen`() throws {
        for (name, executable, service) in running {
            let environment = try #require(service["environment"] as? Table, "\(name)")
            let key = executable == "gateway" ? "PDSERVE_HTTP_LISTEN" : "PDSERVE_ADMIN_LISTEN"
            let listen = try #require(environment[key] as? String, "\(name) has no \(key)")
            let port = try #require(listen.split(separator: ":").last)
            let health = try #require(service["healthcheck"] as? Table)
            #expect(
                health["test"] as? [String] == [
                    "CMD", "pdserve", "healthcheck", "http://127.0.0.1:\(port)/health",
                ], "\(name)")
        }
    }

    @Test func `each setting is one of its service`() throws {
        // A process may be told what the others of its stack need, too.
        let shared = Set(["PDSERVE_SCHEDULER"])
        for (name, executable, service) in running {
            let environment = try #require(service["environment"] as? Table)
            let known = try #require(Deployment.settings[executable]).union(shared)
            let unknown = environment.keys.filter { !known.contains($0) }
            #expect(unknown.isEmpty, "\(name): \(unknown)")
        }
    }

    @Test func `variables are explained, and explained ones are used`() throws {
        let head = try #require(text.range(of: "\nname: pdserve")).lowerBound
        let explained = Set(
            text[..<head].split(separator: "\n")
                .flatMap { $0.matches(of: #/\b[A-Z][A-Z_]{3,}\b/#).map { String($0.0) } })
        let overrides = try Deployment.files("Docker", ending: ".yml")
            .map { try Deployment.text("Docker/\($0)") }.joined()
        let used = Set(text.matches(of: #/\$\{([A-Z_]+)/#).map { String($0.1) })
        #expect(used.subtracting(explained).isEmpty)
        let words: Set = ["GGUF", "README"]
        let missing = explained.subtracting(used).subtracting(words)
        #expect(missing.filter { !overrides.contains("${\($0)") }.isEmpty, "\(missing)")
    }

    @Test func `ports are published on the loopback unless somebody says otherwise`() {
        for (name, service) in services {
            for port in service["ports"] as? [String] ?? [] {
                let isBound =
                    port.hasPrefix("127.0.0.1:")
                    || port.hasPrefix("${ADDRESS:-127.0.0.1}:")
                #expect(isBound, "\(name): \(port)")
            }
        }
    }

    @Test func `nobody but gateways and what watches is in two networks`() {
        for (name, _, service) in running {
            let networks = service["networks"] as? [String]
            let expected = name.hasPrefix("gateway") ? ["clients", "cluster"] : ["cluster"]
            #expect(networks == expected, "\(name)")
        }
        let cluster = (compose["networks"] as? [String: Table])?["cluster"]
        #expect(cluster?["internal"] as? Bool == true)
    }

    @Test func `certificates are good for every service's name`() throws {
        let script = try certificateScript()
        let hosts = try #require(script.firstMatch(of: #/hosts=(\S+)/#)).1
        #expect(Set(hosts.split(separator: ",").map(String.init)) == Set(running.map(\.name)))
    }

    private func certificateScript() throws -> String {
        let words = try #require(services["certificates"]?["entrypoint"] as? [String])
        return words.joined(separator: "\n")
    }

    @Test func `each service sees its own key only`() throws {
        let roles = try #require(certificateScript().firstMatch(of: #/for role in ([^;]+);/#)).1
        #expect(
            Set(roles.split(separator: " ").map(String.init))
                == Set(Deployment.services + ["administrator"]))
        for (name, executable, service) in running {
            let volumes = (service["volumes"] as? [Any] ?? []).compactMap { $0 as? String }
            let keys = volumes.filter { $0.contains("-keys:") || $0.contains("authority") }
            #expect(keys == ["\(executable)-keys:/certificates:ro"], "\(name)")
        }
    }

    @Test func `volumes and networks are declared`() {
        let volumes = Set((compose["volumes"] as? Table ?? [:]).keys)
        let networks = Set((compose["networks"] as? Table ?? [:]).keys)
        for (name, service) in services {
            for volume in service["volumes"] as? [Any] ?? [] {
                guard let source = (volume as? String)?.split(separator: ":").first,
                    !source.hasPrefix(".")
                else { continue }
                #expect(volumes.contains(String(source)), "\(name): \(source)")
            }
            for network in service["networks"] as? [String] ?? [] {
                #expect(networks.contains(network), "\(name): \(network)")
            }
        }
    }

    @Test func `overrides change what is there`() throws {
        for file in try Deployment.files("Docker", ending: ".yml") {
            let override = try Deployment.yaml("Docker/\(file)")
            let changed = try #require(override["services"] as? [String: Table], "\(file)")
            for (name, service) in changed {
                let base = try #require(services[name], "\(file) names \(name)")
                let known = Deployment.settings[command(of: base).first ?? ""] ?? []
                let environment = service["environment"] as? Table ?? [:]
                let unknown = environment.keys.filter {
                    $0.hasPrefix("PDSERVE_") && !known.contains($0)
                }
                #expect(unknown.isEmpty, "\(file), \(name): \(unknown)")
            }
            #expect(try Deployment.text("Docker/\(file)").contains("Untested"), "\(file)")
        }
    }

    @Test func `the settings of high availability are ones that the file reads`() throws {
        let lines = try Deployment.text("Docker/ha.env").split(separator: "\n")
            .filter { !$0.hasPrefix("#") }
        let names = lines.compactMap { $0.split(separator: "=").first.map(String.init) }
        #expect(names.first == "COMPOSE_PROFILES" && names.count > 1)
        for name in names.dropFirst() { #expect(text.contains("${\(name):-"), "\(name)") }
    }

    @Test func `the image has what the file runs`() throws {
        let dockerfile = try Deployment.text("Docker/Dockerfile")
        for executable in Deployment.services + ["pdserve"] {
            let lists = dockerfile.matches(of: #/for name in ([a-z -]+);/#).map { $0.1 }
            #expect(lists.count == 2)
            #expect(
                lists.allSatisfy { $0.split(separator: " ").contains(Substring(executable)) },
                "\(executable)")
        }
        #expect(dockerfile.contains("AS build") && dockerfile.contains("COPY --from=build /out"))
        #expect(dockerfile.contains("USER 10001:10001"))
        let certificates = try #require(services["certificates"]?["build"] as? Table)
        let given = try #require(certificates["args"] as? Table).keys
        let taken = Set(dockerfile.matches(of: #/(?m)^ARG ([A-Z_]+)/#).map { String($0.1) })
        #expect(given.allSatisfy(taken.contains))
    }

    /// Its own reading of the file, where the tool is installed.
    @Test(.enabled(if: ComposeTests.hasCompose, "docker compose is not installed"))
    func `docker compose reads the files`() throws {
        let choices = [
            [], ["--profile", "watch"], ["--env-file", "Docker/ha.env"],
            ["-f", "docker-compose.yml", "-f", "Docker/compose.nvidia.yml"],
            ["-f", "docker-compose.yml", "-f", "Docker/compose.ascend.yml"],
        ]
        for choice in choices {
            let (status, words) = try Deployment.tool(
                ["docker", "compose"] + choice + ["config", "--quiet"])
            #expect(status == 0 && words.isEmpty, "\(choice): \(words)")
        }
    }

    private static let hasCompose = Deployment.has(["docker", "compose", "version"])
}
