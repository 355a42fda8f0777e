import ClusterSimulation
import Dispatch
import Foundation
import Synchronization

/// Runs many seeds, some at once; a signal ends it with what there is.
final class Sweep: Sendable {
    private struct State {
        var next: UInt64
        var isInterrupted = false
        var result = SweepResult()
        var lastProgress = ContinuousClock.now
    }

    /// Time between two lines of progress.
    private static let progressInterval = Duration.seconds(10)

    private let seeds: ClosedRange<UInt64>
    private let weather: ClusterPlan.Weather?
    private let threads: Int
    private let state: Mutex<State>

    init(seeds: ClosedRange<UInt64>, weather: ClusterPlan.Weather?, threads: Int?) {
        self.seeds = seeds
        self.weather = weather
        self.threads = threads ?? ProcessInfo.processInfo.activeProcessorCount
        state = Mutex(State(next: seeds.lowerBound))
    }

    func run() async -> SweepResult {
        let signals = [SIGINT, SIGTERM].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number)
            source.setEventHandler { self.state.withLock { $0.isInterrupted = true } }
            source.resume()
            return source
        }
        let crashes = CrashNote()
        let begin = ContinuousClock.now
        await withTaskGroup(of: Void.self) { group in
            for slot in 0..<threads {
                group.addTask {
                    while let seed = self.take() {
                        crashes.begins(seed, slot: slot)
                        self.simulate(seed)
                    }
                }
            }
        }
        for source in signals { source.cancel() }
        return state.withLock { state in
            state.result.seconds = (ContinuousClock.now - begin) / .seconds(1)
            state.result.isInterrupted = state.isInterrupted
            return state.result
        }
    }

    private func take() -> UInt64? {
        state.withLock { state in
            guard !state.isInterrupted, seeds.contains(state.next) else { return nil }
            defer { state.next += 1 }
            return state.next
        }
    }

    private func simulate(_ seed: UInt64) {
        let plan = ClusterPlan(seed: seed)
        if let weather, plan.weather != weather { return }
        let simulation = ClusterSimulation(plan: plan)
        simulation.run()
        let failure = SweepResult.Failure(simulation)
        let progress = state.withLock { state -> String? in
            state.result.add(simulation)
            guard ContinuousClock.now - state.lastProgress > Self.progressInterval else {
                return nil
            }
            state.lastProgress = .now
            let done = seed - seeds.lowerBound + 1
            return "\(done) of \(seeds.count) seeds, \(state.result.failed) failed"
        }
        for line in [failure?.text, progress].compactMap({ $0 }) {
            FileHandle.standardError.write(Data("\(line)\n".utf8))
        }
    }
}

/// Names the seeds that run when a machine stops the program.
final class CrashNote: Sendable {
    /// A seed by slot, 0 for none; read by the signal handler.
    private static let running = Mutex<[Int: UInt64]>([:])

    init() {
        for number in [SIGTRAP, SIGILL] {
            // A machine crashes in its own code, never while the lock is held or memory is taken.
            signal(number) { number in
                let seeds = CrashNote.running.withLock { $0.values.sorted() }
                let commands = seeds.map { "  simulate --seed \($0)" }.joined(separator: "\n")
                let words = "crashed at commit \(SweepResult.commit); one of:\n\(commands)\n"
                FileHandle.standardError.write(Data(words.utf8))
                signal(number, SIG_DFL)
            }
        }
    }

    func begins(_ seed: UInt64, slot: Int) { Self.running.withLock { $0[slot] = seed } }
}
