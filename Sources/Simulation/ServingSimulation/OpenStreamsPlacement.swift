import Scheduling
import ServingTypes
import Synchronization

/// A gateway as P/D-Serve found it (section 3.3): it sends each prompt to the prefill-worker with
/// the fewest of its own streams, and a stream stays open until the last token.
///
/// So it does not see who is idle: most streams are of requests that decode.
struct OpenStreamsPlacement: PlacementPolicy {
    let streams: OpenStreams

    func prefillWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID? {
        let counts = streams.counts
        guard let least = candidates.map({ counts[$0.instance] ?? 0 }).min() else { return nil }
        return candidates.filter { (counts[$0.instance] ?? 0) == least }
            .randomElement(using: &generator)?.instance
    }

    func decodeWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID? {
        candidates.max { $0.freeKVBytes < $1.freeKVBytes }?.instance
    }
}

/// Streams of one gateway that go through each prefill-worker.
final class OpenStreams: Sendable {
    private struct State {
        var counts: [InstanceID: Int] = [:]
        var workers: [RequestID: InstanceID] = [:]
    }

    private let state = Mutex(State())

    var counts: [InstanceID: Int] { state.withLock(\.counts) }

    func open(_ request: RequestID, at worker: InstanceID) {
        close(request)
        state.withLock { state in
            state.counts[worker, default: 0] += 1
            state.workers[request] = worker
        }
    }

    func close(_ request: RequestID) {
        state.withLock { state in
            guard let worker = state.workers.removeValue(forKey: request) else { return }
            state.counts[worker, default: 0] -= 1
        }
    }
}
