import ClusterRules
import ServingTypes

/// Short spikes, taken by workers that do both for a while: Splitwise's mixed pool
/// (arXiv 2311.18677, section IV).
extension GroupController {
    /// One more worker of the idle role becomes mixed, if the other can't keep up.
    mutating func takeSpikes(_ pool: Pool) {
        guard let history = histories[pool], history.waiting > 0 else { return }
        let members = members(of: pool)
        let occupancy = occupancy(of: members)
        let short: ServingRole
        if occupancy.prefill >= limits.idleOccupancy, occupancy.decode < limits.idleOccupancy {
            short = .prefill
        } else if occupancy.decode >= limits.idleOccupancy,
            occupancy.prefill < limits.idleOccupancy
        {
            short = .decode
        } else {
            return
        }
        let room = members.list(short).reduce(0) {
            $0 + $1.worker.description.slots(short)
        }
        guard Double(history.waiting) >= limits.spikeWaiting * Double(max(1, room)) else { return }
        let helpers = members.list(short.opposite)
        let mixed = helpers.filter(\.seat.isMixedForSpike)
        guard mixed.count < max(1, Int(Double(helpers.count) * limits.mixedShare)),
            mixed.allSatisfy({ now - $0.seat.since >= limits.spikeStep }),
            let helper = helpers.filter({
                !$0.seat.isMixedForSpike && $0.seat.isConfirmed && !$0.seat.isPinned
                    && $0.can(.mixed)
            }).min(by: { ($0.load, $0.instance) < ($1.load, $1.instance) })
        else { return }
        widen(helper.instance, to: .mixed, home: short.opposite)
        decided(
            .role, pool.scenario, "\(helper.instance) becomes mixed",
            "\(history.waiting) requests wait for \(short.name) with \(room) slots; "
                + "\(short.opposite.name) is taken by "
                + "\((occupancy[short.opposite] * 100).figure(0)) %")
    }

    /// Ends mixed work: back when nothing waits, for good when it lasts.
    mutating func endMixed(_ pool: Pool, _ targets: Targets) {
        guard seats.counts(of: pool).helpers > 0 else { return }
        let members = members(of: pool)
        let calmSince = histories[pool].map { $0.calmSince } ?? .start
        for member in members.prefill + members.decode
        where member.seat.isMixedForSpike && !member.seat.isPinned {
            let stay = now - member.seat.since
            let isCalm = calmSince.map { now - $0 >= limits.spikeCalm } ?? false
            if isCalm, stay >= limits.spikeCalm {
                widen(member.instance, to: member.seat.home, home: member.seat.home)
                decided(
                    .role, pool.scenario, "\(member.instance) is \(member.seat.home.name) again",
                    "nothing has waited for \(limits.spikeCalm.seconds.figure(0)) s")
            } else if stay >= limits.mixedStay, targets.isAutomatic, !isFlipping(pool.scenario) {
                stayForGood(member, members, pool, targets)
            }
        }
    }

    /// A long stay as mixed becomes a step of the ratio, if floors and formula allow it.
    private mutating func stayForGood(
        _ member: Member, _ members: PoolMembers, _ pool: Pool, _ targets: Targets
    ) {
        let home = member.seat.home
        let role = home.opposite
        let inputs = ratioInputs(members, pool, targets)
        guard let group = member.seat.group, count(home, in: group) > 1,
            members.shown(home) > max(1, targets.floor[home]), member.seat.isConfirmed,
            let advice = ratios[pool, default: RatioController()].advise(
                staying: role, for: now - member.seat.since, inputs, now: now, limits: limits)
        else { return }
        ratios[pool, default: RatioController()].stepped(advice, now: now)
        change(member.instance, to: role, group: group)
        decided(
            .role, pool.scenario, "\(member.instance) becomes \(role.name)",
            "\(advice.reason); \(member.instance) changes")
    }
}

extension InstanceDescription {
    /// Requests of the role that it takes at once.
    func slots(_ role: ServingRole) -> Int { role == .prefill ? prefillSlots : decodeSequences }
}
