import Roles
import ServingTypes

/// A scheduler's view that changes at random, and every version it had.
struct ChangingView {
    private(set) var view: GroupView
    private(set) var history: [UInt64: GroupView] = [:]
    private var random: SeededGenerator

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
        view = GroupView(epoch: 1 + random.next() % 3, version: 1, members: [])
        for _ in 0..<random.below(30) { add() }
        history[view.version] = view
    }

    /// Up to eight changes, perhaps none, in one new version.
    mutating func change() {
        for _ in 0..<random.below(9) {
            switch random.below(10) {
            case 0, 1: add()
            case 2: remove()
            case 3: changeGroups()
            case 4, 5: changeMember()
            default: read()
            }
        }
        view.version += 1 + UInt64(random.below(3))
        history[view.version] = view
    }

    private mutating func add() {
        let name = InstanceID("worker-\(random.below(60))")
        var member = serving(worker(name, random.below(2) == 0 ? .prefillWorker : .decodeWorker))
        member.description.incarnation = random.next()
        let index =
            view.members.firstIndex { $0.description.instance >= name } ?? view.members.count
        if index < view.members.count, view.members[index].description.instance == name {
            view.members[index] = member
        } else {
            view.members.insert(member, at: index)
        }
    }

    private mutating func remove() {
        guard !view.members.isEmpty else { return }
        view.members.remove(at: random.below(view.members.count))
    }

    private mutating func changeGroups() {
        view.groups = (0..<random.below(5)).map { number in
            ServingGroup(
                id: GroupID("chat/\(number)"), scenario: "chat", modelName: "small",
                fingerprint: model, weight: random.below(1000))
        }
    }

    private mutating func changeMember() {
        guard !view.members.isEmpty else { return }
        let index = random.below(view.members.count)
        switch random.below(5) {
        case 0: view.members[index].role = ServingRole.allCases[random.below(4)]
        case 1: view.members[index].group = random.below(2) == 0 ? nil : GroupID("chat/1")
        case 2: view.members[index].state = .draining
        case 3: view.members[index].reason = "reason \(random.below(100))"
        default: view.members[index].description.incarnation = random.next()
        }
    }

    private mutating func read() {
        guard !view.members.isEmpty else { return }
        let index = random.below(view.members.count)
        view.members[index].status.engineSteps = random.next()
    }
}

/// Members with names, paths and figures of the usual length, sorted by instance.
func largeView(members count: Int, version: UInt64 = 1) -> GroupView {
    let members = (0..<count).map { index in
        let number = String(1_000_000 + index)
        let isPrefill = index % 4 == 0
        var status = InstanceStatus()
        status.freePrefillSlots = index % 5
        status.freeKVBytes = 48 << 30
        status.engineSteps = version * 1_000_000 + UInt64(index)
        status.role = isPrefill ? .prefill : .decode
        status.assignment = 7
        status.prefillTokensPerSecond = 10_000.5
        status.decodeStepMilliseconds = 21.25
        let address = NetworkAddress(host: "10.12.104.\(index % 256)", port: 7400)
        return GroupMember(
            description: InstanceDescription(
                instance: InstanceID("decode-worker-\(number)"),
                role: isPrefill ? .prefillWorker : .decodeWorker, incarnation: .max - 1,
                host: "host-\(number)", controlAddress: address, bulkAddress: address,
                modelName: "llama-3-70b-instruct", fingerprint: model, contextTokens: 131_072,
                kvBytesPerToken: 327_680, kvCapacityBytes: 64 << 30, prefillSlots: 4,
                decodeSequences: 64, device: "NVIDIA H100 80GB", scenario: "chat",
                modelPath: "/models/llama-3-70b-instruct.gguf"),
            state: .serving, status: status, role: isPrefill ? .prefill : .decode,
            group: GroupID("chat/\(index / 64)"))
    }
    let groups = (0..<((count + 63) / 64)).map { number in
        ServingGroup(
            id: GroupID("chat/\(1_000 + number)"), scenario: "chat",
            modelName: "llama-3-70b-instruct", fingerprint: model,
            modelPath: "/models/llama-3-70b-instruct.gguf")
    }
    return GroupView(epoch: 1, version: version, members: members, groups: groups)
}

extension GroupView {
    /// The next version, in which every member has another reading.
    func withNewReadings() -> GroupView {
        var next = self
        next.version += 1
        for index in next.members.indices { next.members[index].status.engineSteps += 17 }
        return next
    }
}
