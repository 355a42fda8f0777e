import ServingTypes

/// What a worker may be asked for of one kind, and the questions it has not answered.
struct GatewayDuty: Sendable {
    /// What it may still be asked for: offers, or KV tokens.
    ///
    /// `.max` until it says no; then what it calls.
    private(set) var allowance = Int.max
    /// It was silent for long: one question of any size may be tried.
    private(set) var mayTry = false
    /// When that is so; nil if it is, or nothing is forbidden.
    fileprivate(set) var tryAt: MonotonicTime?
    var openQuestions = 0
    /// Its place in the group's lists of this duty; -1 if it is not in them.
    var memberIndex = -1
    var availableIndex = -1

    func allows(_ amount: Int) -> Bool { mayTry || allowance >= amount }

    var isClosed: Bool { allowance <= 0 && !mayTry }

    fileprivate mutating func spend(_ amount: Int, until time: MonotonicTime) {
        guard allowance != .max else { return }
        if allowance >= amount {
            allowance -= amount
        } else {
            mayTry = false
        }
        tryAt = mayTry ? nil : time
    }

    fileprivate mutating func limit(to amount: Int, until time: MonotonicTime) {
        allowance = min(allowance, max(0, amount))
        mayTry = false
        tryAt = time
    }

    fileprivate mutating func open(to amount: Int, until time: MonotonicTime) {
        allowance = amount
        mayTry = false
        tryAt = amount == .max ? nil : time
    }

    fileprivate mutating func tryNow() {
        mayTry = true
        tryAt = nil
    }

    fileprivate mutating func lift() { open(to: .max, until: .start) }
}

/// What stays as it is for the life of a worker's process.
///
/// Apart, so that a worker's other fields lie close together and can be copied at little cost.
final class GatewayWorkerFacts: Sendable {
    let description: InstanceDescription
    /// The group of all with its model and revision.
    let implicitGroup: GroupID

    init(_ description: InstanceDescription) {
        self.description = description
        implicitGroup = GroupID("\(description.modelName)@\(description.fingerprint)")
    }
}

/// What the gateway knows of one worker and has placed there.
struct GatewayWorker: Sendable {
    private(set) var facts: GatewayWorkerFacts
    private(set) var instance: InstanceID
    /// The group in whose lists it is; nil for a spare.
    var group: GroupID?
    /// The view in which it was seen last.
    var seen: UInt64 = 0
    /// Requests that depend on it, in order of arrival.
    var requests = OrderedQueue<UInt64, RequestID>()
    var standing: GatewayStanding

    init(_ member: GroupMember, isConnected: Bool) {
        facts = GatewayWorkerFacts(member.description)
        instance = member.description.instance
        standing = GatewayStanding(member, isConnected: isConnected)
    }

    /// It may be another life of the process.
    mutating func become(_ facts: GatewayWorkerFacts) {
        self.facts = facts
        instance = facts.description.instance
        standing.describe(facts.description)
    }

    var description: InstanceDescription { facts.description }
}

/// What of a worker each choice reads; numbers only, so that reading it copies no references.
struct GatewayStanding: Sendable {
    /// It is in the view.
    var isMember = true
    var state: InstanceState
    var role: ServingRole
    var isConnected: Bool
    private var contextTokens = 0
    private var kvBytesPerToken = 1
    private(set) var capacityTokens = 0
    private var prefillSlots = 0
    private var decodeSequences = 0
    /// Requests whose prompts it computes, and those prompts' tokens.
    var openPrompts = 0
    var openPromptTokens = 0
    /// Requests it keeps room for, and that room.
    private(set) var sequences = 0
    private var reservedTokens = 0
    /// Free KV by its last status, less what was reserved since.
    private var statusFreeTokens = 0
    private(set) var runningSequences = 0
    /// What it said before it served anything.
    private var predicted: PredictedRates?
    /// Measured in service, else predicted; 0: unknown.
    private(set) var prefillTokensPerSecond = 0.0
    private(set) var decodeStepMilliseconds = 0.0
    private var prompting = GatewayDuty()
    private var decoding = GatewayDuty()

    init(_ member: GroupMember, isConnected: Bool) {
        state = member.state
        role = member.role
        self.isConnected = isConnected
        describe(member.description)
        update(member.status)
    }

    fileprivate mutating func describe(_ description: InstanceDescription) {
        contextTokens = description.contextTokens
        kvBytesPerToken = max(1, description.kvBytesPerToken)
        capacityTokens = description.kvCapacityBytes / kvBytesPerToken
        prefillSlots = description.prefillSlots
        decodeSequences = description.decodeSequences
        predicted = description.predicted
    }

    subscript(need: GatewayNeed) -> GatewayDuty {
        get { need == .prompts ? prompting : decoding }
        _modify {
            if need == .prompts { yield &prompting } else { yield &decoding }
        }
    }

    /// It serves by the view and is connected.
    var isUsable: Bool { isMember && isConnected && state == .serving && role != .spare }

    /// Whether this is its role's work.
    func serves(_ need: GatewayNeed) -> Bool {
        need == .prompts ? role.takesPrompts : role.takesSequences
    }

    /// Most questions it is sent before it answers: what an idle worker could say yes to.
    ///
    /// One that was asked for room and said no is asked one by one, since it may lack sequences.
    private func maximumQuestions(_ need: GatewayNeed) -> Int {
        switch need {
        case .prompts: max(1, prefillSlots)
        case .sequences:
            decoding.allowance == .max ? max(1, decodeSequences) : 1
        }
    }

    func canBeAsked(_ need: GatewayNeed) -> Bool {
        let duty = self[need]
        return isUsable && !duty.isClosed && duty.openQuestions < maximumQuestions(need)
    }

    private var freeTokens: Int { min(capacityTokens - reservedTokens, statusFreeTokens) }

    var freeKVBytes: Int { freeTokens * kvBytesPerToken }

    /// Room that is promised, by all gateways together.
    var takenTokens: Int { capacityTokens - freeTokens }

    /// Longest sequence its description allows.
    func maximumTokens(_ need: GatewayNeed) -> Int {
        need == .sequences
            ? min(contextTokens, capacityTokens) : contextTokens
    }

    mutating func update(_ status: InstanceStatus) {
        runningSequences = status.runningSequences
        prefillTokensPerSecond = status.prefillTokensPerSecond
        if prefillTokensPerSecond <= 0 {
            prefillTokensPerSecond = predicted?.prefillTokensPerSecond ?? 0
        }
        decodeStepMilliseconds = status.decodeStepMilliseconds
        if decodeStepMilliseconds <= 0, let predicted {
            let used = capacityTokens - status.freeKVBytes / kvBytesPerToken
            decodeStepMilliseconds = predicted.decodeStepMilliseconds(
                sequences: Double(max(1, runningSequences)), contextTokens: Double(max(0, used)))
        }
        statusFreeTokens = status.freeKVBytes / kvBytesPerToken
    }

    mutating func changeReserved(by tokens: Int) {
        reservedTokens += tokens
        statusFreeTokens -= tokens
        sequences += tokens < 0 ? -1 : 1
    }

    // MARK: Allowances

    enum Answer {
        /// It is asked for so much.
        case spend(Int, until: MonotonicTime)
        /// It said no: it is asked for less, or nothing, until it calls or the time comes.
        case limit(Int, until: MonotonicTime)
        /// It called.
        case open(Int, until: MonotonicTime)
        /// It was silent for long.
        case tryNow
        /// What it said before does not count any more.
        case lift
    }

    mutating func apply(_ answer: Answer, to need: GatewayNeed) {
        switch answer {
        case .spend(let amount, let time): self[need].spend(amount, until: time)
        case .limit(let amount, let time): self[need].limit(to: amount, until: time)
        case .open(let amount, let time): self[need].open(to: amount, until: time)
        case .tryNow: self[need].tryNow()
        case .lift: self[need].lift()
        }
    }
}
