import Synchronization

/// Saves in the background what is put in: one write at a time, and what comes meanwhile together
/// in the next, of each record the newest.
///
/// So a store that is slow, full or away never holds up who writes.
package final class StoreWriter: Sendable {
    /// What people should hear of.
    package enum Report: Hashable, Sendable {
        case saved(records: Int, bytes: Int, after: Duration)
        /// Said of each failure; `isNew` at the first of a series.
        case failed(StoreError, isNew: Bool)
        /// Events that were lost because too many waited.
        case dropped(events: Int)
    }

    private struct State {
        var waiting = StoreBatch()
        var dropped = 0
        var isIdle = true
    }

    private let term: any ClusterTerm
    private let report: @Sendable (Report) -> Void
    private let state = Mutex(State())
    private let calls: AsyncStream<Void>
    private let call: AsyncStream<Void>.Continuation

    package init(term: any ClusterTerm, report: @escaping @Sendable (Report) -> Void) {
        self.term = term
        self.report = report
        (calls, call) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    package func put(_ batch: StoreBatch) {
        guard !batch.isEmpty else { return }
        state.withLock { state in
            state.dropped += state.waiting.add(batch)
            state.isIdle = false
        }
        call.yield()
    }

    /// Writes until the task is cancelled, or until the term is over.
    package func run() async {
        var pause = StoreLimits.firstPause
        var isFailing = false
        for await _ in calls {
            while let batch = take() {
                do throws(StoreError) {
                    let start = ContinuousClock.now
                    try await term.save(batch)
                    isFailing = false
                    pause = StoreLimits.firstPause
                    report(
                        .saved(
                            records: batch.records.count, bytes: batch.bytes,
                            after: ContinuousClock.now - start))
                } catch {
                    report(.failed(error, isNew: !isFailing))
                    if case .fenced = error { return }
                    // What can never be written would hold up all that follows.
                    if case .tooLarge = error { continue }
                    isFailing = true
                    putBack(batch)
                    try? await Task.sleep(for: pause)
                    pause = min(pause * 2, StoreLimits.longestPause)
                    if Task.isCancelled { return }
                }
            }
        }
    }

    /// Waits until all that was put in is saved.
    ///
    /// - Returns: false if it is not in time.
    package func flush(within deadline: Duration) async -> Bool {
        let end = ContinuousClock.now + deadline
        while !state.withLock({ $0.isIdle }) {
            guard ContinuousClock.now < end else { return false }
            try? await Task.sleep(for: .milliseconds(5))
        }
        return true
    }

    private func take() -> StoreBatch? {
        let (batch, dropped) = state.withLock { state in
            let batch = state.waiting
            let dropped = state.dropped
            state.waiting = StoreBatch()
            state.dropped = 0
            state.isIdle = batch.isEmpty
            return (batch, dropped)
        }
        if dropped > 0 { report(.dropped(events: dropped)) }
        return batch.isEmpty ? nil : batch
    }

    private func putBack(_ batch: StoreBatch) {
        state.withLock { state in
            var all = batch
            state.dropped += all.add(state.waiting)
            state.waiting = all
        }
    }
}
