/// Every bound of the health-agent's decisions.
package struct HealthLimits: Sendable, Hashable {
    // Beats.

    package var probeInterval: Duration = .milliseconds(250)
    /// Reports are sent so often, and at once when a worker's state changes.
    package var reportInterval: Duration = .milliseconds(500)
    /// Missed beats in a row from which on a worker is suspect, if it was silent for so long.
    package var suspectMisses = 2
    package var suspectDeadline: Duration = .milliseconds(750)
    /// Missed beats in a row from which on a worker is down, if it was silent for so long.
    package var downMisses = 4
    package var silenceDeadline: Duration = .seconds(2)

    // Progress.

    /// Age of one engine iteration after which the engine counts as hung; suspect at half of it.
    package var stepDeadline: Duration = .seconds(120)
    /// Time without a new iteration while sequences decode, after which the engine counts as hung;
    /// suspect at half of it.
    package var stallDeadline: Duration = .seconds(30)

    // Canaries.

    /// Time between two canaries of a worker that is idle; zero: none are sent.
    package var canaryInterval: Duration = .seconds(15)
    /// Time between a canary that failed and the next one.
    package var canaryRetry: Duration = .seconds(2)
    /// Time an idle worker may take to generate a few tokens.
    package var canaryDeadline: Duration = .seconds(10)
    /// Failed canaries in a row from which on a worker is suspect, and down.
    package var suspectCanaries = 1
    package var downCanaries = 3

    // Ending hung workers.

    /// Silence after which a worker is killed by whoever keeps it running.
    package var killDeadline: Duration = .seconds(10)
    /// Time a worker that is not well is watched on after it has left the view.
    package var leaverDeadline: Duration = .seconds(120)
    /// Between two tries to end a hung worker, and how many there are in its life.
    package var endInterval: Duration = .seconds(5)
    package var maximumEnds = 3

    /// Time between two ticks from which on this process was away itself; the silence of others is
    /// not held against them then.
    package var ownPause: Duration = .seconds(1)
    /// Workers watched on one host.
    package var maximumWorkers = 256
    package var devices = DeviceLimits()

    package init() {}
}
