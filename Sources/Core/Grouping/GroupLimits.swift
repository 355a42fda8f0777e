/// Bounds and intervals of the decisions about groups.
package struct GroupLimits: Sendable, Hashable {
    /// Time from a worker's removal from the view to the order that changes it, so that gateways
    /// hear of the removal first.
    package var viewLead: Duration = .milliseconds(100)
    /// Time between two looks at traffic, schedule and surplus; membership is acted on at once.
    package var lookInterval: Duration = .seconds(1)
    /// Time a group is given to collect its workers, before workers may be moved to complete it.
    package var setUpDeadline: Duration = .seconds(120)
    /// Time a worker is given to confirm an assignment, before people are told and it is asked
    /// again.
    package var flipDeadline: Duration = .seconds(120)
    /// Time a worker that does not serve keeps its place, if no spare takes it.
    package var absence: Duration = .seconds(5)
    /// Time that workers have to come back to a scheduler that follows another, before what is
    /// missing is replaced; longer than the longest pause between two of their attempts.
    package var recall: Duration = .seconds(15)
    /// Time between a group's last request and the removal of its workers.
    package var drain: Duration = .seconds(5)
    /// Time a group without workers is kept open for them to come back.
    package var emptyGroupKept: Duration = .seconds(300)
    /// Decisions kept for people.
    package var decisions = 200

    /// Length of each of the two windows of traffic that are compared.
    package var window: Duration = .seconds(30)
    /// Time covered by one entry of a window.
    package var windowEntry: Duration = .seconds(1)
    /// Completed requests a window needs to be judged by.
    package var minimumSamples = 20
    /// Time between two steps of one scenario.
    package var settle: Duration = .seconds(30)
    /// Least rise of the mean E2E, as a part of it, that is a signal.
    package var endToEndRise = 0.15
    /// Least change of T_p/E2E that is a signal.
    package var prefillShareChange = 0.05
    /// Least part by which the best ratio must exceed the present one.
    package var improvement = 0.10
    /// Part of the predicted throughput that a step by the signal may cost.
    package var signalCost = 0.05
    /// Steps back and forth after which the ratio stays, until traffic changes its kind.
    package var maximumReversals = 3
    /// Change of the mean prompt or output, as a part of it, that makes traffic another kind.
    package var kindChange = 0.5
    /// Part of its sequences or slots below which a role counts as idle.
    package var idleOccupancy = 0.5

    /// Waiting requests per slot of the short role that make a spike.
    package var spikeWaiting = 1.0
    /// Time between two workers that become mixed.
    package var spikeStep: Duration = .seconds(1)
    /// Time without waiting after which a mixed worker returns.
    package var spikeCalm: Duration = .seconds(5)
    /// Stay as mixed that asks for a change of role.
    package var mixedStay: Duration = .seconds(60)
    /// Part of a role's workers that may be mixed.
    package var mixedShare = 0.5

    /// Part of their throughput at which workers should run.
    package var targetUse = 0.8
    /// Time for which the highest wish for workers is held.
    package var wantedHold: Duration = .seconds(60)
    /// Most workers of a role that are wished for.
    package var maximumWanted = 4096

    /// Time a worker is given to come back with another model.
    package var upgradeDeadline: Duration = .seconds(900)
    /// Time for which an upgraded worker may be no member at all before the upgrade pauses.
    ///
    /// Loading a model counts. The upgrade goes on by itself when the worker is back.
    package var upgradeAbsence: Duration = .seconds(60)
    /// Time between two steps of an upgrade, unless its request says otherwise.
    package var upgradeSettle: Duration = .seconds(30)
    /// Times a worker that missed an upgrade is sent to the new model.
    package var lateLoads = 2
    /// Workers of each role in one step of an upgrade, at most.
    package var maximumUpgradeStep = 64

    /// Longest path of a model file.
    package var maximumPathBytes = 4096

    package init() {}
}
