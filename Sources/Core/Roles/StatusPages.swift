package import ServingTypes

/// A status may be larger than a message; it travels in parts.
extension ClusterStatus {
    /// What one part may hold besides members: estimated bytes, and gateways.
    private static let maximumBytes = 512 << 10
    private static let maximumGateways = 1000
    /// Members, reports and what is in them up to which everything fits in one message, whatever
    /// its texts.
    private static let maximumWhole = 100

    /// The status in messages of a size that can be sent; the view of all but the last is partial.
    package func pages() -> [ClusterStatus] {
        let parts = hosts.reduce(0) {
            $0 + $1.findings.count + $1.host.devices.count + $1.supervised.count
        }
        let items = view.members.count + view.groups.count + hosts.count + parts
        guard items > Self.maximumWhole || gateways.count > Self.maximumGateways else {
            return [self]
        }
        var pages = view.pages().map { ClusterStatus(view: $0, hosts: [], gateways: []) }
        let empty = ClusterStatus(
            view: GroupView(epoch: view.epoch, version: view.version, members: []), hosts: [],
            gateways: [])
        var page = empty
        var bytes = 0
        for report in hosts {
            if bytes + report.wireBytes > Self.maximumBytes, !page.hosts.isEmpty {
                pages.append(page)
                page = empty
                bytes = 0
            }
            page.hosts.append(report)
            bytes += report.wireBytes
        }
        pages.append(page)
        for start in stride(from: 0, to: gateways.count, by: Self.maximumGateways) {
            page = empty
            page.gateways = Array(gateways[start...].prefix(Self.maximumGateways))
            pages.append(page)
        }
        page = empty
        page.wanted = wanted
        page.decisions = decisions
        page.upgrades = upgrades
        pages.append(page)
        for index in pages.indices { pages[index].view.isPartial = index < pages.count - 1 }
        return pages
    }

    /// Adds the next part of the same status.
    package mutating func append(_ page: ClusterStatus) {
        view.members += page.view.members
        view.groups += page.view.groups
        view.isPartial = page.view.isPartial
        hosts += page.hosts
        gateways += page.gateways
        wanted += page.wanted
        decisions += page.decisions
        upgrades += page.upgrades
    }
}

extension HealthReport {
    /// An estimate that is not too low.
    fileprivate var wireBytes: Int {
        let devices = host.devices.reduce(0) {
            $0 + 128 + $1.id.utf8.count + $1.name.utf8.count + $1.reason.utf8.count
        }
        let supervised = supervised.reduce(0) {
            $0 + 64 + $1.name.utf8.count + $1.reason.utf8.count
        }
        let findings = findings.reduce(0) {
            $0 + 64 + $1.instance.name.utf8.count + $1.reason.utf8.count
        }
        return 256 + host.host.utf8.count + devices + findings + supervised
    }
}
