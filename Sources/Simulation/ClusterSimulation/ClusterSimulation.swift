import ClusterRules
import InferenceEngine
import KVHandOver
import Roles
import ServingTypes

/// A whole cluster in virtual time: the machines that serve, under a seeded network and bad luck.
///
/// Whatever happens, each request ends exactly once, with exactly the tokens the model would give
/// or with a failure the circumstances allow, and when all is quiet nothing is left anywhere.
package final class ClusterSimulation {
    package let plan: ClusterPlan
    package internal(set) var counts = SimulationCounts()
    /// Promises that were broken; empty if the machines are right.
    package private(set) var violations: [String] = []
    /// Depends on everything that happened, in order.
    package private(set) var digest: UInt64 = 0
    /// Takes a line for each thing that happens; nil: nobody listens.
    package var trace: ((String) -> Void)?

    private(set) var nanoseconds: Int64 = 0
    private var queue = EventQueue()
    private var generator: SeededGenerator
    private var links: [SimulatedLink] = []
    private var linkCount: UInt64 = 0
    var requests: [RequestID: SimulatedRequest] = [:]
    private var isStormOver = false
    /// Attempts whose KV was damaged in showers.
    private var damaged: Set<AttemptID> = []
    /// Tokens with which all prompts begin.
    private var common: [TokenID] = []
    private var idleLooks = 0
    /// When a request was open last.
    private var lastOpen: Int64 = 0

    private(set) var gateways: [SimulatedGateway] = []
    private(set) var workers: [SimulatedWorker] = []
    private var scheduler: SimulatedScheduler?
    private var agent: SimulatedAgent?
    private var processes: [String: SimulatedProcess] = [:]

    let fingerprint = ModelFingerprint([UInt8](repeating: 1, count: ModelFingerprint.byteCount))

    package init(plan: ClusterPlan) {
        self.plan = plan
        generator = SeededGenerator(seed: plan.seed)
        build()
    }

    /// Runs until all is quiet, or for so long that something must be stuck.
    package func run() {
        for process in processes.values.sorted(by: { $0.name < $1.name }) {
            after(randomDuration(upTo: .milliseconds(300))) { process.start() }
        }
        for number in 1...UInt64(plan.requests) { schedule(request: number) }
        if !plan.weather.isHarmless { scheduleFaults() }
        after(.seconds(2)) { [unowned self] in checkIdleness() }
        let stormEnd = plan.arrivals + .seconds(4)
        after(stormEnd) { [unowned self] in endStorm() }
        // After the storm a request may wait and run as long as its limits say, not longer.
        let limits = plan.gatewayLimits
        let end = (stormEnd + limits.requestDeadline + plan.longestOutage + .seconds(20))
            .nanoseconds
        var nextLook: Int64 = 0
        while violations.isEmpty, let next = queue.next(), next.nanoseconds <= end {
            nanoseconds = next.nanoseconds
            next.body()
            counts.events += 1
            if isStormOver, nanoseconds >= nextLook {
                nextLook = nanoseconds + 500_000_000
                if isQuiet { break }
                checkPatience()
            }
        }
        checkEnd()
    }

    // MARK: Building

    private func build() {
        common = plan.commonTokens == 0 ? [] : randomTokens(plan.commonTokens...plan.commonTokens)
        for number in 1...plan.gateways {
            gateways.append(SimulatedGateway("gateway-\(number)", plan: plan, cluster: self))
        }
        for number in 1...plan.prefillWorkers {
            workers.append(
                SimulatedWorker(
                    "prefill-\(number)", role: .prefillWorker, plan: plan, cluster: self))
        }
        for number in 1...plan.decodeWorkers {
            workers.append(
                SimulatedWorker("decode-\(number)", role: .decodeWorker, plan: plan, cluster: self))
        }
        let scheduler = SimulatedScheduler(plan: plan, cluster: self)
        self.scheduler = scheduler
        var all: [SimulatedProcess] = gateways + workers + [scheduler]
        if plan.hasHealthAgents {
            let agent = SimulatedAgent(plan: plan, cluster: self)
            self.agent = agent
            all.append(agent)
        }
        for process in all { processes[process.name.name] = process }
    }

    private func schedule(request number: UInt64) {
        let prompt = common + randomTokens(1...60)
        let gateway = gateways[random(0...gateways.count - 1)]
        let job = job(RequestID(high: 0, low: number), prompt)
        after(randomDuration(upTo: plan.arrivals)) { [unowned self] in submit(job, to: gateway) }
    }

    private func job(_ id: RequestID, _ prompt: [TokenID]) -> GenerationJob {
        var sampling = SamplingParameters()
        sampling.seed = UInt64(random(0...1_000_000))
        var job = GenerationJob(
            request: id, modelName: "model", promptTokens: prompt,
            maximumNewTokens: random(1...plan.longestAnswer), sampling: sampling)
        let scenarios = plan.rules.scenarios
        job.scenario = scenarios[random(0...scenarios.count - 1)].name
        if plan.hasClasses {
            job.priority = 50 + 10 * random(0...2)
            job.tenant = "tenant-\(random(1...3))"
            if random(0...3) == 0 { job.ttftLimit = .seconds(random(4...12)) }
        }
        return job
    }

    private func randomTokens(_ count: ClosedRange<Int>) -> [TokenID] {
        (0..<random(count)).map { _ in TokenID(random(1...30_000)) }
    }

    private func submit(_ job: GenerationJob, to gateway: SimulatedGateway) {
        // A client finds no gateway that is not there.
        guard gateway.isUp else { return }
        let id = job.request
        requests[id] = SimulatedRequest(job: job, submitted: nanoseconds)
        counts.submitted += 1
        let tokens = "\(job.promptTokens.count)+\(job.maximumNewTokens) tokens"
        tell("\(id) for \(job.scenario), \(tokens), comes to \(gateway.name)")
        gateway.submit(job)
        guard Double(random(0...999)) / 1000 < plan.leavingClients else { return }
        gateway.after(randomDuration(upTo: .milliseconds(400))) { gateway.leave(id) }
    }

    /// The client asks again, with all that was said before.
    private func talkOn(after known: SimulatedRequest) {
        guard Double(random(0...999)) / 1000 < plan.talkingClients, !isStormOver else { return }
        let prompt = known.job.promptTokens + known.answer.tokens + randomTokens(1...10)
        let id = RequestID(high: known.job.request.high + 1, low: known.job.request.low)
        let gateway = gateways[random(0...gateways.count - 1)]
        let job = job(id, prompt)
        after(randomDuration(upTo: .milliseconds(300))) { [unowned self] in
            counts.turns += 1
            submit(job, to: gateway)
        }
    }

    // MARK: Chance

    func random(_ range: ClosedRange<Int>) -> Int { .random(in: range, using: &generator) }

    func randomDuration(upTo limit: Duration) -> Duration {
        .nanoseconds(Int64(random(0...Int(limit.nanoseconds))))
    }

    /// One way through the network: mostly short, now and then long.
    func delay() -> Duration {
        random(0...49) == 0
            ? randomDuration(upTo: .milliseconds(plan.weather == .stormy ? 300 : 30))
            : .microseconds(100) + randomDuration(upTo: .milliseconds(2))
    }

    enum Mishap: Int {
        case engineFailure = 4
        case damagedBlock = 10
        case damageOnTheWay = 11
        case lostHeldKV = 20

        /// In this many of a thousand cases.
        var frequency: Int { rawValue }
    }

    func happens(_ mishap: Mishap) -> Bool {
        !plan.weather.isHarmless && isUnlucky(inThousand: mishap.frequency)
    }

    /// Damage to the KV of an attempt; in showers it comes once and often.
    func happens(_ mishap: Mishap, to attempt: AttemptID) -> Bool {
        guard plan.weather == .showers else { return happens(mishap) }
        guard !damaged.contains(attempt), isUnlucky(inThousand: 30) else { return false }
        damaged.insert(attempt)
        return true
    }

    private func isUnlucky(inThousand frequency: Int) -> Bool {
        plan.weather != .calm && !isStormOver && random(0...999) < frequency
    }

    /// A chunk is on its way, sometimes too much for the link; says whether that was cut.
    func mayBreak(_ link: SimulatedLink) -> Bool {
        guard isUnlucky(inThousand: 12) else { return false }
        counts.cutChunks += 1
        cut(link)
        return true
    }

    private func cut(_ link: SimulatedLink) {
        let isLong = !plan.weather.isHarmless && random(0...3) == 0
        link.breakDown(
            noticedWithin: isLong ? .seconds(3) : .milliseconds(50),
            losesMessages: random(0...1) == 0)
    }

    // MARK: Time

    func at(_ time: Int64, _ body: @escaping () -> Void) { queue.add(at: time, body) }

    private func after(_ duration: Duration, _ body: @escaping () -> Void) {
        at(nanoseconds + duration.nanoseconds, body)
    }

    // MARK: Network

    /// Connects to whatever life answers to that name; gives nil if none does in time.
    func dial(
        _ name: String, from dialer: SimulatedProcess, _ purpose: SimulatedLink.Purpose,
        _ answer: @escaping (SimulatedLink?) -> Void
    ) {
        var isAnswered = false
        func reply(_ link: SimulatedLink?) {
            guard !isAnswered else {
                link?.close(by: dialer)
                return
            }
            isAnswered = true
            answer(link)
        }
        dialer.after(.milliseconds(700)) { reply(nil) }
        let dialerLife = dialer.life
        after(delay()) { [unowned self] in
            guard let target = processes[name], target.isUp else {
                dialer.after(delay()) { reply(nil) }
                return
            }
            target.handle(life: target.life) { [unowned self] in
                guard dialer.isUp, dialer.life == dialerLife else { return }
                linkCount += 1
                let link = SimulatedLink(id: linkCount, purpose: purpose, from: dialer, to: target)
                links.append(link)
                target.accepted(link)
                link.deliver(from: target) { reply(link) }
            }
        }
    }

    func breakLinks(of process: SimulatedProcess) {
        let losesMessages = random(0...1) == 0
        for link in links
        where !link.isGone && (link.dialer === process || link.acceptor === process) {
            link.breakDown(
                noticedWithin: random(0...9) == 0 ? .seconds(3) : .milliseconds(20),
                losesMessages: losesMessages)
        }
        links.removeAll { $0.isGone }
    }

    // MARK: Bad luck

    private func scheduleFaults() {
        for _ in 0..<plan.drains {
            after(randomDuration(upTo: plan.arrivals + .seconds(1))) { [unowned self] in
                let worker = workers[random(0...workers.count - 1)]
                worker.handle(life: worker.life) { worker.drain() }
            }
        }
        let count = plan.weather == .windy ? random(1...6) : random(6...30)
        for _ in 0..<count {
            after(randomDuration(upTo: plan.arrivals + .seconds(3))) { [unowned self] in fault() }
        }
    }

    private func fault() {
        let victims = processes.values.filter(\.isUp).sorted { $0.name < $1.name }
        guard !victims.isEmpty else { return }
        let victim = victims[random(0...victims.count - 1)]
        let worker = workers[random(0...workers.count - 1)]
        counts.faults += 1
        switch random(0...9) {
        case 0...2:
            crash(worker)
        case 3:
            // Gateways and scheduler fall less often than workers.
            crash(victim)
        case 4, 5:
            victim.pause()
            after(randomDuration(upTo: .seconds(random(0...2) == 0 ? 4 : 1))) { victim.resume() }
        case 6, 7:
            links.removeAll { $0.isGone }
            guard !links.isEmpty else { return }
            cut(links[random(0...links.count - 1)])
        case 8:
            worker.handle(life: worker.life) { worker.drain() }
        default:
            worker.handle(life: worker.life) { worker.loseEngine() }
        }
    }

    private func crash(_ process: SimulatedProcess) {
        guard process.isUp else { return }
        process.crash()
        restart(process.name, within: plan.longestOutage)
    }

    func restart(_ name: InstanceID, within limit: Duration) {
        after(randomDuration(upTo: limit)) { [unowned self] in
            if let process = processes[name.name], !process.isUp { process.start() }
        }
    }

    /// From now on nothing breaks, and whatever hung goes on.
    private func endStorm() {
        isStormOver = true
        for process in processes.values.sorted(by: { $0.name < $1.name }) {
            if process.isPaused { process.resume() }
        }
    }

    // MARK: Requests

    func delivered(_ request: RequestID, _ tokens: [TokenID]) {
        guard var known = requests[request] else { return }
        known.received += tokens
        requests[request] = known
        counts.tokens += tokens.count
        for token in tokens { digest = digest &* 31 &+ UInt64(token) }
        digest = digest &* 31 &+ UInt64(nanoseconds)
        expect(
            known.answer.tokens.starts(with: known.received),
            "\(request) got other tokens than the model gives: \(known.received)")
    }

    func finished(_ request: RequestID, _ reason: FinishReason) {
        guard let known = end(request) else { return }
        counts.finished += 1
        tell("\(request) finished")
        expect(
            known.received == known.answer.tokens && reason == known.answer.finish,
            "\(request) finished early, late or for another reason (\(reason))")
        talkOn(after: known)
    }

    func failed(_ request: RequestID, _ failure: GenerationFailure) {
        guard let known = end(request) else { return }
        tell("\(request) failed: \(failure)")
        counts.failed[failure.name, default: 0] += 1
        let waited = Duration.nanoseconds(nanoseconds - known.restarted)
        let limits = plan.gatewayLimits
        let patience = min(
            limits.placementDeadline, known.job.ttftLimit ?? limits.placementDeadline)
        let isAllowed =
            switch failure {
            case .tooManyRequests: plan.maximumRequests < 4096
            case .noWorker: waited >= patience && !plan.weather.isHarmless
            case .overloaded: waited >= patience
            case .tooLate: known.job.ttftLimit != nil
            case .tooLong: known.neededTokens > plan.longestRequestTokens
            case .attemptsExhausted(let attempts, _):
                !plan.weather.isHarmless && attempts == limits.maximumAttempts
            // Nothing lasts that long here: who runs into it has been forgotten.
            case .deadline, .shuttingDown: false
            }
        expect(isAllowed, "\(request) failed without need: \(failure)")
    }

    func restarted(_ request: RequestID, attempt: UInt32, reason: String) {
        expect(!plan.weather.isHarmless, "\(request) starts again without need: \(reason)")
        tell("\(request) starts again, attempt \(attempt): \(reason)")
        requests[request]?.restarted = nanoseconds
        counts.restarted += 1
        if requests[request]?.received.isEmpty == false { counts.resumed += 1 }
    }

    /// The client of this request is gone.
    func left(_ request: RequestID) { if end(request) != nil { counts.left += 1 } }

    /// The gateway of this request is gone, and its client with it.
    func lostGateway(_ request: RequestID) { if end(request) != nil { counts.lost += 1 } }

    private func end(_ request: RequestID) -> SimulatedRequest? {
        guard let known = requests[request], !known.hasEnded else {
            expect(false, "\(request) ends twice or is unknown")
            return nil
        }
        requests[request]?.hasEnded = true
        digest = digest &* 31 &+ UInt64(nanoseconds)
        return known
    }

    // MARK: Transfers

    enum Notice { case credit, discardedChunk }

    func note(_ notice: Notice) {
        switch notice {
        case .credit: counts.credits += 1
        case .discardedChunk: counts.discardedChunks += 1
        }
    }

    func note(_ summary: TransferSummary) {
        counts.resends += summary.resends
        counts.reconnects += summary.reconnects
    }

    func note(heldTokens: Int) { counts.heldTokens += heldTokens }

    func note(stranded: StrandedKV) { if stranded.transfers > 0 { counts.strandedLooks += 1 } }

    // MARK: Judging

    func expect(_ isTrue: Bool, _ sentence: @autoclosure () -> String) {
        guard !isTrue, violations.count < 10 else { return }
        tell("VIOLATION \(sentence())")
        violations.append("at \(Double(nanoseconds) / 1e9) s: \(sentence())")
    }

    /// In calm weather nobody waits while every worker is idle, longer than a few messages take.
    private func checkIdleness() {
        let isIdle =
            workers.allSatisfy(\.isFree) && scheduler?.servingWorkers == workers.count
            && gateways.contains { $0.open.contains(where: isServable) }
        idleLooks = isIdle ? idleLooks + 1 : 0
        // Delays are up to 30 ms; a request needs a few before a worker has something of it.
        expect(
            plan.weather != .calm || idleLooks < 20,
            "requests wait although all workers have been idle for 200 ms")
        after(.milliseconds(10)) { [unowned self] in checkIdleness() }
    }

    /// Whether a group of its scenario has the workers that it needs.
    private func isServable(_ id: RequestID) -> Bool {
        guard let scheduler, let request = requests[id] else { return false }
        return scheduler.canServe(
            request.job.scenario, asHelp: request.neededTokens <= plan.longestRequestTokens)
    }

    /// What is left of a request goes with it, not with a deadline long after.
    private func checkPatience() {
        let isOver = requests.count == counts.submitted && requests.values.allSatisfy(\.hasEnded)
        guard isOver else {
            lastOpen = nanoseconds
            return
        }
        let patience = plan.longestOutage + .seconds(12)
        guard nanoseconds - lastOpen > patience.nanoseconds else { return }
        for worker in workers {
            expect(worker.isUp && worker.isFree, "\(worker.name) holds something for too long")
        }
    }

    private var isQuiet: Bool {
        requests.count == counts.submitted && requests.values.allSatisfy(\.hasEnded)
            && processes.values.allSatisfy(\.isUp) && workers.allSatisfy(\.isFree)
            && gateways.allSatisfy(\.open.isEmpty)
            && scheduler?.servingWorkers == workers.count
    }

    private func checkEnd() {
        for gateway in gateways where gateway.isUp { note(gateway.placements) }
        expect(
            counts.reportedEnds <= counts.reportedArrivals,
            "\(counts.reportedEnds) requests ended of \(counts.reportedArrivals)")
        guard violations.isEmpty else { return }
        for request in requests.values.sorted(by: { $0.submitted < $1.submitted })
        where !request.hasEnded {
            expect(false, "\(request.job.request) waits for ever")
        }
        for worker in workers {
            expect(worker.isUp && worker.isFree, "\(worker.name) still holds something")
        }
        expect(
            scheduler?.servingWorkers == workers.count,
            "only \(scheduler?.servingWorkers ?? 0) of \(workers.count) workers serve in the end")
    }
}
