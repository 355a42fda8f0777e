package import ServingTypes

/// How many members are in one state and one role.
package struct MemberKind: Hashable, Sendable {
    package var state: InstanceState
    package var role: ServingRole

    package init(state: InstanceState, role: ServingRole) {
        self.state = state
        self.role = role
    }
}

/// The view that subscribers have.
///
/// It is changed by what differs, so that its costs follow the news and not the members.
struct SchedulerView: Sendable {
    /// What has become different.
    struct Difference: Sendable {
        /// Members that are new, or differ in more than their status.
        var members: [GroupMember] = []
        /// As they were.
        var removed: [GroupMember] = []
        var readings: [MemberReading] = []
        /// All groups, if any of them changed.
        var groups: [ServingGroup]?

        var isEmpty: Bool {
            members.isEmpty && removed.isEmpty && readings.isEmpty && groups == nil
        }
    }

    private struct Edit {
        var index: Int
        /// Nil removes what is there.
        var member: GroupMember?
    }

    private(set) var view: GroupView
    private(set) var counts: [MemberKind: Int] = [:]
    private var hosts: [String: Set<InstanceID>] = [:]

    init(epoch: UInt64) { view = GroupView(epoch: epoch, version: 0, members: []) }

    /// Changes the view, which then has the next version, unless nothing differs.
    ///
    /// - Parameters:
    ///   - news: members as they are now, nil for those that are gone; sorted by instance.
    ///   - groups: all groups, sorted.
    mutating func apply(
        _ news: [(instance: InstanceID, member: GroupMember?)], groups: [ServingGroup]
    ) -> Difference {
        var difference = Difference()
        var edits: [Edit] = []
        var index = 0
        for (instance, member) in news {
            index = position(of: instance, from: index)
            let isKnown =
                index < view.members.count
                && view.members[index].description.instance == instance
            if isKnown {
                change(at: index, to: member, &difference, &edits)
            } else if let member {
                difference.members.append(member)
                count(member, by: 1)
                edits.append(Edit(index: index, member: member))
            }
        }
        if !edits.isEmpty { view.members = edited(edits) }
        if groups != view.groups {
            view.groups = groups
            difference.groups = groups
        }
        if !difference.isEmpty { view.version += 1 }
        return difference
    }

    private mutating func change(
        at index: Int, to member: GroupMember?, _ difference: inout Difference,
        _ edits: inout [Edit]
    ) {
        let old = view.members[index]
        guard let member else {
            count(old, by: -1)
            difference.removed.append(old)
            edits.append(Edit(index: index, member: nil))
            return
        }
        guard member != old else { return }
        var read = old
        read.status = member.status
        if read == member {
            let instance = member.description.instance
            difference.readings.append(MemberReading(instance: instance, status: member.status))
        } else {
            difference.members.append(member)
            if old.description.host != member.description.host { difference.removed.append(old) }
            count(old, by: -1)
            count(member, by: 1)
        }
        view.members[index] = member
    }

    private mutating func count(_ member: GroupMember, by step: Int) {
        counts[MemberKind(state: member.state, role: member.role), default: 0] += step
        let host = member.description.host
        if step > 0 {
            hosts[host, default: []].insert(member.description.instance)
        } else {
            hosts[host]?.remove(member.description.instance)
            if hosts[host]?.isEmpty == true { hosts[host] = nil }
        }
    }

    private func edited(_ edits: [Edit]) -> [GroupMember] {
        var members: [GroupMember] = []
        members.reserveCapacity(view.members.count + edits.count)
        var next = 0
        for edit in edits {
            members += view.members[next..<edit.index]
            if let member = edit.member { members.append(member) }
            next = edit.member == nil ? edit.index + 1 : edit.index
        }
        return members + view.members[next...]
    }

    /// Index of the first member that is not less.
    private func position(of instance: InstanceID, from start: Int) -> Int {
        var low = start
        var high = view.members.count
        while low < high {
            let middle = (low + high) / 2
            if view.members[middle].description.instance < instance {
                low = middle + 1
            } else {
                high = middle
            }
        }
        return low
    }

    /// The whole view for those who want one host only; groups are not for them.
    func view(ofHost host: String) -> GroupView {
        let members = (hosts[host] ?? []).sorted().compactMap { instance -> GroupMember? in
            let index = position(of: instance, from: 0)
            return index < view.members.count ? view.members[index] : nil
        }
        return GroupView(epoch: view.epoch, version: view.version, members: members)
    }
}

extension SchedulerView.Difference {
    /// For those who have the version before.
    func change(to view: GroupView) -> GroupViewChange {
        let added = Set(members.map(\.description.instance))
        return GroupViewChange(
            epoch: view.epoch, since: view.version - 1, version: view.version, members: members,
            removed: removed.map(\.description.instance).filter { !added.contains($0) },
            readings: readings, groups: groups)
    }

    /// What concerns the members of each host, without readings that come alone; `since` is open.
    func changesByHost(to view: GroupView) -> [String: GroupViewChange] {
        var changes: [String: GroupViewChange] = [:]
        let empty = GroupViewChange(epoch: view.epoch, since: 0, version: view.version)
        for member in members {
            changes[member.description.host, default: empty].members.append(member)
        }
        for member in removed {
            changes[member.description.host, default: empty].removed
                .append(member.description.instance)
        }
        return changes
    }
}
