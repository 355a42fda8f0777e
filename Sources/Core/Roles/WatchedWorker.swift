import ServingTypes

/// What a health-agent knows of one worker.
struct WatchedWorker: Sendable {
    enum Condition: Sendable { case well, suspect, down }

    struct OpenCanary: Sendable {
        var number: UInt64
        var sent: MonotonicTime
    }

    struct Judgement {
        var condition = Condition.well
        var reason = ""
        /// It does not hear what it is told.
        var isSilent = false
        /// It may be ended for this.
        var isHung = false
    }

    let incarnation: UInt64
    private(set) var lastAnswer: MonotonicTime
    /// Beats since its last answer.
    var unanswered = 0
    private(set) var status: InstanceStatus?
    /// When its engine went on last, or had nothing to do.
    private var lastProgress: MonotonicTime
    var canary: OpenCanary?
    private var nextCanary: MonotonicTime
    private var failedCanaries = 0
    private var canaryReason = ""
    var condition = Condition.well
    /// Since when it is no member any more; nil: it is one.
    var leftView: MonotonicTime?
    private var ends = 0
    private var nextEnd = MonotonicTime.start

    init(incarnation: UInt64, now: MonotonicTime, firstCanary: MonotonicTime) {
        self.incarnation = incarnation
        lastAnswer = now
        lastProgress = now
        nextCanary = firstCanary
    }

    // MARK: What it says

    mutating func answered(_ pong: Pong, now: MonotonicTime) {
        lastAnswer = now
        unanswered = 0
        guard let new = pong.status else { return }
        let hasGoneOn = new.engineSteps != status?.engineSteps
        if hasGoneOn || !new.hasWork { lastProgress = now }
        // Work that goes on is a better proof than a few tokens.
        if hasGoneOn, new.hasWork { failedCanaries = 0 }
        status = new
    }

    /// Nil if it is about another canary than the open one.
    mutating func canaryDone(
        _ done: CanaryDone, limits: HealthLimits, now: MonotonicTime
    ) -> CanaryEnd? {
        guard let open = canary, open.number == done.number else { return nil }
        canary = nil
        nextCanary = now + limits.canaryInterval
        switch done.outcome {
        case .generated:
            failedCanaries = 0
            return .generated
        case .busy: return .busy
        case .failed:
            fail("its engine could not generate a token: \(done.reason)", limits: limits, now: now)
            return .failed
        }
    }

    private mutating func fail(_ reason: String, limits: HealthLimits, now: MonotonicTime) {
        failedCanaries += 1
        canaryReason = reason
        nextCanary = now + limits.canaryRetry
    }

    /// Gives up a canary whose time is over; true if there was one.
    ///
    /// The time begins anew while the worker does not answer at all: then that is said of it.
    mutating func isCanaryLate(limits: HealthLimits, now: MonotonicTime) -> Bool {
        guard let open = canary, now - open.sent >= limits.canaryDeadline else { return false }
        canary = nil
        guard unanswered <= 1 else {
            nextCanary = now + limits.canaryRetry
            return false
        }
        let time = limits.canaryDeadline.milliseconds
        fail("it was idle and has not generated a token in \(time) ms", limits: limits, now: now)
        return true
    }

    func wantsCanary(limits: HealthLimits, now: MonotonicTime) -> Bool {
        guard limits.canaryInterval > .zero, canary == nil, now >= nextCanary, unanswered <= 1,
            let status
        else { return false }
        return !status.hasWork && status.stepAgeMilliseconds == 0 && !status.isDraining
    }

    /// This process was away for so long.
    mutating func forgive(_ pause: Duration, now: MonotonicTime) {
        lastAnswer = min(lastAnswer + pause, now)
        lastProgress = min(lastProgress + pause, now)
        unanswered = 0
        if let open = canary { canary?.sent = min(open.sent + pause, now) }
    }

    // MARK: Judging

    func judge(limits: HealthLimits, now: MonotonicTime) -> Judgement {
        let silence = now - lastAnswer
        // The latest beat may still be answered.
        let misses = max(0, unanswered - 1)
        if misses >= limits.downMisses, silence >= limits.silenceDeadline {
            return Judgement(
                condition: .down, reason: "it has not answered for \(silence.milliseconds) ms",
                isSilent: true, isHung: silence >= limits.killDeadline)
        }
        let work = judgeWork(limits: limits, now: now)
        if work.condition == .down { return work }
        if misses >= limits.suspectMisses, silence >= limits.suspectDeadline {
            return Judgement(
                condition: .suspect,
                reason: "\(misses) beats were missed in \(silence.milliseconds) ms",
                isSilent: true)
        }
        return work
    }

    private func judgeWork(limits: HealthLimits, now: MonotonicTime) -> Judgement {
        let stepAge = Int64(clamping: status?.stepAgeMilliseconds ?? 0)
        let stepLimit = limits.stepDeadline.milliseconds
        if stepAge >= stepLimit / 2 {
            return Judgement(
                condition: stepAge >= stepLimit ? .down : .suspect,
                reason: "its engine has been in one iteration for \(stepAge) ms",
                isHung: stepAge >= stepLimit)
        }
        let stall = now - lastProgress
        if stepAge == 0, status?.hasWork == true, stall >= limits.stallDeadline / 2 {
            let isHung = stall >= limits.stallDeadline
            return Judgement(
                condition: isHung ? .down : .suspect,
                reason: "its engine has begun no iteration for \(stall.milliseconds) ms "
                    + "though it has work", isHung: isHung)
        }
        guard failedCanaries >= limits.suspectCanaries else { return Judgement() }
        let isHung = failedCanaries >= limits.downCanaries
        return Judgement(
            condition: isHung ? .down : .suspect,
            reason: "\(canaryReason), \(failedCanaries) in a row", isHung: isHung)
    }

    func finding(
        _ instance: InstanceID, _ judgement: Judgement, now: MonotonicTime
    ) -> WorkerFinding {
        let stepAge = Int64(clamping: status?.stepAgeMilliseconds ?? 0)
        let silence = (now - lastAnswer).milliseconds
        return WorkerFinding(
            instance: instance, incarnation: incarnation,
            isResponding: judgement.condition != .down,
            silentMilliseconds: UInt64(max(0, max(silence, stepAge))),
            reason: judgement.reason, isSuspect: judgement.condition == .suspect)
    }

    /// Whether it has left and needs no watching any more: it is well, or time is up.
    func isGone(limits: HealthLimits, now: MonotonicTime) -> Bool {
        guard let leftView else { return false }
        let ending = limits.killDeadline + limits.endInterval * limits.maximumEnds
        return condition == .well || now - leftView >= max(limits.leaverDeadline, ending)
    }

    /// Whether it is to be ended now; counts that.
    mutating func takesEnd(
        _ judgement: Judgement, limits: HealthLimits, now: MonotonicTime
    ) -> Bool {
        guard judgement.isHung, ends < limits.maximumEnds, now >= nextEnd else { return false }
        ends += 1
        nextEnd = now + limits.endInterval
        return true
    }
}

extension InstanceStatus {
    /// The engine has to go on.
    fileprivate var hasWork: Bool { runningSequences > 0 || computingPrompts > 0 }
}
