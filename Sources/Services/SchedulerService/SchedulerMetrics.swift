import Metrics
import Roles
import ServiceRuntime
import ServingTypes

/// The scheduler's metrics.
///
/// Gauges of what has gone are set to zero, so that no old number stays.
struct SchedulerMetrics {
    private var members: [MemberKind: Int] = [:]
    private var groups: [ServingGroup.State: Int] = [:]
    private var wanted: [WantedKey: WantedInstances] = [:]

    private struct WantedKey: Hashable {
        var scenario: String
        var role: ServingRole
    }

    static func describe(in registry: MetricsRegistry) {
        for (name, help) in [
            ("scheduler_instances", "Workers by state and by what they are used for."),
            ("scheduler_groups", "Groups by state."),
            ("scheduler_wanted_instances", "Workers that a scenario should have, by role."),
            ("scheduler_present_instances", "Workers that a scenario has, by role."),
            ("scheduler_decisions", "Decisions about groups and roles, by kind."),
            ("scheduler_assignments", "Assignments sent to workers, by role."),
            ("scheduler_role_change_seconds", "Time from an order to the role taken up."),
            ("scheduler_cluster_file_errors", "Cluster files that could not be used."),
        ] { registry.describe(name, help) }
    }

    mutating func show(_ machine: SchedulerMachine) {
        let counts = machine.memberCounts
        for (kind, count) in counts where members[kind] != count {
            Gauge(
                label: "scheduler_instances",
                dimensions: [("state", kind.state.name), ("role", kind.role.name)]
            ).record(count)
        }
        members = counts
    }

    mutating func show(_ new: [ServingGroup]) {
        for state in ServingGroup.State.allCases {
            let count = new.count { $0.state == state }
            guard groups.updateValue(count, forKey: state) != count else { continue }
            Gauge(label: "scheduler_groups", dimensions: [("state", state.name)]).record(count)
        }
    }

    mutating func show(_ new: [WantedInstances]) {
        var gone = wanted
        for row in new {
            let key = WantedKey(scenario: row.scenario, role: row.role)
            gone[key] = nil
            guard wanted.updateValue(row, forKey: key) != row else { continue }
            record(row)
        }
        for (key, row) in gone {
            wanted[key] = nil
            record(
                WantedInstances(scenario: row.scenario, role: row.role, present: 0, wanted: 0))
        }
    }

    private func record(_ row: WantedInstances) {
        let labels = [("scenario", row.scenario), ("role", row.role.name)]
        Gauge(label: "scheduler_wanted_instances", dimensions: labels).record(row.wanted)
        Gauge(label: "scheduler_present_instances", dimensions: labels).record(row.present)
    }

    func count(_ decision: Decision) {
        Counter(
            label: "scheduler_decisions_total",
            dimensions: [("scenario", decision.scenario), ("kind", decision.kind.rawValue)]
        ).increment()
    }

    func count(_ assign: Assign) {
        Counter(label: "scheduler_assignments_total", dimensions: [("role", assign.role.name)])
            .increment()
    }

    func tookUp(_ role: ServingRole, after duration: Duration) {
        Timer(label: "scheduler_role_change_seconds", dimensions: [("role", role.name)])
            .record(duration: duration)
    }

    func wrongFile() { Counter(label: "scheduler_cluster_file_errors_total").increment() }
}

extension Decision {
    var eventKind: ClusterEvent.Kind {
        switch kind {
        case .role: .role
        case .substitution: .substitution
        case .group: .group
        case .upgrade: .upgrade
        case .numbers: .numbers
        case .delay: .delay
        case .other: .other
        }
    }
}
