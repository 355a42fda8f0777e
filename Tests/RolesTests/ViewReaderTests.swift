import Roles
import ServingTypes
import Testing

@Suite struct ViewReaderTests {
    private let names = (1...9).map { "worker-\($0)" }

    private func view(_ version: UInt64, _ names: [String], epoch: UInt64 = 1) -> GroupView {
        GroupView(
            epoch: epoch, version: version,
            members: names.map { serving(worker(InstanceID($0), .decodeWorker)) },
            groups: (1...3).map { number in
                ServingGroup(
                    id: GroupID("chat/\(number)"), scenario: "chat", modelName: "small",
                    fingerprint: model)
            })
    }

    private func following(_ view: GroupView) -> ViewReader {
        var reader = ViewReader()
        #expect(reader.received(view) == view)
        return reader
    }

    @Test(arguments: 1...13) func `pages give the view once the last has come`(_ maximum: Int) {
        let whole = view(4, names)
        let pages = whole.pages(maximumMembers: maximum)
        #expect(pages.count == (12 + maximum - 1) / maximum)
        #expect(pages.map(\.isPartial) == pages.indices.map { $0 < pages.count - 1 })
        #expect(pages.allSatisfy { $0.members.count + $0.groups.count <= maximum })
        var reader = ViewReader()
        for page in pages.dropLast() { #expect(reader.received(page) == nil) }
        #expect(pages.last.flatMap { reader.received($0) } == whole)
        #expect(reader.view == whole)
    }

    @Test func `an empty view is one page`() {
        let empty = GroupView(epoch: 1, version: 1, members: [])
        #expect(empty.pages() == [empty])
        var reader = ViewReader()
        #expect(reader.received(empty) == empty)
    }

    @Test(arguments: 1..<12) func `pages begin anew after a lost connection`(_ lost: Int) {
        let whole = view(4, names)
        let pages = whole.pages(maximumMembers: 1)
        for saysSo in [false, true] {
            var reader = ViewReader()
            for page in pages.prefix(lost) { #expect(reader.received(page) == nil) }
            if saysSo { reader.connected() }
            #expect(pages.compactMap { reader.received($0) } == [whole])
        }
    }

    @Test func `pages of another version begin anew`() {
        var reader = ViewReader()
        for page in view(4, names).pages(maximumMembers: 5).dropLast() {
            #expect(reader.received(page) == nil)
        }
        let next = view(5, ["worker-2", "worker-8"])
        #expect(next.pages(maximumMembers: 2).compactMap { reader.received($0) } == [next])
    }

    @Test func `an older view is not taken, an equal one is`() {
        var reader = following(view(4, names))
        #expect(reader.received(view(3, ["worker-1"])) == nil)
        #expect(reader.received(view(9, ["worker-1"], epoch: 0)) == nil)
        #expect(reader.view == view(4, names))
        #expect(reader.received(view(4, ["worker-1"])) == view(4, ["worker-1"]))
        #expect(reader.received(view(1, names, epoch: 2)) == view(1, names, epoch: 2))
    }

    @Test func `the smallest change names only what differs`() {
        let old = view(4, names)
        var new = old
        new.version = 6
        new.members[0].status.runningSequences = 3
        new.members[1].role = .spare
        new.members[1].status.runningSequences = 4
        new.members.remove(at: 2)
        new.members.append(serving(worker(InstanceID("worker-91"), .prefillWorker)))
        let change = GroupViewChange(from: old, to: new)
        #expect(
            change
                == GroupViewChange(
                    epoch: 1, since: 4, version: 6, members: [new.members[1], new.members[8]],
                    removed: [InstanceID("worker-3")],
                    readings: [
                        MemberReading(
                            instance: InstanceID("worker-1"), status: new.members[0].status)
                    ]))
        var reader = following(old)
        #expect(reader.received(change) == .view(new))
        new.groups = []
        #expect(GroupViewChange(from: old, to: new).groups == [])
        #expect(old.applying(GroupViewChange(from: old, to: new)) == new)
        #expect(
            GroupViewChange(from: old, to: old)
                == GroupViewChange(epoch: 1, since: 4, version: 4))
    }

    @Test(arguments: 1...30) func `a change in pages applies at once`(_ maximum: Int) {
        let old = view(4, names)
        var new = view(5, ["worker-0"] + names.dropFirst(3) + ["worker-x"])
        new.groups.removeFirst()
        for index in 1..<5 { new.members[index].status.engineSteps = 9 }
        let pages = GroupViewChange(from: old, to: new).pages(maximumMembers: maximum)
        #expect(pages.count == (11 + maximum - 1) / maximum)
        var reader = following(old)
        for page in pages.dropLast() {
            #expect(reader.received(page) == .nothing)
            #expect(reader.view == old)
        }
        #expect(pages.last.map { reader.received($0) } == .view(new))
    }

    @Test func `a change of groups to none survives its pages`() {
        let old = view(4, names)
        var new = old
        new.version = 5
        new.groups = []
        let pages = GroupViewChange(from: old, to: new).pages(maximumMembers: 1)
        #expect(pages.map(\.groups) == [[]])
        var reader = following(old)
        #expect(reader.received(pages[0]) == .view(new))
    }

    @Test func `an older change is ignored, a gap is said once`() {
        let old = view(4, names)
        let next = view(5, ["worker-1"])
        var reader = following(next)
        #expect(reader.received(GroupViewChange(from: old, to: next)) == .nothing)
        #expect(reader.received(GroupViewChange(epoch: 0, since: 5, version: 9)) == .nothing)
        let late = GroupViewChange(from: view(6, names), to: view(7, names))
        #expect(reader.received(late) == .outOfStep)
        #expect(reader.received(late) == .nothing)
        // It fits, but what was missed is not known before the whole view has come.
        #expect(reader.received(GroupViewChange(epoch: 1, since: 5, version: 8)) == .nothing)
        #expect(reader.received(view(8, names)) == view(8, names))
        #expect(reader.received(GroupViewChange(epoch: 1, since: 8, version: 9)) != .outOfStep)
        #expect(reader.received(GroupViewChange(epoch: 2, since: 9, version: 10)) == .outOfStep)
        reader.connected()
        #expect(reader.received(GroupViewChange(epoch: 2, since: 9, version: 10)) == .outOfStep)
    }

    @Test func `a change before any view is out of step`() {
        var reader = ViewReader()
        #expect(reader.received(GroupViewChange(epoch: 1, since: 1, version: 2)) == .outOfStep)
        #expect(reader.received(GroupViewChange(epoch: 1, since: 1, version: 2)) == .nothing)
    }

    @Test func `a change that does not fit its view is out of step`() {
        let unknown = InstanceID("worker-77")
        let reading = MemberReading(instance: unknown, status: InstanceStatus())
        let members = view(1, names).members
        for change in [
            GroupViewChange(epoch: 1, since: 4, version: 5, removed: [unknown]),
            GroupViewChange(epoch: 1, since: 4, version: 5, readings: [reading]),
            GroupViewChange(
                epoch: 1, since: 4, version: 5, members: [members[3], members[1]]),
            GroupViewChange(
                epoch: 1, since: 4, version: 5, removed: [InstanceID("worker-2"), prefill1]),
        ] {
            var reader = following(view(4, names))
            #expect(reader.received(change) == .outOfStep)
            #expect(reader.view == view(4, names))
        }
    }

    @Test func `what is beyond the limits is dropped, and the next version is read`() {
        var limits = ViewReader.Limits()
        limits.maximumMembers = 8
        var reader = ViewReader(limits: limits)
        let large = view(4, names).pages(maximumMembers: 2)
        #expect(large.count > 4)
        #expect(large.allSatisfy { reader.received($0) == nil })
        #expect(reader.dropped == 1)
        let small = view(5, ["worker-1", "worker-2"])
        #expect(reader.received(small) == small)
        let change = GroupViewChange(from: small, to: view(6, names))
        #expect(change.pages(maximumMembers: 1).map { reader.received($0) }.last != .view(small))
        #expect(reader.view == small)
    }

    /// Ten thousand members that differ in everything still come over in pages.
    @Test func `large views travel within their limits`() {
        let old = largeView(members: 10_000)
        var reader = ViewReader()
        #expect(old.pages().compactMap { reader.received($0) } == [old])
        let new = old.withNewReadings()
        let change = GroupViewChange(from: old, to: new)
        #expect(change.members.isEmpty)
        #expect(change.readings.count == 10_000)
        #expect(change.pages().map { reader.received($0) }.last == .view(new))
    }

    @Test func `the only scheduler is followed though its clock has gone back`() throws {
        var reader = ViewReader()
        reader.connected(isOnly: true)
        #expect(reader.received(view(7, names, epoch: 9000)) != nil)
        reader.connected(isOnly: true)
        let first = reader.received(view(1, ["worker-1"], epoch: 5000))
        let after = try #require(first)
        #expect(after.members.count == 1)
        #expect(after.isNewer(than: view(7, names, epoch: 9000)))
        // Its changes follow, and after a lost connection its views are still of the same epoch.
        var change = GroupViewChange(epoch: 5000, since: 1, version: 2)
        change.removed = [InstanceID("worker-1")]
        guard case .view(let changed) = reader.received(change) else {
            Issue.record("the change was not taken")
            return
        }
        #expect(changed.members == [] && changed.epoch == after.epoch)
        reader.connected(isOnly: true)
        #expect(reader.received(view(3, names, epoch: 5000))?.epoch == after.epoch)
        reader.connected(isOnly: true)
        #expect(reader.received(view(1, names, epoch: 9500))?.epoch == 9500)
    }

    @Test func `of several schedulers an older one is not followed`() {
        var reader = ViewReader()
        reader.connected()
        #expect(reader.received(view(7, names, epoch: 9000)) != nil)
        reader.connected()
        #expect(reader.received(view(8, ["worker-1"], epoch: 5000)) == nil)
    }
}
