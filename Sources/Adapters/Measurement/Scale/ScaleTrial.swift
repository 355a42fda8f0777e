import Foundation
import LocalCluster
import ServiceRuntime
import ServiceStart
import ServingTypes
import Transport
import WireProtocol

/// One number of instances: from nothing, at rest, dying, after the scheduler's restart.
struct ScaleTrial: Sendable {
    private typealias Limits = ScaleMeasurement.Limits

    let count: Int
    let settings: ScaleMeasurement.Settings
    let cluster: LocalCluster
    let services: PlayedServices
    let progress: @Sendable (String) -> Void

    func run() async throws -> ScaleLevel {
        let fleet = SimulatedFleet(count: count, services: services)
        let watchers = (1...settings.gateways).map { number in
            ViewWatcher(number: number, services: services)
        }
        return try await withThrowingTaskGroup(of: ScaleLevel?.self) { group in
            for watcher in watchers {
                group.addTask {
                    try await watcher.run()
                    return nil
                }
            }
            group.addTask {
                try await fleet.run()
                return nil
            }
            group.addTask { try await measure(fleet, watchers) }
            defer { group.cancelAll() }
            while let level = try await group.next() {
                if let level { return level }
            }
            throw CancellationError()
        }
    }

    private func measure(
        _ fleet: SimulatedFleet, _ watchers: [ViewWatcher]
    ) async throws -> ScaleLevel {
        var level = ScaleLevel(instances: count)
        level.emptyBytes = scheduler.flatMap { ProcessReadings.residentBytes($0) }
        let start = ProcessClock.now()
        let used = scheduler.flatMap { ProcessReadings.processorSeconds($0) }
        fleet.connect()
        level.registered = try await arrival(count, fleet, watchers) - start
        level.inUse = await inUse(count, watchers).map { $0 - start }
        level.registeringProcessorSeconds = difference(processorSeconds, used)
        progress("\(count) instances registered in \(level.registered)")
        try await Task.sleep(for: Limits.calm)
        try await rest(fleet, watchers, &level)
        level.status = try await status()
        try await die(fleet, watchers, &level)
        try await restart(fleet, watchers, &level)
        return level
    }

    // MARK: Waiting

    private var scheduler: Int32? {
        cluster.processes(of: .scheduler).first?.processIdentifier
    }

    private var processorSeconds: Double? {
        scheduler.flatMap { ProcessReadings.processorSeconds($0) }
    }

    private func difference(_ now: Double?, _ before: Double?) -> Double? {
        now.flatMap { now in before.map { now - $0 } }
    }

    /// Waits until every gateway sees so many serve; gives when the last one did.
    private func arrival(
        _ serving: Int, epochAfter epoch: UInt64 = 0, _ fleet: SimulatedFleet,
        _ watchers: [ViewWatcher]
    ) async throws -> MonotonicTime {
        let end = ProcessClock.now() + Limits.arrival
        while true {
            let readings = watchers.map(\.reading)
            if readings.allSatisfy({ $0.serving == serving && $0.epoch > epoch }) {
                return readings.map(\.time).max() ?? ProcessClock.now()
            }
            guard ProcessClock.now() < end else {
                let seen = readings.map { "\($0.serving)" }.joined(separator: ", ")
                throw MeasurementError.notReached(
                    instances: count,
                    "after \(Limits.arrival) gateways see \(seen) of \(serving) serve, "
                        + "\(fleet.counts.connected) are connected")
            }
            try await Task.sleep(for: Limits.poll)
        }
    }

    /// As above, with something to do; nil if that does not come.
    private func inUse(_ expected: Int, _ watchers: [ViewWatcher]) async -> MonotonicTime? {
        let end = ProcessClock.now() + Limits.assignment
        while ProcessClock.now() < end {
            let readings = watchers.map(\.reading)
            if readings.allSatisfy({ $0.inUse == expected }) {
                return readings.map(\.time).max()
            }
            guard (try? await Task.sleep(for: Limits.poll)) != nil else { return nil }
        }
        return nil
    }

    /// How often the scheduler's log says so.
    private func logged(_ words: String) -> Int {
        guard let file = cluster.processes(of: .scheduler).first?.logFile,
            let text = try? String(contentsOf: file, encoding: .utf8)
        else { return 0 }
        return text.components(separatedBy: words).count - 1
    }

    private var endedLeases: Int { logged("its lease has run out") }
    private var lostConnections: Int { logged("its connection is lost") }

    // MARK: At rest

    private func rest(
        _ fleet: SimulatedFleet, _ watchers: [ViewWatcher], _ level: inout ScaleLevel
    ) async throws {
        let (leases, lost) = (endedLeases, lostConnections)
        let start = ProcessClock.now()
        let (before, used) = (fleet.counts, processorSeconds)
        let own = ProcessReadings.processorSeconds(ProcessInfo.processInfo.processIdentifier)
        let readings = watchers.map(\.reading)
        try await Task.sleep(for: settings.window)
        let seconds = (ProcessClock.now() - start).seconds
        let after = fleet.counts
        level.connections = after.connected
        level.heartbeatsPerSecond = Double(after.heartbeats - before.heartbeats) / seconds
        level.processorShare = difference(processorSeconds, used).map { $0 / seconds }
        level.ownProcessorShare = difference(
            ProcessReadings.processorSeconds(ProcessInfo.processInfo.processIdentifier), own
        ).map { $0 / seconds }
        level.residentBytes = scheduler.flatMap { ProcessReadings.residentBytes($0) }
        let gateways = Double(watchers.count)
        for (watcher, before) in zip(watchers, readings) {
            let now = watcher.reading
            level.gatewayBytesPerSecond += Double(now.bytes - before.bytes) / seconds / gateways
            level.viewsPerSecond += Double(now.views - before.views) / seconds / gateways
            level.outOfStep += now.outOfStep
        }
        level.missedLeases = endedLeases - leases
        level.lostConnections = lostConnections - lost
    }

    /// A person asks for all there is.
    private func status() async throws -> ScaleLevel.Status {
        let client = try services.client(
            .administrator, InstanceID(Role.administrator.name), incarnation: 1)
        let start = ProcessClock.now()
        let found = try await client.connectOnce { session in
            session.post(.clusterStatusRequest(ClusterStatusRequest()))
            var status = ScaleLevel.Status()
            for try await frame in session.inbound {
                guard case .clusterStatus(let page) = frame.message else { continue }
                status.messages += 1
                status.members += page.view.members.count
                if !page.view.isPartial { break }
            }
            return status
        }
        guard found.members == count else {
            throw MeasurementError.notReached(
                instances: count, "the scheduler's status has \(found.members) of them")
        }
        var status = found
        status.time = ProcessClock.now() - start
        return status
    }

    // MARK: Deaths

    private func die(
        _ fleet: SimulatedFleet, _ watchers: [ViewWatcher], _ level: inout ScaleLevel
    ) async throws {
        let each = min(settings.deaths, count / 4)
        guard each > 0 else { return }
        let numbers = Array((0..<count).shuffled().prefix(2 * each))
        progress("\(each) instances disconnect, \(each) fall silent")
        level.disconnected = try await deaths(
            numbers.prefix(each), fleet, watchers, fleet.disconnect)
        level.silenced = try await deaths(numbers.suffix(each), fleet, watchers, fleet.silence)
        fleet.bury()
    }

    /// Gives for each death the time until the last gateway's view excluded it.
    private func deaths(
        _ numbers: ArraySlice<Int>, _ fleet: SimulatedFleet, _ watchers: [ViewWatcher],
        _ kill: (Int) -> MonotonicTime
    ) async throws -> Samples {
        let names = numbers.map { fleet.name($0) }
        for watcher in watchers { watcher.watch(names) }
        var deaths: [(name: InstanceID, time: MonotonicTime)] = []
        for (number, name) in zip(numbers, names) {
            deaths.append((name, kill(number)))
            // By chance, so that deaths do not keep step with anybody's rhythm.
            try await Task.sleep(for: Limits.betweenDeaths * Double.random(in: 0.5...1.5))
        }
        var samples = Samples()
        for death in deaths {
            let end = ProcessClock.now() + Limits.departure
            var seen: [MonotonicTime] = []
            repeat {
                seen = watchers.compactMap { $0.excluded(death.name) }
                guard ProcessClock.now() < end else {
                    throw MeasurementError.notReached(
                        instances: count,
                        "\(death.name) died \(Limits.departure) ago and is still in a view")
                }
                try await Task.sleep(for: Limits.poll)
            } while seen.count < watchers.count
            if let last = seen.max() { samples.add(last - death.time) }
        }
        return samples
    }

    // MARK: Restart

    private func restart(
        _ fleet: SimulatedFleet, _ watchers: [ViewWatcher], _ level: inout ScaleLevel
    ) async throws {
        let left = count - fleet.counts.dead
        guard let old = cluster.processes(of: .scheduler).first,
            let epoch = watchers.map(\.reading.epoch).max()
        else { return }
        progress("killing the scheduler of \(left) instances")
        let start = ProcessClock.now()
        old.signal(SIGKILL)
        await old.waitUntilExit(within: Limits.departure)
        try await cluster.startScheduler(listen: services.scheduler.description)
        level.restarted = try await arrival(left, epochAfter: epoch, fleet, watchers) - start
        level.inUseAgain = await inUse(left, watchers).map { $0 - start }
    }
}
