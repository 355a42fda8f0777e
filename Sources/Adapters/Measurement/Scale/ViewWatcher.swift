import Roles
import ServiceRuntime
import ServiceStart
import ServingTypes
import Synchronization
import Transport
import WireProtocol

/// A gateway that reads the group view and notes when it learns what.
final class ViewWatcher: Sendable {
    struct Reading: Sendable {
        var epoch: UInt64 = 0
        var serving = 0
        /// Of those, the ones that are used for something.
        var inUse = 0
        /// One of the others.
        var spare: InstanceID?
        /// When the view came that says so.
        var time = MonotonicTime.start
        var bytes = 0
        var messages = 0
        var views = 0
        /// Whole views that were asked for again.
        var outOfStep = 0
    }

    private struct State {
        var reader = ViewReader()
        var reading = Reading()
        var awaited: Set<InstanceID> = []
        var seenGone: [InstanceID: MonotonicTime] = [:]
    }

    private let services: PlayedServices
    private let name: InstanceID
    private let state = Mutex(State())

    init(number: Int, services: PlayedServices) {
        self.services = services
        name = InstanceID("gateway-\(number)")
    }

    var reading: Reading { state.withLock { $0.reading } }

    /// From now on notes when these are no longer to be chosen.
    func watch(_ instances: [InstanceID]) {
        state.withLock { $0.awaited.formUnion(instances) }
    }

    /// When the view came that excludes it; nil while none did.
    func excluded(_ instance: InstanceID) -> MonotonicTime? {
        state.withLock { $0.seenGone[instance] }
    }

    /// Follows the view until the task is cancelled.
    func run() async throws {
        let client = try services.client(.gateway, name, incarnation: .random(in: 1 ... .max))
        await client.run { session in
            self.state.withLock { $0.reader.connected() }
            session.post(.subscribe(Subscribe()))
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await session.keepAlive() }
                group.addTask {
                    for try await frame in session.inbound {
                        guard self.received(frame) else { continue }
                        session.post(.subscribe(Subscribe()))
                    }
                }
                try await group.next()
                group.cancelAll()
            }
        }
    }

    /// Whether the view has to be asked for again.
    private func received(_ frame: Frame) -> Bool {
        state.withLock { state in
            state.reading.bytes += FrameHeader.byteCount + frame.header.controlBytes
            state.reading.messages += 1
            switch frame.message {
            case .groupView(let page):
                if let view = state.reader.received(page) { note(view, &state) }
            case .groupViewChange(let change):
                switch state.reader.received(change) {
                case .nothing, .readings: break
                case .view(let view): note(view, &state)
                case .outOfStep:
                    state.reading.outOfStep += 1
                    return true
                }
            default: break
            }
            return false
        }
    }

    private func note(_ view: GroupView, _ state: inout State) {
        let now = ProcessClock.now()
        var (serving, inUse) = (0, 0)
        var spare: InstanceID?
        for member in view.members where member.state == .serving {
            serving += 1
            if member.role != .spare {
                inUse += 1
            } else {
                spare = member.description.instance
            }
        }
        state.reading.epoch = view.epoch
        state.reading.serving = serving
        state.reading.inUse = inUse
        state.reading.spare = spare
        state.reading.time = now
        state.reading.views += 1
        guard !state.awaited.isEmpty else { return }
        var alive: Set<InstanceID> = []
        for member in view.members where member.state == .serving {
            let instance = member.description.instance
            if state.awaited.contains(instance) { alive.insert(instance) }
        }
        for instance in state.awaited.subtracting(alive) { state.seenGone[instance] = now }
        state.awaited = alive
    }
}
