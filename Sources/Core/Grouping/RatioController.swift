import ServingTypes

/// What the ratio is decided by.
struct RatioInputs: Sendable {
    /// Workers in each role.
    var count: PerRole<Int>
    var floor: PerRole<Int>
    var ceiling: PerRole<Int>
    /// Part of its slots or sequences that is taken; 0…1.
    var occupancy: PerRole<Double>
    /// Nil: rates are not known yet.
    var times: PhaseTimes?
    /// Whether `times` come from this pool's traffic, and not from what the rules expect.
    var isMeasured: Bool
}

/// One more worker of a role, taken from the other.
struct RatioAdvice: Hashable, Sendable {
    var role: ServingRole
    /// With figures, for people.
    var reason: String
    /// The mean prompt and output it was based on; nil: no traffic was measured.
    var kind: TrafficKind?
}

/// What traffic is like, to tell a change of it from noise.
struct TrafficKind: Hashable, Sendable {
    var promptTokens: Double
    var outputTokens: Double

    func differs(from other: TrafficKind, by part: Double) -> Bool {
        func isFar(_ left: Double, _ right: Double) -> Bool {
            abs(left - right) > part * max(left, right, 1)
        }
        return isFar(promptTokens, other.promptTokens) || isFar(outputTokens, other.outputTokens)
    }
}

/// The numbers of prefill- and decode-workers of one pool, one step at a time.
///
/// It begins with eq. (1) of P/D-Serve (arXiv 2408.08147), n_p·b_p/T_p ≈ n_d·b_d/T_d, and goes on
/// by the paper's signal: E2E rises, and T_p/E2E rises: one more prefill; falls: one more decode.
/// Steps back and forth take ever longer, and end, until traffic becomes of another kind.
struct RatioController: Sendable {
    private(set) var lastStep: MonotonicTime?
    private var lastRole: ServingRole?
    private var reversals = 0
    private var kind: TrafficKind?

    /// Whether the last step has settled.
    func isSettled(now: MonotonicTime, limits: GroupLimits) -> Bool {
        lastStep.map { now - $0 >= limits.settle } ?? true
    }

    /// What is measured before this moment is not compared with what comes later.
    mutating func disturbed(now: MonotonicTime) { lastStep = now }

    /// A step by formula, signal or standing need was begun.
    mutating func stepped(_ advice: RatioAdvice, now: MonotonicTime) {
        if let lastRole, lastRole != advice.role { reversals += 1 }
        lastRole = advice.role
        lastStep = now
        if kind == nil { kind = advice.kind }
    }

    mutating func advise(
        _ inputs: RatioInputs, history: TrafficHistory, now: MonotonicTime, limits: GroupLimits
    ) -> RatioAdvice? {
        guard isSettled(now: now, limits: limits) else { return nil }
        let from = max(now - limits.window, lastStep ?? .start)
        let recent = history.sums(from: from, to: now)
        noteKind(recent, limits: limits)
        // What was expected says nothing any more once there is traffic.
        let isFormulaValid = inputs.isMeasured || recent.arrived == 0
        let advice =
            (isFormulaValid ? byFormula(inputs, limits: limits) : nil)
            ?? bySignal(history, recent: recent, inputs: inputs, now: now, limits: limits)
            ?? byStandingNeed(history, recent: recent, inputs: inputs, limits: limits)
        guard var advice, isAllowed(advice.role, now: now, limits: limits) else { return nil }
        if recent.completed >= limits.minimumSamples { advice.kind = Self.kind(recent) }
        return advice
    }

    /// Whether a worker that has been mixed for long may take up the other role.
    func advise(
        staying role: ServingRole, for stay: Duration, _ inputs: RatioInputs, now: MonotonicTime,
        limits: GroupLimits
    ) -> RatioAdvice? {
        guard isSettled(now: now, limits: limits), isAllowed(role, now: now, limits: limits),
            isPossible(role, inputs, limits: limits)
        else { return nil }
        return RatioAdvice(
            role: role,
            reason: "mixed for \(stay.seconds.figure(0)) s, and requests still wait: "
                + "one more \(role.name)")
    }

    /// Reversals wait twice as long each time, and have a bound.
    private func isAllowed(_ role: ServingRole, now: MonotonicTime, limits: GroupLimits) -> Bool {
        guard let lastRole, let lastStep, lastRole != role else { return true }
        guard reversals < limits.maximumReversals else { return false }
        return now - lastStep >= limits.settle * (1 << min(reversals + 1, 16))
    }

    private static func kind(_ sums: TrafficSums) -> TrafficKind {
        TrafficKind(promptTokens: sums.meanNewTokens, outputTokens: sums.meanOutputTokens)
    }

    private mutating func noteKind(_ recent: TrafficSums, limits: GroupLimits) {
        guard recent.completed >= limits.minimumSamples else { return }
        let current = Self.kind(recent)
        guard let known = kind else {
            // Steps by what was expected are no reason to wait now that traffic is measured.
            kind = current
            reversals = 0
            lastRole = nil
            return
        }
        if current.differs(from: known, by: limits.kindChange) {
            kind = current
            reversals = 0
            lastRole = nil
        }
    }

    // MARK: Reasons to step

    private func byFormula(_ inputs: RatioInputs, limits: GroupLimits) -> RatioAdvice? {
        guard let times = inputs.times else { return nil }
        let total = inputs.count.prefill + inputs.count.decode
        let present = times.requestsPerSecond(
            prefill: inputs.count.prefill, decode: inputs.count.decode)
        let lowest = max(inputs.floor.prefill, 1, total - inputs.ceiling.decode)
        let highest = min(inputs.ceiling.prefill, total - max(inputs.floor.decode, 1))
        guard lowest <= highest else { return nil }
        var best = (prefill: inputs.count.prefill, rate: present)
        for prefill in lowest...highest {
            let rate = times.requestsPerSecond(prefill: prefill, decode: total - prefill)
            let isNearer =
                abs(prefill - inputs.count.prefill) < abs(best.prefill - inputs.count.prefill)
            if rate > best.rate || rate == best.rate && isNearer { best = (prefill, rate) }
        }
        guard best.rate > present * (1 + limits.improvement) else { return nil }
        let role: ServingRole = best.prefill > inputs.count.prefill ? .prefill : .decode
        guard let after = rate(after: role, inputs), after > present else { return nil }
        return RatioAdvice(
            role: role,
            reason: "n_p·b_p/T_p against n_d·b_d/T_d: \(inputs.count.prefill)+"
                + "\(inputs.count.decode) workers answer \(present.figure()) requests/s, "
                + "\(best.prefill)+\(total - best.prefill) would \(best.rate.figure()): "
                + "one more \(role.name)")
    }

    private func rate(after role: ServingRole, _ inputs: RatioInputs) -> Double? {
        let step = role == .prefill ? 1 : -1
        return inputs.times?.requestsPerSecond(
            prefill: inputs.count.prefill + step, decode: inputs.count.decode - step)
    }

    /// Whether formula, floor and ceiling let one worker change to the role.
    private func isPossible(
        _ role: ServingRole, _ inputs: RatioInputs, limits: GroupLimits
    ) -> Bool {
        let other = role.opposite
        guard inputs.count[other] > max(inputs.floor[other], 1),
            inputs.count[role] < inputs.ceiling[role]
        else { return false }
        guard let times = inputs.times, let after = rate(after: role, inputs) else { return true }
        let present = times.requestsPerSecond(
            prefill: inputs.count.prefill, decode: inputs.count.decode)
        return after >= present * (1 - limits.signalCost)
    }

    private func bySignal(
        _ history: TrafficHistory, recent: TrafficSums, inputs: RatioInputs, now: MonotonicTime,
        limits: GroupLimits
    ) -> RatioAdvice? {
        let middle = now - limits.window
        let beginning = middle - limits.window
        guard beginning >= lastStep ?? .start else { return nil }
        let earlier = history.sums(from: beginning, to: middle)
        guard recent.completed >= limits.minimumSamples,
            earlier.completed >= limits.minimumSamples, earlier.meanEndToEndSeconds > 0
        else { return nil }
        let rise = recent.meanEndToEndSeconds / earlier.meanEndToEndSeconds - 1
        let change = recent.prefillShare - earlier.prefillShare
        guard rise >= limits.endToEndRise, abs(change) >= limits.prefillShareChange else {
            return nil
        }
        let role: ServingRole = change > 0 ? .prefill : .decode
        guard isPossible(role, inputs, limits: limits) else { return nil }
        return RatioAdvice(
            role: role,
            reason: "E2E \(recent.meanEndToEndSeconds.figure(1)) s "
                + "(\((rise * 100).signedFigure(0)) %), T_p/E2E \(recent.prefillShare.figure()) "
                + "(\(change.signedFigure())): one more \(role.name)")
    }

    private func byStandingNeed(
        _ history: TrafficHistory, recent: TrafficSums, inputs: RatioInputs, limits: GroupLimits
    ) -> RatioAdvice? {
        let waiting = history.waiting
        guard waiting > 0 else { return nil }
        let role: ServingRole
        let what: String
        if recent.rejected >= limits.minimumSamples, recent.rejected > recent.refused,
            inputs.occupancy.decode < limits.idleOccupancy
        {
            role = .prefill
            what =
                "\(recent.rejected) offers rejected, decode taken by "
                + "\((inputs.occupancy.decode * 100).figure(0)) %"
        } else if recent.refused >= limits.minimumSamples, recent.refused > recent.rejected,
            inputs.occupancy.prefill < limits.idleOccupancy
        {
            role = .decode
            what =
                "\(recent.refused) reservations refused, prefill taken by "
                + "\((inputs.occupancy.prefill * 100).figure(0)) %"
        } else {
            return nil
        }
        guard isPossible(role, inputs, limits: limits) else { return nil }
        return RatioAdvice(
            role: role, reason: "\(waiting) requests wait, \(what): one more \(role.name)")
    }
}

extension MonotonicTime {
    /// The moment so long before.
    static func - (time: MonotonicTime, duration: Duration) -> MonotonicTime {
        MonotonicTime(nanoseconds: time.nanoseconds - duration.nanoseconds)
    }
}
