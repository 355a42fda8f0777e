package import Grouping
package import ServingTypes

/// Every bound of the scheduler's decisions.
package struct SchedulerLimits: Sendable, Hashable {
    /// Time without a heartbeat after which a worker leaves the view.
    package var lease: Duration = .seconds(3)
    /// A worker without a connection to here keeps its lease for so long if its health-agent says
    /// that it is well.
    package var detachedLimit: Duration = .seconds(60)
    /// Time between two pushes that differ in readings only; other changes are pushed at once.
    package var readingsInterval: Duration = .milliseconds(500)
    /// Time between two ticks from which on this process was away itself; the silence of others is
    /// not held against them then.
    package var ownPause: Duration = .seconds(1)
    /// Workers up to which each change is acted upon and shown by itself.
    package var promptInstances = 256
    /// Beyond them, time in which changes are collected; the first after a calm does not wait.
    package var changesInterval: Duration = .milliseconds(100)
    /// Workers whose roles may be decided anew in each `changesInterval`; with more there is in
    /// proportion more time between two decisions, which look at all of them.
    package var decidedInstances = 1000
    /// Workers in one cluster.
    package var maximumInstances = 65_536
    /// Connections of workers, gateways, health-agents and people together.
    package var maximumConnections = 81_920
    /// Hosts whose readings are kept.
    package var maximumHosts = 4096
    /// Decisions in a status, the latest.
    package var shownDecisions = 100
    package var groups = GroupLimits()

    package init() {}
}

/// What the scheduler's shell has to do.
package enum SchedulerAction: Hashable, Sendable {
    case push(GroupView, to: [LinkID])
    case pushChange(GroupViewChange, to: [LinkID])
    case answer(ControlMessage, to: LinkID)
    case rules(ClusterRules, to: [LinkID])
    case assign(InstanceID, Assign, to: LinkID)
    /// Say why and close the connection.
    case refuse(Refusal, LinkID)
    /// For the log: a worker changed its state.
    case changed(InstanceID, InstanceState?, reason: String)
    /// For metrics: the view differs in more than readings; its groups.
    case viewChanged([ServingGroup])
    /// For log and metrics: why groups and roles change.
    case decided(Decision)
    /// For metrics: a worker has taken up the role it was told to, so long after the order.
    case tookUp(InstanceID, ServingRole, after: Duration)
    /// For the log: what a person asked for, and whether it is done.
    case commanded(by: InstanceID, on: LinkID, AdminRequest, AdminReply)
    /// For metrics and autoscalers: other numbers of workers are wanted.
    case wanted([WantedInstances])
    /// For the store: what has changed of what outlives this process; nil removes a record.
    case save([SavedKey: SavedRecord?])
}
