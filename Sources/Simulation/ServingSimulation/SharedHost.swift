/// What machines of one host compute now; each is slower while others compute, too.
///
/// An iteration that was begun alone is slowed by those that begin during it, for as long as they
/// take: how it began says little of a prefill iteration of a second beside steps of a tenth.
final class SharedHost {
    private struct Iteration {
        /// Times as long as alone while others compute.
        let factor: Double
        /// Seconds that are left of it if it were alone.
        var left: Double
        let end: () -> Void
    }

    /// Calls after so many seconds.
    private let after: (Double, @escaping () -> Void) -> Void
    private let now: () -> Double
    private var iterations: [Iteration] = []
    /// Ends that were awaited before the latest change are not.
    private var changes = 0
    private var settled = 0.0

    init(now: @escaping () -> Double, after: @escaping (Double, @escaping () -> Void) -> Void) {
        self.now = now
        self.after = after
    }

    /// Begins an iteration that would take so many seconds alone.
    func begin(seconds: Double, factor: Double, end: @escaping () -> Void) {
        settle()
        iterations.append(Iteration(factor: factor, left: seconds, end: end))
        awaitNext()
    }

    private func slowness(_ iteration: Iteration) -> Double {
        iterations.count > 1 ? iteration.factor : 1
    }

    /// Takes off what was computed since the last change.
    private func settle() {
        let passed = now() - settled
        settled = now()
        for index in iterations.indices {
            iterations[index].left -= passed / slowness(iterations[index])
        }
    }

    private func awaitNext() {
        changes += 1
        let change = changes
        let times = iterations.map { $0.left * slowness($0) }
        guard let next = times.indices.min(by: { times[$0] < times[$1] }) else { return }
        after(max(0, times[next])) { [self] in
            guard change == changes else { return }
            settle()
            let ended = iterations.remove(at: next)
            awaitNext()
            ended.end()
        }
    }
}
