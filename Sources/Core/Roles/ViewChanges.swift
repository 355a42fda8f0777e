package import ServingTypes

extension GroupMember {
    /// Whether nothing but the status differs.
    fileprivate func isEqualButStatus(_ other: GroupMember) -> Bool {
        role == other.role && state == other.state && group == other.group
            && reason == other.reason && description == other.description
    }
}

extension GroupViewChange {
    /// The smallest change that leads from one view to a later one of the same epoch.
    ///
    /// Members of both are sorted by instance. Of views of different epochs receivers take no
    /// change; they need the whole view.
    package init(from old: GroupView, to new: GroupView) {
        self.init(epoch: new.epoch, since: old.version, version: new.version)
        var index = 0
        // Fields are read in place: a member is large, and most of them are not copied.
        for next in new.members.indices {
            while index < old.members.count {
                // Names that stay share their storage, so that this takes no comparison of texts.
                guard
                    old.members[index].description.instance
                        != new.members[next].description.instance,
                    old.members[index].description.instance
                        < new.members[next].description.instance
                else { break }
                removed.append(old.members[index].description.instance)
                index += 1
            }
            guard index < old.members.count,
                old.members[index].description.instance == new.members[next].description.instance
            else {
                members.append(new.members[next])
                continue
            }
            if !new.members[next].isEqualButStatus(old.members[index]) {
                members.append(new.members[next])
            } else if new.members[next].status != old.members[index].status {
                readings.append(
                    MemberReading(
                        instance: new.members[next].description.instance,
                        status: new.members[next].status))
            }
            index += 1
        }
        removed += old.members[index...].map(\.description.instance)
        if new.groups != old.groups { groups = new.groups }
    }
}

extension GroupView {
    /// The view after a whole change that applies to this version.
    ///
    /// Nil if the change does not fit: it removes or reads a member that is not here, or its parts
    /// are not sorted by instance.
    package func applying(_ change: GroupViewChange) -> GroupView? {
        var result = GroupView(
            epoch: change.epoch, version: change.version, members: [],
            groups: change.groups ?? groups)
        result.members.reserveCapacity(members.count + change.members.count)
        var added = change.members[...]
        var removed = change.removed[...]
        var readings = change.readings[...]
        for member in members {
            let instance = member.description.instance
            while let new = added.first?.description.instance, new != instance, new < instance {
                result.members.append(added.removeFirst())
            }
            if removed.first == instance {
                removed.removeFirst()
            } else if let new = added.first, new.description.instance == instance {
                result.members.append(new)
                added.removeFirst()
            } else if let reading = readings.first, reading.instance == instance {
                var read = member
                read.status = reading.status
                result.members.append(read)
                readings.removeFirst()
            } else {
                result.members.append(member)
            }
        }
        result.members += added
        guard removed.isEmpty, readings.isEmpty, result.isSorted else { return nil }
        return result
    }

    /// Takes over readings in place; they are sorted by instance.
    ///
    /// Costs what is new: a search for each, from the place of the one before it. Says whether each
    /// of them is of a member; of those up to the first that is not, some are taken over.
    package mutating func take(_ readings: [MemberReading], version: UInt64) -> Bool {
        var low = 0
        for reading in readings {
            // Twice as far each time, since the next one is often near.
            var step = 1
            while low + step < members.count,
                members[low + step].description.instance < reading.instance
            {
                low += step
                step *= 2
            }
            var high = min(members.count, low + step + 1)
            while low < high {
                let middle = (low + high) / 2
                if members[middle].description.instance < reading.instance {
                    low = middle + 1
                } else {
                    high = middle
                }
            }
            guard low < members.count, members[low].description.instance == reading.instance
            else { return false }
            members[low].status = reading.status
            low += 1
        }
        self.version = version
        return true
    }

    /// Whether members are sorted by instance, each of them once.
    private var isSorted: Bool {
        zip(members, members.dropFirst()).allSatisfy {
            $0.description.instance < $1.description.instance
        }
    }
}
