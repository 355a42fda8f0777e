import ServingTypes

/// A process of the simulated cluster: it can crash, restart with another life, and hang.
class SimulatedProcess {
    let name: InstanceID
    let role: Role
    unowned let cluster: ClusterSimulation
    /// Number of this life; what belongs to an earlier one never happens.
    private(set) var life: UInt64 = 0
    private(set) var isUp = false
    private(set) var isPaused = false
    private var backlog: [() -> Void] = []
    /// Clocks of processes have nothing in common.
    private var clockOffset: Int64 = 0

    init(_ name: String, role: Role, cluster: ClusterSimulation) {
        self.name = InstanceID(name)
        self.role = role
        self.cluster = cluster
    }

    var now: MonotonicTime { MonotonicTime(nanoseconds: cluster.nanoseconds + clockOffset) }

    // MARK: Life

    final func start() {
        precondition(!isUp, "it runs already")
        life += 1
        isUp = true
        clockOffset = Int64(cluster.random(0...3_600_000)) * 1_000_000
        cluster.tell("\(name) starts")
        begin()
    }

    /// Ends the process without a word; `end` gives up what it had.
    final func crash() {
        guard isUp else { return }
        cluster.tell("\(name) ends")
        isUp = false
        isPaused = false
        backlog = []
        life += 1
        end()
        cluster.breakLinks(of: self)
    }

    final func pause() {
        cluster.tell("\(name) hangs")
        isPaused = isUp
    }

    final func resume() {
        cluster.tell("\(name) goes on")
        isPaused = false
        let waiting = backlog
        backlog = []
        for (index, body) in waiting.enumerated() {
            guard isUp else { return }
            guard !isPaused else {
                backlog = Array(waiting[index...]) + backlog
                return
            }
            run(body)
        }
    }

    /// Runs when this life of the process comes to it, if it does.
    final func after(_ duration: Duration, _ body: @escaping () -> Void) {
        let life = life
        cluster.at(cluster.nanoseconds + duration.nanoseconds) { [unowned self] in
            handle(life: life, body)
        }
    }

    final func handle(life: UInt64, _ body: @escaping () -> Void) {
        guard isUp, self.life == life else { return }
        if isPaused { backlog.append(body) } else { run(body) }
    }

    private func run(_ body: () -> Void) {
        body()
        if isUp { check() }
    }

    final func every(_ duration: Duration, _ body: @escaping () -> Void) {
        after(duration) { [unowned self] in
            body()
            if isUp { every(duration, body) }
        }
    }

    // MARK: For each kind of process

    func begin() {}
    func end() {}
    /// Called after each event.
    func check() {}
    /// Another process has connected.
    func accepted(_ link: SimulatedLink) {}
    /// The link is closed or lost, as far as this process knows.
    func closed(_ link: SimulatedLink) {}
    func received(_ message: ControlMessage, tokens: [TokenID], on link: SimulatedLink) {}
}

/// A connection between two processes: messages keep their order until it breaks.
final class SimulatedLink {
    enum Purpose { case control, bulk }

    let id: UInt64
    let purpose: Purpose
    let dialer: SimulatedProcess
    let acceptor: SimulatedProcess
    private let lives: (UInt64, UInt64)
    private var isOpen = (true, true)
    private var isBroken = false
    /// Whether what is on its way is lost when it breaks.
    private var losesMessages = false
    private var lastArrival: (Int64, Int64) = (0, 0)

    init(id: UInt64, purpose: Purpose, from dialer: SimulatedProcess, to acceptor: SimulatedProcess)
    {
        self.id = id
        self.purpose = purpose
        self.dialer = dialer
        self.acceptor = acceptor
        lives = (dialer.life, acceptor.life)
    }

    var cluster: ClusterSimulation { dialer.cluster }
    var isGone: Bool { isBroken || !isOpen.0 && !isOpen.1 }

    func other(than process: SimulatedProcess) -> SimulatedProcess {
        process === dialer ? acceptor : dialer
    }

    func isOpen(at process: SimulatedProcess) -> Bool {
        process === dialer ? isOpen.0 : isOpen.1
    }

    /// Whether it connects the lives that the two processes have now.
    func joins(_ process: SimulatedProcess) -> Bool {
        process === dialer && process.life == lives.0
            || process === acceptor && process.life == lives.1
    }

    func send(_ message: ControlMessage, tokens: [TokenID] = [], from process: SimulatedProcess) {
        let receiver = other(than: process)
        deliver(from: process) { [self] in
            cluster.tell("\(process.name) → \(receiver.name): \(message)")
            receiver.received(message, tokens: tokens, on: self)
        }
    }

    /// Runs at the other end after everything sent before, if the link holds.
    func deliver(from process: SimulatedProcess, _ body: @escaping () -> Void) {
        guard isOpen(at: process), !isBroken else { return }
        let receiver = other(than: process)
        let arrival = max(
            cluster.nanoseconds + cluster.delay().nanoseconds,
            (receiver === dialer ? lastArrival.0 : lastArrival.1) + 1)
        if receiver === dialer { lastArrival.0 = arrival } else { lastArrival.1 = arrival }
        let life = receiver === dialer ? lives.0 : lives.1
        cluster.at(arrival) { [self] in
            receiver.handle(life: life) { [self] in
                guard isOpen(at: receiver), !(isBroken && losesMessages) else { return }
                body()
            }
        }
    }

    func close(by process: SimulatedProcess) {
        guard isOpen(at: process) else { return }
        let other = other(than: process)
        deliver(from: process) { [self] in lose(at: other) }
        setClosed(at: process)
    }

    /// The network drops it: each side notices some time later.
    func breakDown(noticedWithin limit: Duration, losesMessages: Bool) {
        guard !isBroken else { return }
        isBroken = true
        self.losesMessages = losesMessages
        for (process, life) in [(dialer, lives.0), (acceptor, lives.1)] {
            let arrival = process === dialer ? lastArrival.0 : lastArrival.1
            let notice = cluster.nanoseconds + cluster.randomDuration(upTo: limit).nanoseconds
            cluster.at(losesMessages ? notice : max(notice, arrival + 1)) { [self] in
                process.handle(life: life) { [self] in lose(at: process) }
            }
        }
    }

    private func lose(at process: SimulatedProcess) {
        guard isOpen(at: process) else { return }
        setClosed(at: process)
        cluster.tell("\(process.name) loses its link to \(other(than: process).name)")
        process.closed(self)
    }

    private func setClosed(at process: SimulatedProcess) {
        if process === dialer { isOpen.0 = false } else { isOpen.1 = false }
    }
}
