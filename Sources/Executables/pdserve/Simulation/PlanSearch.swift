import Foundation
import Planning
import Synchronization

/// Searches designs, some at once; stops when its task is cancelled.
struct PlanSearch: Sendable {
    /// Designs still to search, and what the best fleet so far costs.
    private final class Board: Sendable {
        private struct State {
            var next = 0
            var known = Double.infinity
        }

        private let designs: [Design]
        private let state = Mutex(State())

        init(_ designs: [Design]) { self.designs = designs }

        func take() -> (design: Design, known: Double)? {
            state.withLock { state in
                guard state.next < designs.count else { return nil }
                defer { state.next += 1 }
                return (designs[state.next], state.known)
            }
        }

        func found(_ value: Double) { state.withLock { $0.known = min($0.known, value) } }
    }

    let task: PlanningTask
    var threads: Int?
    let found: @Sendable (FleetPlanner.Finding) -> Void

    /// Of an open search, or of one with this rate.
    func run() async { await search(task) }

    private func search(_ task: PlanningTask) async {
        let planner = FleetPlanner(task) { !Task.isCancelled }
        let isInventory = task.budget.isOpen && task.rate == nil
        if isInventory {
            let assignments = planner.assignments()
            if !assignments.isEmpty {
                for finding in assignments { found(finding) }
                return
            }
        }
        let board = Board(planner.designs)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<(threads ?? ProcessInfo.processInfo.activeProcessorCount) {
                group.addTask {
                    while !Task.isCancelled, let (design, known) = board.take() {
                        let finding =
                            task.rate.map { planner.cheapest(design, rate: $0, known: known) }
                            ?? planner.fastest(design)
                        if let best = finding.best, task.rate != nil {
                            board.found(planner.value(best.fleet))
                        }
                        show(finding, task)
                        found(finding)
                    }
                }
            }
        }
    }

    private func show(_ finding: FleetPlanner.Finding, _ task: PlanningTask) {
        let name = finding.design.map { task.kinds.name(of: $0) } ?? "an assignment"
        let result =
            finding.best.map { "\(task.kinds.name(of: $0.fleet)), \(rounded($0.rate))/s" }
            ?? finding.reason
        FileHandle.standardError.write(
            Data("\(name): \(result) (\(finding.trials) trials)\n".utf8))
    }

    // MARK: Comparisons

    /// Splitwise's question: what is the best for what a fleet costs, takes, or serves.
    func compare(
        _ iso: PlanCommand.Iso, with fleet: Fleet, results: borrowing Mutex<PlanResults>
    ) async throws {
        var task = task
        for kind in task.kinds.indices { task.kinds[kind].available = nil }
        var fixed = task
        fixed.budget = PlanBudget(machines: fleet.machines)
        let planner = FleetPlanner(fixed) { !Task.isCancelled }
        guard let kind = fleet.mixed.keys.first else { return }
        let served = planner.fastest(.together(kind))
        show(served, task)
        results.withLock { $0.baseline = served.best }
        switch iso {
        case .cost: task.budget.dollarsPerHour = task.kinds.price(of: fleet)
        case .power: task.budget.watts = task.kinds.power(of: fleet)
        case .throughput: task.rate = served.best?.rate
        }
        guard iso != .throughput || task.rate != nil else { return }
        await search(task)
    }
}

extension [MachineKind] {
    func name(of design: Design) -> String {
        switch design {
        case .together(let kind): "\(self[kind].name) doing both"
        case .split(let prefill, let decode):
            "\(self[prefill].name) prefill, \(self[decode].name) decode"
        }
    }

    func name(of fleet: Fleet) -> String {
        let parts = [
            ("prefill", fleet.prefill), ("decode", fleet.decode), ("both", fleet.mixed),
        ]
        return parts.filter { !$0.1.isEmpty }.map { role, counts in
            let machines = counts.sorted { $0.key < $1.key }
                .map { "\($0.value) × (\(self[$0.key].name))" }
            return "\(role): \(machines.joined(separator: " + "))"
        }.joined(separator: "; ")
    }
}

/// A number with three digits.
func rounded(_ value: Double) -> String { String(format: "%.3g", value) }
