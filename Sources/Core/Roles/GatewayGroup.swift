import ClusterRules
import Scheduling
import ServingTypes

/// A group's workers in lists that are kept up to date, so that nobody looks at all of them.
///
/// Workers are named by their positions on the board.
struct GatewayGroup: Sendable {
    /// Workers that can be asked now.
    enum List: Int, Sendable, CaseIterable {
        case prompts
        case sequences
        /// Workers that only prefill, as places for sequences while none that decodes is left.
        case fallback
    }

    let id: GroupID
    /// The scheduler never told of it: all workers of a model's revision that are in no other.
    let isImplicit: Bool
    var rules: ServingGroup
    private var members: [[Int]] = [[], []]
    private var available: [[Int]] = [[], [], []]
    var forecast = PrefillForecast()
    /// Tokens per second of the usable worker that prefills fastest; 0 if any rate is unknown.
    var fastestPrefill = 0.0
    /// Until then that is taken as it is.
    var ratesUntil = MonotonicTime.start
    /// Usable workers that prefill, and those that decode.
    private var usable = [0, 0]

    init(_ rules: ServingGroup, isImplicit: Bool) {
        id = rules.id
        self.rules = rules
        self.isImplicit = isImplicit
    }

    /// In the view with this role, whether they can be reached or not.
    func members(_ need: GatewayNeed) -> [Int] { members[need.rawValue] }
    func available(_ list: List) -> [Int] { available[list.rawValue] }
    func hasUsable(_ need: GatewayNeed) -> Bool { usable[need.rawValue] > 0 }
    var isEmpty: Bool { members.allSatisfy(\.isEmpty) }

    /// Whether requests of this scenario could be placed here now.
    func canServe(_ settings: ScenarioSettings) -> Bool {
        switch (hasUsable(.prompts), hasUsable(.sequences)) {
        case (true, true): true
        case (true, false): settings.prefillOnlyFallback
        case (false, true): settings.decodeOnlyFallback
        case (false, false): false
        }
    }

    /// Says whether the first one came or the last one went.
    mutating func countUsable(_ need: GatewayNeed, by change: Int) -> Bool {
        usable[need.rawValue] += change
        return usable[need.rawValue] == max(0, change)
    }

    /// Gives its place in the list.
    mutating func addMember(_ position: Int, _ need: GatewayNeed) -> Int {
        members[need.rawValue].append(position)
        return members[need.rawValue].count - 1
    }

    mutating func addAvailable(_ position: Int, _ list: List) -> Int {
        available[list.rawValue].append(position)
        return available[list.rawValue].count - 1
    }

    /// The last one takes its place; gives that one if it is another.
    mutating func removeMember(at index: Int, _ need: GatewayNeed) -> Int? {
        members[need.rawValue].swapRemove(at: index)
    }

    mutating func removeAvailable(at index: Int, _ list: List) -> Int? {
        available[list.rawValue].swapRemove(at: index)
    }
}

extension [Int] {
    /// Removes an element in constant time; gives the one that moved to its place.
    fileprivate mutating func swapRemove(at index: Int) -> Int? {
        let last = removeLast()
        guard index < count else { return nil }
        self[index] = last
        return last
    }
}

/// What the cluster file says of a scenario, as far as placement goes.
///
/// Without rules nobody does another role's work, since its workers may be unable to.
struct ScenarioSettings: Sendable {
    var placement = PlacementName.onDemand
    var isLate = false
    var deflects = false
    var decodeOnlyFallback = false
    var prefillOnlyFallback = false
    var ttftLimit: Duration
    var tpotLimit: Duration
    var stepLimit: Duration

    init() {
        let usual = ScenarioSpec(name: ScenarioSpec.defaultName)
        ttftLimit = usual.ttftLimit
        tpotLimit = usual.tpotLimit
        stepLimit = usual.stepLimit
    }

    init(_ spec: ScenarioSpec) {
        placement = spec.placement
        isLate = spec.decodePlacement == .late
        deflects = spec.deflection
        decodeOnlyFallback = spec.decodeOnlyFallback
        prefillOnlyFallback = spec.prefillOnlyFallback
        ttftLimit = spec.ttftLimit
        tpotLimit = spec.tpotLimit
        stepLimit = spec.stepLimit
    }
}
