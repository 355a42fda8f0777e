import ArgumentParser
import Foundation
import ServingTypes

/// Shows what the scheduler knows.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the workers, groups and hosts of a cluster.")

    @OptionGroup var options: SchedulerOptions

    @Flag(help: "Show the scheduler's latest decisions, with their reasons.")
    var why = false

    func run() async throws {
        let status = try await options.query().status()
        if why { showDecisions(status) } else { show(status) }
    }

    private func show(_ status: ClusterStatus) {
        print("view \(status.view.epoch).\(status.view.version)")
        print("gateways: \(status.gateways.map(\.name).joined(separator: ", "))")
        showGroups(status)
        let rows = status.view.members.map { member in
            let worker = member.description
            return [
                worker.instance.name, role(of: member), member.state.name,
                member.group?.name ?? "-", worker.modelName, worker.controlAddress.description,
                load(of: member), worker.device, member.reason,
            ]
        }
        let head = [
            "worker", "role", "state", "group", "model", "address", "load", "device", "reason",
        ]
        print(table([head] + rows))
        for line in status.upgrades { print("upgrade: \(line)") }
        for report in status.hosts {
            let host = report.host
            print(
                "host \(host.host): \(host.cores) cores \(Int(host.busyFraction * 100)) % busy, "
                    + "\(host.availableMemoryBytes >> 20) of "
                    + "\(host.totalMemoryBytes >> 20) MiB free"
            )
            showDevices(host.devices)
            showSupervised(report.supervised)
        }
    }

    private func showDevices(_ devices: [DeviceReading]) {
        guard !devices.isEmpty else { return }
        let rows = devices.map { device in
            [
                device.id, device.kind, device.name, device.grade.name,
                "\(device.freeMemoryBytes >> 20)/\(device.totalMemoryBytes >> 20) MiB",
                device.busyFraction > 0 ? "\(Int(device.busyFraction * 100)) %" : "-",
                device.temperatureCelsius > 0 ? "\(Int(device.temperatureCelsius)) °C" : "-",
                device.powerWatts > 0 ? "\(Int(device.powerWatts)) W" : "-", device.reason,
            ]
        }
        let head = ["device", "kind", "name", "grade", "free", "busy", "heat", "power", "reason"]
        print(table([head] + rows))
    }

    private func showSupervised(_ processes: [SupervisedProcess]) {
        guard !processes.isEmpty else { return }
        let rows = processes.map { process in
            [process.name, process.state.name, "\(process.restarts)", process.reason]
        }
        print(table([["supervised", "state", "restarts", "last end"]] + rows))
    }

    private func showGroups(_ status: ClusterStatus) {
        guard !status.view.groups.isEmpty else { return }
        let members = Dictionary(grouping: status.view.members, by: \.group)
        let rows = status.view.groups.map { group in
            let own = members[group.id] ?? []
            let counts = ServingRole.allCases.compactMap { role in
                let count = own.count { $0.role == role }
                return count > 0 ? "\(count) \(role.name)" : nil
            }
            return [
                group.id.name, group.scenario, group.state.name, "\(group.weight)",
                group.modelName, counts.joined(separator: ", "),
            ]
        }
        print(table([["group", "scenario", "state", "weight", "model", "workers"]] + rows))
        let wanted = status.wanted.map { wantedRow($0) }
        if !wanted.isEmpty { print(table([wantedHead] + wanted)) }
    }

    /// What it is used for and, while that changes, what it still does.
    private func role(of member: GroupMember) -> String {
        guard member.role == .spare, member.group != nil else { return member.role.name }
        return "spare, still \(member.status.role.name)"
    }

    private func load(of member: GroupMember) -> String {
        let worker = member.description
        let now = member.status
        var parts: [String] = []
        if member.role.takesPrompts {
            parts.append("\(now.freePrefillSlots)/\(worker.prefillSlots) slots free")
        }
        if member.role.takesSequences {
            parts.append("\(now.runningSequences) running")
            parts.append("\(now.freeKVBytes >> 20)/\(worker.kvCapacityBytes >> 20) MiB KV free")
        }
        return parts.joined(separator: ", ")
    }

    private func showDecisions(_ status: ClusterStatus) {
        guard !status.decisions.isEmpty else {
            print("nothing was decided yet")
            return
        }
        let now = UInt64(max(0, Date().timeIntervalSince1970 * 1000))
        let rows = status.decisions.map { decision in
            [
                age(of: decision, now: now), decision.scenario, decision.action, decision.reason,
            ]
        }
        print(table([["age", "scenario", "decision", "reason"]] + rows))
    }

    private func age(of decision: Decision, now: UInt64) -> String {
        guard decision.unixMilliseconds > 0 else { return "-" }
        let seconds = (max(now, decision.unixMilliseconds) - decision.unixMilliseconds) / 1000
        switch seconds {
        case ..<60: return "\(seconds) s"
        case ..<3600: return "\(seconds / 60) min"
        case ..<86_400: return "\(seconds / 3600) h \(seconds / 60 % 60) min"
        default: return "\(seconds / 86_400) d \(seconds / 3600 % 24) h"
        }
    }
}

private let wantedHead = ["scenario", "role", "present", "wanted"]

private func wantedRow(_ row: WantedInstances) -> [String] {
    [row.scenario, row.role.name, "\(row.present)", "\(row.wanted)"]
}

/// Shows how many workers there should be.
struct WantedCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "wanted",
        abstract: "Show how many workers each scenario has and should have.")

    @OptionGroup var options: SchedulerOptions

    func run() async throws {
        let status = try await options.query().status()
        print(table([wantedHead] + status.wanted.map { wantedRow($0) }))
    }
}
