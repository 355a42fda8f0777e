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

/// A gateway or health-agent asks for the group view now and for each change of it.
package struct Subscribe: Hashable, Sendable {
    /// Only the members of this host; empty: all.
    package var host: String

    package init(host: String = "") { self.host = host }
}

/// What a health-agent sees on its host.
package struct HealthReport: Hashable, Sendable {
    package var host: HostReading
    package var findings: [WorkerFinding]
    /// Worker processes that the agent itself keeps running.
    package var supervised: [SupervisedProcess]

    package init(
        host: HostReading, findings: [WorkerFinding], supervised: [SupervisedProcess] = []
    ) {
        self.host = host
        self.findings = findings
        self.supervised = supervised
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
    /// How many workers the scheduler would like, for an outside autoscaler.
    package var wanted: [WantedInstances]
    /// The latest decisions, oldest first.
    package var decisions: [Decision]
    /// One line per upgrade under way.
    package var upgrades: [String]

    package init(
        view: GroupView, hosts: [HealthReport], gateways: [InstanceID],
        wanted: [WantedInstances] = [], decisions: [Decision] = [], upgrades: [String] = []
    ) {
        self.view = view
        self.hosts = hosts
        self.gateways = gateways
        self.wanted = wanted
        self.decisions = decisions
        self.upgrades = upgrades
    }
}

/// How many workers of a role a scenario has and should have.
package struct WantedInstances: Hashable, Sendable {
    package var scenario: String
    package var role: ServingRole
    package var present: Int
    package var wanted: Int

    package init(scenario: String, role: ServingRole, present: Int, wanted: Int) {
        self.scenario = scenario
        self.role = role
        self.present = present
        self.wanted = wanted
    }
}

/// Something the scheduler decided, and why.
package struct Decision: Hashable, Sendable {
    /// What it is about.
    package enum Kind: String, Sendable, CaseIterable {
        case role, substitution, group, upgrade, numbers, delay, other
    }

    /// Milliseconds since 1970; 0 if the scheduler has no calendar.
    package var unixMilliseconds: UInt64
    package var scenario: String
    /// What was done, in a few words.
    package var action: String
    /// The figures that led to it.
    package var reason: String
    /// Not sent: what comes from elsewhere is of another kind.
    package var kind = Kind.other

    package init(unixMilliseconds: UInt64, scenario: String, action: String, reason: String) {
        self.unixMilliseconds = unixMilliseconds
        self.scenario = scenario
        self.action = action
        self.reason = reason
    }
}

/// Scheduler to worker: do this from now on.
///
/// A worker takes no more work of its old role at once, and takes up the new one when the old
/// work has ended; its status then bears the number.
package struct Assign: Hashable, Sendable {
    /// Rises with each assignment of a scheduler; a worker ignores lower ones of the same epoch.
    package var number: UInt64
    package var role: ServingRole
    /// Nil for a spare.
    package var group: GroupID?
    package var scenario: String
    /// Longest iteration while sequences decode, if the worker computes prompts too; nil: no limit.
    package var stepLimit: Duration?
    /// Load this model file instead; empty: keep the one that is loaded.
    package var modelPath: String

    package init(
        number: UInt64, role: ServingRole, group: GroupID?, scenario: String = "",
        stepLimit: Duration? = nil, modelPath: String = ""
    ) {
        self.number = number
        self.role = role
        self.group = group
        self.scenario = scenario
        self.stepLimit = stepLimit
        self.modelPath = modelPath
    }
}

/// Scheduler to gateways: the cluster file, whose scenarios apply from now on.
package struct ClusterRules: Hashable, Sendable {
    /// The file's text; empty: there is none.
    package var text: String

    package init(text: String) { self.text = text }
}

/// What one gateway saw of one group since its last report.
package struct GroupTraffic: Hashable, Sendable {
    package var group: GroupID
    package var scenario: String
    /// Requests that came, and those that ended with an answer, within their limits, or without.
    package var arrived = 0
    package var completed = 0
    package var good = 0
    package var failed = 0
    /// Requests that wait for a worker now.
    package var waiting = 0
    /// Offers that prefill-workers rejected, and reservations that were refused.
    package var rejected = 0
    package var refused = 0
    /// Sums over the completed: time from arrival to the first token, from the accepted offer to
    /// the first token (T_p of P/D-Serve), and from the accepted offer to the end (E2E).
    package var ttft = Duration.zero
    package var prefill = Duration.zero
    package var endToEnd = Duration.zero
    package var promptTokens = 0
    package var cachedTokens = 0
    package var outputTokens = 0

    package init(group: GroupID, scenario: String) {
        self.group = group
        self.scenario = scenario
    }
}

/// Gateway to scheduler: what happened since the last report.
package struct TrafficReport: Hashable, Sendable {
    package var interval: Duration
    package var groups: [GroupTraffic]

    package init(interval: Duration, groups: [GroupTraffic]) {
        self.interval = interval
        self.groups = groups
    }
}

/// A person asks the scheduler to do something; answered by `AdminReply`.
package struct AdminRequest: Hashable, Sendable {
    package struct Argument: Hashable, Sendable {
        package var name: String
        package var value: String

        package init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }

    /// What to do, for example `upgrade`.
    package var command: String
    package var arguments: [Argument]

    package init(command: String, arguments: [Argument] = []) {
        self.command = command
        self.arguments = arguments
    }

    package subscript(name: String) -> String? { arguments.first { $0.name == name }?.value }
}

/// Whether a person's request is carried out, and what there is to say.
package struct AdminReply: Hashable, Sendable {
    package var isAccepted: Bool
    package var text: String

    package init(isAccepted: Bool, text: String) {
        self.isAccepted = isAccepted
        self.text = text
    }
}
