package import ServingTypes

/// Puts a group view together from the pages and changes that a subscriber gets.
///
///     subscribed ──last page──▶ following ──change──▶ following (.view)
///          ▲                        └──change of another version──▶ waiting (.outOfStep)
///          └─────────────────── the caller subscribes again ────────────┘
package struct ViewReader: Sendable {
    package struct Limits: Sendable, Hashable {
        /// Members of a view, and items of a change, that are collected; more are dropped.
        package var maximumMembers = 65_536
        package var maximumGroups = 16_384

        package init() {}
    }

    package enum Outcome: Hashable, Sendable {
        /// Nothing new: a page of a change, an older change, or one while a whole view is awaited.
        case nothing
        case view(GroupView)
        /// These alone are new; only for those who asked for it.
        case readings([MemberReading], version: UInt64)
        /// The caller sends `Subscribe` again. Said once, until a whole view comes.
        case outOfStep
    }

    /// The latest whole view.
    package private(set) var view: GroupView?
    /// Views and changes that were dropped because they are beyond the limits.
    package private(set) var dropped = 0

    private let limits: Limits
    private let tellsReadings: Bool
    private var pages: GroupView?
    private var change: GroupViewChange?
    /// The version whose further pages are dropped.
    private var refused: GroupView?
    private var isWaiting = false
    /// Whether each connection leads to the one scheduler there is.
    private var followsOne = false
    /// The epoch that this scheduler gives itself, and what is added to it here.
    private var source: UInt64?
    private var shift: UInt64 = 0

    /// - Parameter tellsReadings: changes of nothing but readings are given as such, which costs
    ///   what has changed and not what a view costs.
    package init(limits: Limits = Limits(), tellsReadings: Bool = false) {
        self.limits = limits
        self.tellsReadings = tellsReadings
    }

    /// A new connection: what has come in half is gone, what is whole stays.
    ///
    /// - Parameter isOnly: there is no other scheduler, so whoever is connected now leads, even if
    ///   its epoch is older than that of its former life: epochs without a store come from the
    ///   host's clock, which may have gone back. Its epoch then counts as the next one.
    package mutating func connected(isOnly: Bool = false) {
        followsOne = isOnly
        pages = nil
        change = nil
        refused = nil
        isWaiting = false
    }

    /// The whole view, when its last page has come and it is no older than the one that is here.
    package mutating func received(_ page: GroupView) -> GroupView? {
        if followsOne, page.epoch != source {
            source = page.epoch
            shift = 0
            if let view, page.epoch <= view.epoch { shift = view.epoch + 1 - page.epoch }
        }
        var page = page
        page.epoch = shifted(page.epoch)
        return receivedInOrder(page)
    }

    private func shifted(_ epoch: UInt64) -> UInt64 {
        followsOne && epoch == source ? epoch + shift : epoch
    }

    private mutating func receivedInOrder(_ page: GroupView) -> GroupView? {
        change = nil
        if let refused, refused.isSameVersion(as: page) {
            if !page.isPartial { self.refused = nil }
            return nil
        }
        refused = nil
        var whole = page
        if var pages, page.continues(pages) {
            // Moved out and back, so that the arrays grow in place.
            self.pages = nil
            pages.members += page.members
            pages.groups += page.groups
            pages.isPartial = page.isPartial
            whole = pages
        }
        pages = nil
        guard whole.members.count <= limits.maximumMembers,
            whole.groups.count <= limits.maximumGroups
        else {
            dropped += 1
            if page.isPartial { refused = page }
            return nil
        }
        if whole.isPartial {
            pages = whole
            return nil
        }
        isWaiting = false
        if let view, view.isNewer(than: whole) { return nil }
        view = whole
        return whole
    }

    package mutating func received(_ page: GroupViewChange) -> Outcome {
        guard !isWaiting else { return .nothing }
        var page = page
        page.epoch = shifted(page.epoch)
        // Read in place: a view that somebody else holds, too, is copied when it changes.
        guard let epoch = view?.epoch, let version = view?.version else { return outOfStep() }
        guard (page.epoch, page.version) > (epoch, version) else { return .nothing }
        guard page.epoch == epoch, page.since == version else { return outOfStep() }
        var whole = page
        if var pages = change, pages.since == page.since, pages.version == page.version {
            change = nil
            pages.members += page.members
            pages.removed += page.removed
            pages.readings += page.readings
            if let groups = page.groups { pages.groups = (pages.groups ?? []) + groups }
            pages.isPartial = page.isPartial
            whole = pages
        }
        change = nil
        guard whole.itemCount <= limits.maximumMembers,
            whole.groups?.count ?? 0 <= limits.maximumGroups
        else {
            dropped += 1
            return outOfStep()
        }
        if whole.isPartial {
            change = whole
            return .nothing
        }
        if tellsReadings, whole.hasOnlyReadings { return read(whole) }
        guard let next = view?.applying(whole), next.members.count <= limits.maximumMembers else {
            return outOfStep()
        }
        self.view = next
        return .view(next)
    }

    private mutating func read(_ change: GroupViewChange) -> Outcome {
        guard view?.take(change.readings, version: change.version) == true else {
            return outOfStep()
        }
        return .readings(change.readings, version: change.version)
    }

    private mutating func outOfStep() -> Outcome {
        change = nil
        isWaiting = true
        return .outOfStep
    }
}

extension GroupView {
    fileprivate func isSameVersion(as other: GroupView) -> Bool {
        (epoch, version) == (other.epoch, other.version)
    }

    /// Whether this page goes on where the pages before it ended; pages that come once more, after
    /// a connection was lost, do not.
    fileprivate func continues(_ pages: GroupView) -> Bool {
        guard isSameVersion(as: pages) else { return false }
        if let first = groups.first {
            guard pages.members.isEmpty, let last = pages.groups.last, last.id < first.id else {
                return false
            }
        }
        guard let first = members.first, let last = pages.members.last else { return true }
        return last.description.instance < first.description.instance
    }
}

extension GroupViewChange {
    fileprivate var itemCount: Int { members.count + removed.count + readings.count }

    fileprivate var hasOnlyReadings: Bool { members.isEmpty && removed.isEmpty && groups == nil }
}
