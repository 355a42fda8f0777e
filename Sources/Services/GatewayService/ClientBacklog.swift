import Synchronization

/// What has come of one answer and was not read by its client's side yet.
///
/// Bounded: a client that reads too slowly loses its answer, so that it costs no more memory, and
/// no more room in the workers.
final class ClientBacklog: Sendable {
    /// In order; ends after the last event that had room.
    let events: AsyncStream<ChoiceEvent>
    private let continuation: AsyncStream<ChoiceEvent>.Continuation
    private let isOverrun = Atomic<Bool>(false)

    /// - Parameters:
    ///   - limit: events that wait.
    ///   - onCancel: called once if the reading side gives up.
    init(limit: Int, onCancel: @escaping @Sendable () -> Void) {
        (events, continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(limit))
        continuation.onTermination = { reason in
            if case .cancelled = reason { onCancel() }
        }
    }

    /// Whether an event found no room: the answer is not whole.
    var hasOverrun: Bool { isOverrun.load(ordering: .acquiring) }

    /// False if there is no room for the event, nor will be for others.
    func add(_ event: ChoiceEvent) -> Bool {
        guard !hasOverrun else { return false }
        guard case .dropped = continuation.yield(event) else { return true }
        isOverrun.store(true, ordering: .releasing)
        return false
    }

    func finish() { continuation.finish() }
}
