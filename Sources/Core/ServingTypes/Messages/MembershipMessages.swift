/// A worker joins, or comes back on a new connection.
package struct Register: Hashable, Sendable {
    package var description: InstanceDescription
    package var status: InstanceStatus

    package init(description: InstanceDescription, status: InstanceStatus) {
        self.description = description
        self.status = status
    }
}

/// Renews a worker's lease.
package struct Heartbeat: Hashable, Sendable {
    package var status: InstanceStatus

    package init(status: InstanceStatus) { self.status = status }
}

/// A worker leaves for good.
package struct Deregister: Hashable, Sendable {
    package var reason: String

    package init(reason: String) { self.reason = reason }
}

/// A gateway, worker or health-agent asks for the group view now and after each change.
package struct Subscribe: Hashable, Sendable {
    package init() {}
}

/// What a health-agent sees on its host.
package struct HealthReport: Hashable, Sendable {
    package var host: HostReading
    package var findings: [WorkerFinding]

    package init(host: HostReading, findings: [WorkerFinding]) {
        self.host = host
        self.findings = findings
    }
}

/// Asks the scheduler for everything it knows; answered by `ClusterStatus`.
package struct ClusterStatusRequest: Hashable, Sendable {
    package init() {}
}

/// Everything the scheduler knows, for people.
package struct ClusterStatus: Hashable, Sendable {
    package var view: GroupView
    package var hosts: [HealthReport]
    package var gateways: [InstanceID]

    package init(view: GroupView, hosts: [HealthReport], gateways: [InstanceID]) {
        self.view = view
        self.hosts = hosts
        self.gateways = gateways
    }
}
