package import ServingTypes

/// Every bound of the health-agent's decisions.
package struct HealthLimits: Sendable, Hashable {
    package var probeInterval: Duration = .milliseconds(500)
    /// Time without an answer after which a worker counts as silent.
    package var silenceDeadline: Duration = .seconds(2)
    /// Age of one engine iteration after which the engine counts as hung.
    package var stepDeadline: Duration = .seconds(120)
    /// Time between two ticks from which on this process was away itself; the silence of others is
    /// not held against them then.
    package var ownPause: Duration = .seconds(1)
    /// Workers watched on one host.
    package var maximumWorkers = 256

    package init() {}
}

/// What the health-agent's shell has to do.
package enum HealthAction: Hashable, Sendable {
    /// Keep a control connection to this worker from now on.
    case watch(InstanceID, NetworkAddress, Role)
    case forget(InstanceID)
    case ping(InstanceID, Ping)
    /// Send what was found to the scheduler, with a fresh host reading.
    case report([WorkerFinding])
}

/// The health-agent's decisions: which workers of its host are well.
///
/// A worker is judged by answers and by the engine's progress, not by an open socket, so a hung
/// process is found although its connections stand.
package struct HealthMachine: Sendable {
    private struct Watched: Sendable {
        var incarnation: UInt64
        var address: NetworkAddress
        var lastAnswer: MonotonicTime
        var status: InstanceStatus?
    }

    private let host: String
    private let limits: HealthLimits
    private var view = GroupView.empty
    private var watched: [InstanceID: Watched] = [:]
    private var pings: UInt64 = 0
    private var nextProbe: MonotonicTime = .start
    private var lastTick: MonotonicTime?

    package init(host: String, limits: HealthLimits = HealthLimits()) {
        self.host = host
        self.limits = limits
    }

    package mutating func viewChanged(_ newView: GroupView, now: MonotonicTime) -> [HealthAction] {
        guard newView.isNewer(than: view) else { return [] }
        view = newView
        var actions: [HealthAction] = []
        let local = newView.members.map(\.description).filter { $0.host == host }
        let names = Set(local.map(\.instance))
        for instance in watched.keys.sorted() where !names.contains(instance) {
            watched[instance] = nil
            actions.append(.forget(instance))
        }
        for worker in local {
            let known = watched[worker.instance]
            guard known?.incarnation != worker.incarnation else { continue }
            if known != nil { actions.append(.forget(worker.instance)) }
            guard watched.count < limits.maximumWorkers || known != nil else { continue }
            watched[worker.instance] = Watched(
                incarnation: worker.incarnation, address: worker.controlAddress, lastAnswer: now)
            actions.append(.watch(worker.instance, worker.controlAddress, worker.role))
        }
        return actions
    }

    package mutating func answered(_ instance: InstanceID, _ pong: Pong, now: MonotonicTime) {
        watched[instance]?.lastAnswer = now
        if let status = pong.status { watched[instance]?.status = status }
    }

    /// Probes and reports when it is time; called at least every `probeInterval`.
    package mutating func tick(now: MonotonicTime) -> [HealthAction] {
        forgiveOwnPause(now: now)
        guard now >= nextProbe else { return [] }
        nextProbe = now + limits.probeInterval
        pings += 1
        let probes = watched.keys.sorted().map { HealthAction.ping($0, Ping(number: pings)) }
        let findings = watched.sorted { $0.key < $1.key }.map { finding($0.key, $0.value, now) }
        return probes + [.report(findings)]
    }

    /// Answers that came while this process did not run are still unread: nobody is late.
    private mutating func forgiveOwnPause(now: MonotonicTime) {
        defer { lastTick = now }
        guard let lastTick, now - lastTick >= limits.ownPause else { return }
        let pause = now - lastTick
        for instance in watched.keys {
            if let worker = watched[instance] {
                watched[instance]?.lastAnswer = min(worker.lastAnswer + pause, now)
            }
        }
    }

    private func finding(
        _ instance: InstanceID, _ worker: Watched, _ now: MonotonicTime
    ) -> WorkerFinding {
        let silence = now - worker.lastAnswer
        let stepAge = Int64(clamping: worker.status?.stepAgeMilliseconds ?? 0)
        var reason = ""
        if silence >= limits.silenceDeadline {
            reason = "it has not answered for \(silence.milliseconds) ms"
        } else if stepAge >= limits.stepDeadline.milliseconds {
            reason = "its engine has been in one iteration for \(stepAge) ms"
        }
        return WorkerFinding(
            instance: instance, incarnation: worker.incarnation, isResponding: reason.isEmpty,
            silentMilliseconds: UInt64(max(0, max(silence.milliseconds, stepAge))),
            reason: reason)
    }
}
