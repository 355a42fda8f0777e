import CProtobufC
import CWireMessages
import ServingTypes

extension GroupMember: @unsafe WireForm {
    init(wire: Pdserve__Wire__GroupMember) throws(WireError) {
        let description: InstanceDescription = try unsafe readForm(
            wire.description, "GroupMember.description")
        self.init(
            description: description,
            state: try readValue(unsafe wire.state.rawValue, "GroupMember.state"),
            status: try unsafe readForm(wire.status, "GroupMember.status"),
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "GroupMember.reason"),
            role: try readOptionalValue(unsafe wire.role.rawValue, "GroupMember.role")
                ?? ServingRole(usualFor: description.role),
            group: try unsafe readGroup(wire.group, "GroupMember.group"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__GroupMember {
        var wire = unsafe Pdserve__Wire__GroupMember()
        unsafe pdserve__wire__group_member__init(&wire)
        unsafe wire.description = try arena.writeForm(description)
        unsafe wire.state = Pdserve__Wire__InstanceState(UInt32(state.rawValue))
        unsafe wire.status = try arena.writeForm(status)
        unsafe wire.reason = try arena.writeReason(reason)
        unsafe wire.role = role.wire
        unsafe wire.group = try arena.writeGroup(group, "GroupMember.group")
        return unsafe wire
    }
}

extension GroupView: @unsafe WireForm {
    init(wire: Pdserve__Wire__GroupView) throws(WireError) {
        self.init(
            epoch: unsafe wire.epoch, version: unsafe wire.version,
            members: try unsafe readForms(
                wire.members, count: wire.n_members, limit: WireLimits.members,
                "GroupView.members"),
            groups: try unsafe readForms(
                wire.groups, count: wire.n_groups, limit: WireLimits.groups, "GroupView.groups"),
            isPartial: unsafe wire.is_partial != 0)
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__GroupView {
        var wire = unsafe Pdserve__Wire__GroupView()
        unsafe pdserve__wire__group_view__init(&wire)
        unsafe wire.epoch = epoch
        unsafe wire.version = version
        unsafe wire.members = try arena.writeForms(
            members, limit: WireLimits.members, "GroupView.members")
        unsafe wire.n_members = members.count
        unsafe wire.groups = try arena.writeForms(
            groups, limit: WireLimits.groups, "GroupView.groups")
        unsafe wire.n_groups = groups.count
        unsafe wire.is_partial = isPartial ? 1 : 0
        return unsafe wire
    }
}

extension ServingGroup: @unsafe WireForm {
    init(wire: Pdserve__Wire__ServingGroup) throws(WireError) {
        self.init(
            id: GroupID(
                try unsafe readName(
                    wire.id, limit: WireLimits.identifierBytes, "ServingGroup.id")),
            scenario: try unsafe readText(
                wire.scenario, limit: WireLimits.identifierBytes, "ServingGroup.scenario"),
            modelName: try unsafe readText(
                wire.model_name, limit: WireLimits.nameBytes, "ServingGroup.model_name"),
            fingerprint: try unsafe readFingerprint(wire.fingerprint, "ServingGroup.fingerprint"),
            modelPath: try unsafe readText(
                wire.model_path, limit: WireLimits.modelPathBytes, "ServingGroup.model_path"),
            state: try readValue(unsafe wire.state.rawValue, "ServingGroup.state"),
            weight: try unsafe read(wire.weight, 0...WireLimits.weight, "ServingGroup.weight"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__ServingGroup {
        var wire = unsafe Pdserve__Wire__ServingGroup()
        unsafe pdserve__wire__serving_group__init(&wire)
        unsafe wire.id = try arena.writeName(
            id.name, limit: WireLimits.identifierBytes, "ServingGroup.id")
        unsafe wire.scenario = try arena.writeText(
            scenario, limit: WireLimits.identifierBytes, "ServingGroup.scenario")
        unsafe wire.model_name = try arena.writeText(
            modelName, limit: WireLimits.nameBytes, "ServingGroup.model_name")
        unsafe wire.fingerprint = try arena.writeFingerprint(fingerprint)
        unsafe wire.model_path = try arena.writeText(
            modelPath, limit: WireLimits.modelPathBytes, "ServingGroup.model_path")
        unsafe wire.state = Pdserve__Wire__GroupState(UInt32(state.rawValue))
        unsafe wire.weight = try write32(weight, 0...WireLimits.weight, "ServingGroup.weight")
        return unsafe wire
    }
}

extension MemberReading: @unsafe WireForm {
    init(wire: Pdserve__Wire__MemberReading) throws(WireError) {
        self.init(
            instance: try unsafe readInstance(wire.instance, "MemberReading.instance"),
            status: try unsafe readForm(wire.status, "MemberReading.status"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__MemberReading {
        var wire = unsafe Pdserve__Wire__MemberReading()
        unsafe pdserve__wire__member_reading__init(&wire)
        unsafe wire.instance = try arena.writeInstance(instance, "MemberReading.instance")
        unsafe wire.status = try arena.writeForm(status)
        return unsafe wire
    }
}

extension GroupViewChange: @unsafe WireForm {
    init(wire: Pdserve__Wire__GroupViewChange) throws(WireError) {
        let groups: [ServingGroup] = try unsafe readForms(
            wire.groups, count: wire.n_groups, limit: WireLimits.groups, "GroupViewChange.groups")
        guard unsafe wire.has_groups != 0 || groups.isEmpty else {
            throw .missing(field: "GroupViewChange.has_groups")
        }
        self.init(
            epoch: unsafe wire.epoch, since: unsafe wire.since, version: unsafe wire.version,
            members: try unsafe readForms(
                wire.members, count: wire.n_members, limit: WireLimits.members,
                "GroupViewChange.members"),
            removed: try unsafe readInstances(
                wire.removed, count: wire.n_removed, limit: WireLimits.readings,
                "GroupViewChange.removed"),
            readings: try unsafe readForms(
                wire.readings, count: wire.n_readings, limit: WireLimits.readings,
                "GroupViewChange.readings"),
            groups: unsafe wire.has_groups != 0 ? groups : nil,
            isPartial: unsafe wire.is_partial != 0)
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__GroupViewChange {
        var wire = unsafe Pdserve__Wire__GroupViewChange()
        unsafe pdserve__wire__group_view_change__init(&wire)
        unsafe wire.epoch = epoch
        unsafe wire.since = since
        unsafe wire.version = version
        unsafe wire.members = try arena.writeForms(
            members, limit: WireLimits.members, "GroupViewChange.members")
        unsafe wire.n_members = members.count
        unsafe wire.removed = try arena.writeInstances(
            removed, limit: WireLimits.readings, "GroupViewChange.removed")
        unsafe wire.n_removed = removed.count
        unsafe wire.readings = try arena.writeForms(
            readings, limit: WireLimits.readings, "GroupViewChange.readings")
        unsafe wire.n_readings = readings.count
        if let groups {
            unsafe wire.has_groups = 1
            unsafe wire.groups = try arena.writeForms(
                groups, limit: WireLimits.groups, "GroupViewChange.groups")
            unsafe wire.n_groups = groups.count
        }
        unsafe wire.is_partial = isPartial ? 1 : 0
        return unsafe wire
    }
}
