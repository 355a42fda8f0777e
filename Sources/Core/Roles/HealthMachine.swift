package import ServingTypes

/// What the health-agent's shell has to do.
package enum HealthAction: Hashable, Sendable {
    /// Keep a control connection to this worker from now on.
    case watch(InstanceID, NetworkAddress, Role)
    case forget(InstanceID)
    case ping(InstanceID, Ping)
    case canary(InstanceID, Canary)
    /// It hangs: kill it if you keep it running; otherwise, if it still hears, tell it to exit.
    case end(InstanceID, reason: String, isSilent: Bool)
    /// Send what was found to the scheduler, with fresh readings.
    case report([WorkerFinding])
    /// For log and metrics: how a worker is judged now.
    case judged(WorkerFinding)
    /// For metrics.
    case canaryEnded(InstanceID, CanaryEnd)
}

/// What came of a canary, as the agent counts it.
package enum CanaryEnd: String, Hashable, Sendable, CaseIterable {
    case generated, busy, failed, late
}

/// The health-agent's decisions: which workers and devices of its host are well.
///
/// A worker is judged by answers, by the engine's progress and, while it is idle, by a few tokens
/// it has to generate; not by an open socket, so a hung process is found although its connections
/// stand. One missed beat says nothing:
///
///     well ──2 beats──▶ suspect ──4 beats──▶ down ──▶ is ended, and started again by others
///       ▲                  │                  │
///       └──── an answer, progress, tokens ────┘
package struct HealthMachine: Sendable {
    private let host: String
    private let limits: HealthLimits
    private var view = GroupView.empty
    private var watched: [InstanceID: WatchedWorker] = [:]
    private var pings: UInt64 = 0
    private var canaries: UInt64 = 0
    private var nextProbe: MonotonicTime = .start
    private var nextReport: MonotonicTime = .start
    private var lastTick: MonotonicTime?
    private var grader: DeviceGrader

    package init(host: String, limits: HealthLimits = HealthLimits()) {
        self.host = host
        self.limits = limits
        grader = DeviceGrader(limits: limits.devices)
    }

    /// The host's devices with their grades.
    package var devices: [DeviceReading] { grader.readings }

    package mutating func viewChanged(_ newView: GroupView, now: MonotonicTime) -> [HealthAction] {
        guard newView.isNewer(than: view) else { return [] }
        view = newView
        var actions: [HealthAction] = []
        let local = newView.members.map(\.description).filter { $0.host == host }
        let names = Set(local.map(\.instance))
        for instance in watched.keys.sorted() {
            guard !names.contains(instance) else {
                watched[instance]?.leftView = nil
                continue
            }
            // A hung one's lease ends long before it is time to end its process.
            if watched[instance]?.condition == .well {
                watched[instance] = nil
                actions.append(.forget(instance))
            } else if watched[instance]?.leftView == nil {
                watched[instance]?.leftView = now
            }
        }
        for worker in local {
            let known = watched[worker.instance]
            guard known?.incarnation != worker.incarnation else { continue }
            if known != nil { actions.append(.forget(worker.instance)) }
            guard watched.count < limits.maximumWorkers || known != nil else { continue }
            watched[worker.instance] = WatchedWorker(
                incarnation: worker.incarnation, now: now,
                firstCanary: now + limits.canaryInterval)
            actions.append(.watch(worker.instance, worker.controlAddress, worker.role))
        }
        return actions
    }

    package mutating func answered(_ instance: InstanceID, _ pong: Pong, now: MonotonicTime) {
        watched[instance]?.answered(pong, now: now)
    }

    package mutating func canaryDone(
        _ instance: InstanceID, _ done: CanaryDone, now: MonotonicTime
    ) -> [HealthAction] {
        guard let end = watched[instance]?.canaryDone(done, limits: limits, now: now) else {
            return []
        }
        return [.canaryEnded(instance, end)]
    }

    /// A probe of devices has something to say; the same report may come again.
    package mutating func probed(_ report: ProbeReport, now: MonotonicTime) {
        grader.take(report, now: now)
    }

    /// Probes and reports when it is time; called at least every `probeInterval`.
    package mutating func tick(now: MonotonicTime) -> [HealthAction] {
        forgiveOwnPause(now: now)
        var actions: [HealthAction] = []
        if now >= nextProbe {
            nextProbe = now + limits.probeInterval
            pings += 1
            for instance in watched.keys.sorted() {
                watched[instance]?.unanswered += 1
                actions.append(.ping(instance, Ping(number: pings)))
            }
        }
        var findings: [WorkerFinding] = []
        var hasChanged = false
        for instance in watched.keys.sorted() {
            guard var worker = watched[instance] else { continue }
            if worker.isGone(limits: limits, now: now) {
                watched[instance] = nil
                actions.append(.forget(instance))
                continue
            }
            if worker.isCanaryLate(limits: limits, now: now) {
                actions.append(.canaryEnded(instance, .late))
            }
            if worker.wantsCanary(limits: limits, now: now) {
                canaries += 1
                worker.canary = WatchedWorker.OpenCanary(number: canaries, sent: now)
                actions.append(.canary(instance, Canary(number: canaries)))
            }
            let judgement = worker.judge(limits: limits, now: now)
            let finding = worker.finding(instance, judgement, now: now)
            if judgement.condition != worker.condition {
                worker.condition = judgement.condition
                hasChanged = true
                actions.append(.judged(finding))
            }
            if worker.takesEnd(judgement, limits: limits, now: now) {
                actions.append(
                    .end(instance, reason: judgement.reason, isSilent: judgement.isSilent))
            }
            watched[instance] = worker
            findings.append(finding)
        }
        guard hasChanged || now >= nextReport else { return actions }
        nextReport = now + limits.reportInterval
        return actions + [.report(findings)]
    }

    /// Answers that came while this process did not run are still unread: nobody is late.
    private mutating func forgiveOwnPause(now: MonotonicTime) {
        defer { lastTick = now }
        guard let lastTick, now - lastTick >= limits.ownPause else { return }
        for instance in watched.keys { watched[instance]?.forgive(now - lastTick, now: now) }
    }
}
