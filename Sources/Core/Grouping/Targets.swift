import ClusterRules
import ServingTypes

/// One value for prefill and one for decode.
struct PerRole<Value: Sendable & Hashable>: Sendable, Hashable {
    var prefill: Value
    var decode: Value

    /// - Parameter role: prefill or decode.
    subscript(role: ServingRole) -> Value {
        get { role == .prefill ? prefill : decode }
        set { if role == .prefill { prefill = newValue } else { decode = newValue } }
    }
}

/// Numbers that a person has set for a scenario, over its rules.
struct ScaleOverride: Sendable, Hashable {
    var prefill: Int?
    var decode: Int?
    var spares: Int?
    var groups: Int?
}

/// How many workers a scenario should have now: its rules, the time of day, what people set.
struct Targets: Sendable, Hashable {
    var floor: PerRole<Int>
    /// `Int.max`: as many as there are.
    var ceiling: PerRole<Int>
    /// Numbers to be reached; nil: whatever is best within floor and ceiling.
    var goal: PerRole<Int?>
    var spares: Int
    var groups: Int
    /// Roles may be changed to reach floor, goal or the best ratio.
    var changesRoles: Bool
    /// The ratio follows formula and signal.
    var isAutomatic: Bool
    /// Index of the schedule entry that applies.
    var scheduleEntry: Int?

    init(_ spec: ScenarioSpec, minuteOfDay: Int, scale: ScaleOverride = ScaleOverride()) {
        scheduleEntry = spec.schedule.firstIndex { $0.covers(minuteOfDay) }
        let entry = scheduleEntry.map { spec.schedule[$0] }
        var goal = PerRole<Int?>(prefill: nil, decode: nil)
        if case .fixed(let prefill, let decode) = spec.ratio {
            goal = PerRole(prefill: prefill, decode: decode)
        }
        // Who is at work at this time of day goes before what holds all day.
        if entry?.prefill != nil { goal.prefill = nil }
        if entry?.decode != nil { goal.decode = nil }
        goal.prefill = scale.prefill ?? goal.prefill
        goal.decode = scale.decode ?? goal.decode
        self.goal = goal
        let prefill = entry?.prefill ?? spec.prefill
        let decode = entry?.decode ?? spec.decode
        floor = PerRole(
            prefill: min(max(0, prefill.minimum), goal.prefill ?? .max),
            decode: min(max(0, decode.minimum), goal.decode ?? .max))
        ceiling = PerRole(
            prefill: goal.prefill ?? max(prefill.minimum, prefill.maximum ?? .max),
            decode: goal.decode ?? max(decode.minimum, decode.maximum ?? .max))
        spares = max(0, scale.spares ?? spec.spares)
        groups = max(1, scale.groups ?? spec.groups)
        let isSet = goal.prefill != nil || goal.decode != nil
        changesRoles = spec.ratio != .asStarted || isSet
        isAutomatic = spec.ratio == .automatic && goal.prefill == nil && goal.decode == nil
    }
}

extension ScheduleEntry {
    /// Whether it applies at this minute; `from` belongs to it, `to` does not, and equal ones mean
    /// the whole day.
    func covers(_ minute: Int) -> Bool {
        if from == to { return true }
        return from < to ? from <= minute && minute < to : minute >= from || minute < to
    }
}
