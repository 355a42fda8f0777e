import Dispatch
import Foundation
import ServingTypes
import Synchronization

@testable import Transport

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// The network between a prefill- and a decode-worker: carries bytes, and does to them what
/// networks do.
final class Forwarder: Sendable {
    enum Direction: Sendable, CaseIterable {
        /// From the prefill-worker to the decode-worker.
        case up
        case down
    }

    enum Damage: Sendable, Hashable {
        /// Both ends see a reset.
        case reset
        /// Both ends see an orderly end.
        case close
        /// Nothing is carried any more, both ends stay open.
        case stall
        /// One bit of the next byte is another.
        case flip
    }

    /// What happens after so many bytes of one direction.
    struct Fault: Sendable, Hashable {
        var damage: Damage
        var direction: Direction
        var position: Int
        /// How many connections it happens to, from the first on.
        var connections = 1
    }

    struct Conduct: Sendable {
        var faults: [Fault] = []
        /// Added to every 16 KiB.
        var delay = Duration.zero
        var bytesPerSecond = Double.infinity
    }

    /// Bytes carried over one connection.
    struct Carried: Sendable, Hashable {
        var up = 0
        var down = 0
    }

    fileprivate struct State {
        var target: NetworkAddress
        var conduct: Conduct
        var carried: [Carried] = []
    }

    /// Where prefill-workers connect to.
    let address: NetworkAddress
    private let state: Mutex<State>
    private let button: Int32
    private let thread = DispatchGroup()

    init(to target: NetworkAddress, _ conduct: Conduct = Conduct()) throws {
        state = Mutex(State(target: target, conduct: conduct))
        let listener = try Sockets.listen(on: NetworkAddress(host: "127.0.0.1", port: 0))
        guard let address = Sockets.address(of: listener, isPeer: false) else {
            throw BenchFailure("no address")
        }
        self.address = address
        let alarm = try Sockets.makeAlarm()
        button = alarm.button
        thread.enter()
        Thread { [self] in
            var loop = ForwardingLoop(listener: listener, alarm: alarm.bell)
            loop.run(self)
            thread.leave()
        }.start()
    }

    convenience init(to target: NetworkAddress, faults: [Fault]) throws {
        try self.init(to: target, Conduct(faults: faults))
    }

    /// Connections that were accepted, with what they carried.
    var carried: [Carried] { state.withLock { $0.carried } }

    /// Sends connections that come from now on elsewhere.
    func retarget(_ target: NetworkAddress) { state.withLock { $0.target = target } }

    /// Changes what happens to connections that come from now on.
    func conduct(_ conduct: Conduct) { state.withLock { $0.conduct = conduct } }

    /// Resets all connections and ends the thread; called once.
    func stop() {
        close(button)
        thread.wait()
    }

    fileprivate func admit() -> (number: Int, target: NetworkAddress, conduct: Conduct) {
        state.withLock { state in
            state.carried.append(Carried())
            return (state.carried.count - 1, state.target, state.conduct)
        }
    }

    fileprivate func count(_ carried: Carried, of number: Int) {
        state.withLock { $0.carried[number] = carried }
    }
}

/// The thread's own: all connections, and waiting for whichever moves.
private struct ForwardingLoop {
    let listener: Int32
    let alarm: Int32
    var links: [ForwardedLink] = []

    mutating func run(_ forwarder: Forwarder) {
        while true {
            var entries = [
                pollfd(fd: alarm, events: Int16(POLLIN), revents: 0),
                pollfd(fd: listener, events: Int16(POLLIN), revents: 0),
            ]
            for link in links { entries += link.awaited }
            let pause = links.compactMap(\.pauseMilliseconds).min() ?? -1
            guard unsafe poll(&entries, nfds_t(entries.count), pause) >= 0 else { continue }
            if entries[0].revents != 0 { break }
            if entries[1].revents != 0, let file = try? Sockets.accept(listener) {
                accept(file, forwarder)
            }
            for index in links.indices {
                links[index].step()
                forwarder.count(links[index].carried, of: links[index].number)
            }
            links.removeAll { $0.isClosed }
        }
        for index in links.indices { links[index].end(.reset) }
        close(listener)
        close(alarm)
    }

    private mutating func accept(_ file: Int32, _ forwarder: Forwarder) {
        let (number, target, conduct) = forwarder.admit()
        guard let far = try? Sockets.connect(to: target, deadline: Deadline(after: .seconds(2)))
        else {
            close(file)
            return
        }
        links.append(ForwardedLink(number: number, near: file, far: far, conduct: conduct))
    }
}

/// Two sockets with what goes between them.
private struct ForwardedLink {
    private struct Lane {
        let from: Int32
        let to: Int32
        var carried = 0
        var held: ArraySlice<UInt8> = []
        /// When what is held may leave.
        var due = ContinuousClock.now
        var isAtEnd = false
        var isEndPassedOn = false
    }

    private static let pieceBytes = 16 << 10

    let number: Int
    private let near: Int32
    private let far: Int32
    private let conduct: Forwarder.Conduct
    private var faults: [Forwarder.Fault]
    private var lanes: [Forwarder.Direction: Lane]
    private var isStalled = false
    private(set) var isClosed = false
    /// Reads away what comes until both ends have closed.
    private var isEnding = false

    init(number: Int, near: Int32, far: Int32, conduct: Forwarder.Conduct) {
        self.number = number
        self.near = near
        self.far = far
        self.conduct = conduct
        faults = conduct.faults.filter { number < $0.connections }
        lanes = [.up: Lane(from: near, to: far), .down: Lane(from: far, to: near)]
    }

    var carried: Forwarder.Carried {
        Forwarder.Carried(up: lanes[.up]?.carried ?? 0, down: lanes[.down]?.carried ?? 0)
    }

    /// What has to happen for the next step.
    var awaited: [pollfd] {
        guard !isClosed, !isStalled else { return [] }
        var events: [Int32: Int32] = [:]
        for lane in lanes.values {
            if lane.held.isEmpty {
                if !lane.isAtEnd { events[lane.from, default: 0] |= Int32(POLLIN) }
            } else if lane.due <= .now {
                events[lane.to, default: 0] |= Int32(POLLOUT)
            }
        }
        return events.map { pollfd(fd: $0.key, events: Int16($0.value), revents: 0) }
    }

    /// Until something that is held back may leave.
    var pauseMilliseconds: Int32? {
        guard !isClosed, !isStalled else { return nil }
        let waits = lanes.values.filter { !$0.held.isEmpty }.map { $0.due - .now }
        return waits.min().map { Int32(max(1, $0 / .milliseconds(1) + 1)) }
    }

    mutating func step() {
        for direction in Forwarder.Direction.allCases {
            guard !isClosed, !isStalled else { return }
            // Again and again, as far as it goes without waiting.
            while move(direction) { if isClosed || isStalled { return } }
        }
        if lanes.values.allSatisfy(\.isEndPassedOn) { end(.close) }
    }

    /// Moves a piece; false if it has to wait.
    private mutating func move(_ direction: Forwarder.Direction) -> Bool {
        guard var lane = lanes[direction] else { return false }
        defer { if !isClosed { lanes[direction] = lane } }
        if !lane.held.isEmpty { return write(&lane) }
        if let fault = faults.first(where: { $0.direction == direction }),
            fault.damage != .flip, fault.position <= lane.carried
        {
            faults.removeAll { $0 == fault }
            lanes[direction] = lane
            end(fault.damage)
            return false
        }
        return read(&lane, direction)
    }

    private mutating func read(_ lane: inout Lane, _ direction: Forwarder.Direction) -> Bool {
        guard !lane.isAtEnd else { return false }
        var limit = Self.pieceBytes
        for fault in faults where fault.direction == direction && fault.damage != .flip {
            limit = min(limit, fault.position - lane.carried)
        }
        var piece = [UInt8](repeating: 0, count: limit)
        let count = unsafe piece.withUnsafeMutableBytes { unsafe Platform.read(lane.from, $0) }
        if count < 0 {
            guard errno == EAGAIN || errno == EINTR else {
                end(.reset)
                return false
            }
            return false
        }
        if count == 0 {
            lane.isAtEnd = true
            lane.isEndPassedOn = true
            shutdownSending(lane.to)
            return false
        }
        if isEnding { return true }
        for fault in faults where fault.direction == direction && fault.damage == .flip {
            let place = fault.position - lane.carried
            if (0..<count).contains(place) { piece[place] ^= 1 << UInt8(fault.position % 8) }
        }
        lane.held = piece[..<count]
        lane.carried += count
        if conduct.delay > .zero || conduct.bytesPerSecond.isFinite {
            lane.due =
                .now + conduct.delay + .seconds(Double(count) / conduct.bytesPerSecond)
        }
        return true
    }

    private mutating func write(_ lane: inout Lane) -> Bool {
        guard lane.due <= .now else { return false }
        let count = unsafe lane.held.withUnsafeBytes { unsafe Platform.write(lane.to, $0) }
        guard count > 0 else {
            if errno != EAGAIN, errno != EINTR { end(.reset) }
            return false
        }
        lane.held = lane.held.dropFirst(count)
        return true
    }

    mutating func end(_ damage: Forwarder.Damage) {
        guard !isClosed else { return }
        switch damage {
        case .stall: isStalled = true
        case .flip: break
        case .close where !isEnding && !lanes.values.allSatisfy(\.isEndPassedOn):
            // The ends read this as an orderly end; what they still send is read away.
            isEnding = true
            for file in [near, far] { shutdownSending(file) }
        case .close, .reset:
            isClosed = true
            if damage == .reset { for file in [near, far] { setReset(file) } }
            for file in [near, far] { close(file) }
        }
    }

    private func shutdownSending(_ file: Int32) { Platform.shutdown(file, .sending) }

    /// Lets `close` send a reset.
    private func setReset(_ file: Int32) {
        var setting = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(
            file, SOL_SOCKET, SO_LINGER, &setting, socklen_t(MemoryLayout<linger>.size))
    }
}
