import ClusterRules
import Grouping
import ServingTypes
import Testing

@Suite("Upgrades")
struct UpgradeTests {
    static func cluster(prefill: Int, decode: Int, spares: Int = 0) -> TestCluster {
        var cluster = TestCluster(GroupTests.scenario { $0.spares = spares })
        for number in 0..<prefill { cluster.add("p\(number)", .prefill) }
        for number in 0..<decode { cluster.add("d\(number)", .decode) }
        for number in 0..<spares { cluster.add("s\(number)", .spare) }
        cluster.run(.seconds(3))
        return cluster
    }

    static let request = ["scenario": "chat", "model": "/models/b", "settle": "2"]

    /// Workers in open groups, by role.
    static func serving(_ cluster: TestCluster, _ role: ServingRole) -> Int {
        let open = Set(cluster.controller.groups.filter { $0.state == .open }.map(\.id))
        return cluster.processes.values.count {
            let place = cluster.controller.place(of: $0.description.instance)
            return $0.backAt == nil && (place.role == role || place.role == .mixed)
                && place.group.map(open.contains) ?? false
        }
    }

    static func checkGroups(_ cluster: TestCluster) {
        for group in cluster.controller.groups {
            for process in cluster.processes.values where process.backAt == nil {
                let place = cluster.controller.place(of: process.description.instance)
                if place.group == group.id {
                    #expect(process.description.fingerprint == group.fingerprint)
                }
            }
        }
    }

    @Test(
        "all workers move, a few at a time, and somebody serves all the time",
        arguments: [(2, 2, 0), (3, 5, 0), (1, 1, 2), (1, 1, 1), (4, 4, 1)])
    func whole(prefill: Int, decode: Int, spares: Int) {
        var cluster = Self.cluster(prefill: prefill, decode: decode, spares: spares)
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        var weights: Set<Int> = []
        cluster.run(.seconds(200)) {
            #expect(Self.serving($0, .prefill) >= 1 && Self.serving($0, .decode) >= 1)
            Self.checkGroups($0)
            for group in $0.controller.groups where group.modelPath == "/models/b" {
                weights.insert(group.weight)
            }
        }
        #expect(cluster.processes.values.allSatisfy { $0.description.modelPath == "/models/b" })
        #expect(cluster.controller.upgradeLines.first?.hasSuffix("done") == true)
        #expect(cluster.controller.groups.map(\.modelPath) == ["/models/b"])
        #expect(cluster.controller.groups.map(\.state) == [.open])
        #expect(cluster.shown(.spare) == spares && cluster.shown(.mixed) == 0)
        #expect(prefill < 3 || weights.count >= 3, "\(weights)")
    }

    @Test("without a spare and without room above the floors it waits and says why")
    func blocked() {
        var cluster = Self.cluster(prefill: 1, decode: 1)
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(.seconds(20)) { #expect($0.shown(.spare) == 0) }
        #expect(cluster.controller.upgradeLines.first?.contains("start a spare") == true)
    }

    @Test("pause stops it, resume goes on")
    func pause() {
        var cluster = Self.cluster(prefill: 3, decode: 3)
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(.seconds(1))
        #expect(cluster.command("pause").isAccepted)
        #expect(!cluster.command("pause").isAccepted)
        cluster.run(.seconds(60))
        #expect(cluster.processes.values.count { $0.description.modelPath == "/models/b" } == 2)
        #expect(cluster.controller.groups.filter { $0.state == .open }.count == 2)
        #expect(cluster.command("resume").isAccepted)
        cluster.run(.seconds(100))
        #expect(cluster.processes.values.allSatisfy { $0.description.modelPath == "/models/b" })
    }

    @Test("abort brings everybody back", arguments: [1, 4, 12, 22, 30])
    func abort(after seconds: Int) {
        var cluster = Self.cluster(prefill: 3, decode: 3, spares: 1)
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(.seconds(seconds))
        #expect(cluster.command("abort").isAccepted)
        cluster.run(.seconds(200)) {
            #expect(Self.serving($0, .prefill) >= 1 && Self.serving($0, .decode) >= 1)
            Self.checkGroups($0)
        }
        #expect(cluster.processes.values.allSatisfy { $0.description.modelPath == "/models/a" })
        #expect(
            cluster.controller.groups.filter { $0.state == .open }.map(\.modelPath) == ["/models/a"]
        )
        #expect(cluster.controller.upgradeLines.first?.hasSuffix("taken back") == true)
        #expect(cluster.shown(.prefill) + cluster.shown(.decode) == 6)
    }

    @Test("a model that can't be loaded pauses it; abort restores the group")
    func broken() {
        var cluster = Self.cluster(prefill: 3, decode: 3)
        cluster.brokenModels = ["/models/b"]
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(.seconds(30))
        #expect(cluster.controller.upgradeLines.first?.contains("paused") == true)
        #expect(cluster.says("came back without the model"))
        #expect(cluster.command("abort").isAccepted)
        cluster.run(.seconds(30))
        #expect(cluster.shown(.prefill) == 3 && cluster.shown(.decode) == 3)
    }

    @Test("a worker that never comes back pauses it")
    func lost() {
        var cluster = Self.cluster(prefill: 3, decode: 3)
        cluster.loadTime = .seconds(100_000)
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(.seconds(910))
        #expect(cluster.controller.upgradeLines.first?.contains("has not come back") == true)
    }

    @Test("who missed the upgrade is sent to the new model")
    func lateComer() {
        var cluster = Self.cluster(prefill: 2, decode: 3)
        let late = cluster["d2"]
        cluster.remove("d2")
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(.seconds(100))
        cluster["d2"] = late
        cluster.run(.seconds(20))
        #expect(cluster["d2"]?.description.modelPath == "/models/b")
        #expect(cluster.role("d2") == .decode)
        #expect(cluster.controller.groups.count == 1)
    }

    @Test("wrong requests say what to do")
    func wrong() {
        var cluster = Self.cluster(prefill: 2, decode: 2)
        #expect(cluster.command("upgrade", ["scenario": "x"]).text.contains("there are chat"))
        #expect(cluster.command("upgrade").text.contains("model=PATH"))
        #expect(cluster.command("upgrade", ["model": "/models/a"]).text.contains("already"))
        #expect(cluster.command("upgrade", ["model": "/b", "step": "0"]).text.contains("1 to"))
        #expect(!cluster.command("abort").isAccepted)
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        #expect(cluster.command("upgrade", Self.request).text.contains("under way"))
    }
}
