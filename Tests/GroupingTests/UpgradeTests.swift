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

    @Test("who refuses the model works on while the upgrade is paused, and moves when it goes on")
    func refused() {
        var cluster = Self.cluster(prefill: 3, decode: 3)
        cluster.refusedModels = ["/models/b"]
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(.seconds(30))
        let line = cluster.controller.upgradeLines.first ?? ""
        #expect(line.contains("paused") && line.contains("can't load /models/b"))
        #expect(cluster.shown(.prefill) == 3 && cluster.shown(.decode) == 3)
        cluster.refusedModels = []
        #expect(cluster.command("resume").isAccepted)
        cluster.run(.seconds(100))
        #expect(cluster.controller.upgradeLines.first?.hasSuffix("done") == true)
        #expect(cluster.processes.values.allSatisfy { $0.description.modelPath == "/models/b" })
        #expect(cluster.shown(.prefill) == 3 && cluster.shown(.decode) == 3)
    }

    @Test("a model of another name pauses it, and abort brings the old one back")
    func otherName() {
        var cluster = Self.cluster(prefill: 3, decode: 3)
        cluster.modelNames = ["/models/b": "other"]
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(.seconds(30))
        #expect(cluster.controller.upgradeLines.first?.contains("--model-name") == true)
        #expect(Self.serving(cluster, .prefill) >= 2 && Self.serving(cluster, .decode) >= 2)
        #expect(cluster.command("abort").isAccepted)
        cluster.run(.seconds(60))
        #expect(cluster.controller.upgradeLines.first?.hasSuffix("taken back") == true)
        #expect(cluster.processes.values.allSatisfy { $0.description.modelPath == "/models/a" })
        #expect(cluster.shown(.prefill) == 3 && cluster.shown(.decode) == 3)
    }

    @Test("who missed the upgrade and can't load the model is sent to it twice, not for ever")
    func lateComerWithoutModel() {
        var cluster = Self.cluster(prefill: 2, decode: 3)
        let late = cluster["d2"]
        cluster.remove("d2")
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(.seconds(100))
        cluster.brokenModels = ["/models/b"]
        cluster["d2"] = late
        cluster.orders = []
        cluster.run(.seconds(200))
        let loads = cluster.orders.filter { $0.assign.modelPath == "/models/b" }
        #expect(loads.count == cluster.limits.lateLoads)
        #expect(cluster.says("d2 stays a spare: it came back without /models/b"))
        #expect(cluster.role("d2") == .spare && cluster.controller.groups.count == 1)
        #expect(cluster.shown(.prefill) == 2 && cluster.shown(.decode) == 2)
    }

    @Test("who is on the way when it is aborted gets its role back, too")
    func abortedOnTheWay() {
        for wait in [Duration.seconds(1), .seconds(3), .seconds(5)] {
            var cluster = TestCluster(GroupTests.scenario { $0.ratio = .asStarted })
            for number in 0..<2 { cluster.add("p\(number)", .prefill) }
            for number in 0..<2 { cluster.add("d\(number)", .decode) }
            cluster.run(.seconds(3))
            #expect(cluster.command("upgrade", Self.request).isAccepted)
            cluster.run(wait)
            #expect(cluster.command("abort").isAccepted)
            cluster.run(.seconds(100))
            #expect(cluster.controller.upgradeLines.first?.hasSuffix("taken back") == true)
            #expect(cluster.processes.values.allSatisfy { $0.description.modelPath == "/models/a" })
            #expect(cluster.shown(.prefill) == 2 && cluster.shown(.decode) == 2, "\(wait)")
        }
    }

    @Test("a worker that is gone pauses it; it goes on when the worker is back")
    func lost() throws {
        var cluster = Self.cluster(prefill: 3, decode: 3)
        cluster.loadTime = .seconds(100_000)
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(cluster.limits.upgradeAbsence)
        #expect(cluster.controller.upgradeLines.first?.contains("on the way") == true)
        cluster.run(.seconds(5))
        let line = try #require(cluster.controller.upgradeLines.first)
        #expect(line.contains("paused") && line.contains("has been gone for 6"), "\(line)")
        cluster.loadTime = .seconds(5)
        for id in cluster.processes.keys where cluster.processes[id]?.backAt != nil {
            cluster.processes[id]?.backAt = cluster.now
        }
        cluster.run(.seconds(100)) { Self.checkGroups($0) }
        #expect(cluster.says("its workers are back"))
        #expect(cluster.controller.upgradeLines.first?.hasSuffix("done") == true)
    }

    @Test("who comes back with the old model keeps it paused")
    func lostAndBackAsBefore() {
        var cluster = Self.cluster(prefill: 3, decode: 3)
        cluster.brokenModels = ["/models/b"]
        cluster.loadTime = cluster.limits.upgradeAbsence + .seconds(10)
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(.seconds(65))
        #expect(cluster.controller.upgradeLines.first?.contains("has been gone") == true)
        cluster.run(.seconds(60))
        let line = cluster.controller.upgradeLines.first
        #expect(line?.contains("came back without the model") == true, "\(line ?? "none")")
    }

    @Test("a worker that stays with the old model pauses it")
    func idle() {
        var cluster = Self.cluster(prefill: 3, decode: 3)
        #expect(cluster.command("upgrade", Self.request).isAccepted)
        cluster.run(.seconds(920)) { cluster in
            // It is a member and does nothing that it is told.
            for id in cluster.processes.keys where cluster.processes[id]?.backAt == nil {
                cluster.processes[id]?.pending = nil
            }
        }
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
