package import ServingTypes

/// What one message of a group view may hold.
package enum ViewPage {
    /// Members, readings, removed members and groups together.
    package static let maximumItems = 4096
    package static let maximumGroups = 512
    /// Bytes of a page, by an estimate that is never too low; leaves a quarter of a message free.
    package static let maximumBytes = 768 << 10

    /// Numbers, tags and lengths of a member, a reading, a group or a name at their longest.
    fileprivate static let memberBytes = 256
    fileprivate static let readingBytes = 112
    fileprivate static let groupBytes = 80
    fileprivate static let nameBytes = 4
    /// Longer reasons are cut on the wire.
    fileprivate static let reasonBytes = 2 << 10

    /// What is left on a page.
    fileprivate struct Room {
        private let maximumItems: Int
        private(set) var items = 0
        private var groups = 0
        private var bytes = 0

        init(maximumItems: Int) {
            self.maximumItems = max(1, min(maximumItems, ViewPage.maximumItems))
        }

        /// Whether it still fits; an empty page takes anything.
        mutating func takes(bytes more: Int, isGroup: Bool = false) -> Bool {
            guard
                items == 0
                    || items < maximumItems && bytes + more <= ViewPage.maximumBytes
                        && (!isGroup || groups < ViewPage.maximumGroups)
            else { return false }
            items += 1
            bytes += more
            if isGroup { groups += 1 }
            return true
        }

        mutating func clear() { self = Room(maximumItems: maximumItems) }
    }
}

extension GroupMember {
    fileprivate var wireBytes: Int {
        let names =
            description.instance.name.utf8.count + description.host.utf8.count
            + description.controlAddress.host.utf8.count + description.bulkAddress.host.utf8.count
            + description.modelName.utf8.count + description.device.utf8.count
            + description.scenario.utf8.count + description.modelPath.utf8.count
        return ViewPage.memberBytes + names + (group?.name.utf8.count ?? 0)
            + min(reason.utf8.count, ViewPage.reasonBytes)
    }
}

extension MemberReading {
    fileprivate var wireBytes: Int { ViewPage.readingBytes + instance.name.utf8.count }
}

extension ServingGroup {
    fileprivate var wireBytes: Int {
        ViewPage.groupBytes + id.name.utf8.count + scenario.utf8.count + modelName.utf8.count
            + modelPath.utf8.count
    }
}

/// Pages that are begun anew whenever one is full.
private struct PageWriter<Page> {
    private let empty: Page
    private var room: ViewPage.Room
    private var full: [Page] = []
    private var page: Page

    init(_ empty: Page, maximumItems: Int) {
        self.empty = empty
        page = empty
        room = ViewPage.Room(maximumItems: maximumItems)
    }

    mutating func add(bytes: Int, isGroup: Bool = false, _ write: (inout Page) -> Void) {
        while !room.takes(bytes: bytes, isGroup: isGroup) {
            full.append(page)
            page = empty
            room.clear()
        }
        write(&page)
    }

    /// All pages; the last one is not partial.
    func pages(finish: (inout Page) -> Void) -> [Page] {
        var last = page
        finish(&last)
        return full + [last]
    }
}

extension GroupView {
    /// The view in messages of at most so many members and groups, and of a size that can be sent.
    ///
    /// Groups come first, then members. All pages but the last are partial.
    package func pages(maximumMembers: Int = ViewPage.maximumItems) -> [GroupView] {
        var writer = PageWriter(
            GroupView(epoch: epoch, version: version, members: [], isPartial: true),
            maximumItems: maximumMembers)
        for group in groups {
            writer.add(bytes: group.wireBytes, isGroup: true) { $0.groups.append(group) }
        }
        for member in members {
            writer.add(bytes: member.wireBytes) { $0.members.append(member) }
        }
        return writer.pages { $0.isPartial = false }
    }
}

extension GroupViewChange {
    /// The change in messages of at most so many members, readings and groups, and of a size that
    /// can be sent.
    ///
    /// They apply at once, with the last; all but the last are partial.
    package func pages(maximumMembers: Int = ViewPage.maximumItems) -> [GroupViewChange] {
        var writer = PageWriter(
            GroupViewChange(epoch: epoch, since: since, version: version, isPartial: true),
            maximumItems: maximumMembers)
        for group in groups ?? [] {
            writer.add(bytes: group.wireBytes, isGroup: true) { page in
                if page.groups == nil { page.groups = [] }
                page.groups?.append(group)
            }
        }
        for instance in removed {
            writer.add(bytes: ViewPage.nameBytes + instance.name.utf8.count) { page in
                page.removed.append(instance)
            }
        }
        for member in members {
            writer.add(bytes: member.wireBytes) { $0.members.append(member) }
        }
        for reading in readings {
            writer.add(bytes: reading.wireBytes) { $0.readings.append(reading) }
        }
        // No groups at all are a change, too.
        return writer.pages { page in
            page.isPartial = false
            if groups?.isEmpty == true { page.groups = [] }
        }
    }
}
