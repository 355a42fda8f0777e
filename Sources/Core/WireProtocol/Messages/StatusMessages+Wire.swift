import CProtobufC
import CWireMessages
import ServingTypes

private let instances = 0...WireLimits.instances

extension ClusterStatusRequest: @unsafe WireForm {
    init(wire: Pdserve__Wire__ClusterStatusRequest) throws(WireError) { self.init() }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__ClusterStatusRequest {
        var wire = unsafe Pdserve__Wire__ClusterStatusRequest()
        unsafe pdserve__wire__cluster_status_request__init(&wire)
        return unsafe wire
    }
}

extension ClusterStatus: @unsafe WireForm {
    init(wire: Pdserve__Wire__ClusterStatus) throws(WireError) {
        let gateways = try unsafe readInstances(
            wire.gateways, count: wire.n_gateways, limit: WireLimits.gateways,
            "ClusterStatus.gateways")
        let upgrades = try unsafe readTexts(
            wire.upgrades, count: wire.n_upgrades, limit: WireLimits.upgrades,
            textBytes: WireLimits.reasonBytes, "ClusterStatus.upgrades")
        self.init(
            view: try unsafe readForm(wire.view, "ClusterStatus.view"),
            hosts: try unsafe readForms(
                wire.hosts, count: wire.n_hosts, limit: WireLimits.hosts, "ClusterStatus.hosts"),
            gateways: gateways,
            wanted: try unsafe readForms(
                wire.wanted, count: wire.n_wanted, limit: WireLimits.wanted,
                "ClusterStatus.wanted"),
            decisions: try unsafe readForms(
                wire.decisions, count: wire.n_decisions, limit: WireLimits.decisions,
                "ClusterStatus.decisions"),
            upgrades: upgrades)
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__ClusterStatus {
        var wire = unsafe Pdserve__Wire__ClusterStatus()
        unsafe pdserve__wire__cluster_status__init(&wire)
        unsafe wire.view = try arena.writeForm(view)
        unsafe wire.hosts = try arena.writeForms(
            hosts, limit: WireLimits.hosts, "ClusterStatus.hosts")
        unsafe wire.n_hosts = hosts.count
        unsafe wire.gateways = try arena.writeInstances(
            gateways, limit: WireLimits.gateways, "ClusterStatus.gateways")
        unsafe wire.n_gateways = gateways.count
        unsafe wire.wanted = try arena.writeForms(
            wanted, limit: WireLimits.wanted, "ClusterStatus.wanted")
        unsafe wire.n_wanted = wanted.count
        unsafe wire.decisions = try arena.writeForms(
            decisions, limit: WireLimits.decisions, "ClusterStatus.decisions")
        unsafe wire.n_decisions = decisions.count
        unsafe wire.upgrades = try arena.writeReasons(
            upgrades, limit: WireLimits.upgrades, "ClusterStatus.upgrades")
        unsafe wire.n_upgrades = upgrades.count
        return unsafe wire
    }
}

extension WantedInstances: @unsafe WireForm {
    init(wire: Pdserve__Wire__WantedInstances) throws(WireError) {
        self.init(
            scenario: try unsafe readText(
                wire.scenario, limit: WireLimits.identifierBytes, "WantedInstances.scenario"),
            role: try readValue(unsafe wire.role.rawValue, "WantedInstances.role"),
            present: try unsafe read(wire.present, instances, "WantedInstances.present"),
            wanted: try unsafe read(wire.wanted, instances, "WantedInstances.wanted"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__WantedInstances {
        var wire = unsafe Pdserve__Wire__WantedInstances()
        unsafe pdserve__wire__wanted_instances__init(&wire)
        unsafe wire.scenario = try arena.writeText(
            scenario, limit: WireLimits.identifierBytes, "WantedInstances.scenario")
        unsafe wire.role = role.wire
        unsafe wire.present = try write32(present, instances, "WantedInstances.present")
        unsafe wire.wanted = try write32(wanted, instances, "WantedInstances.wanted")
        return unsafe wire
    }
}

extension Decision: @unsafe WireForm {
    init(wire: Pdserve__Wire__Decision) throws(WireError) {
        self.init(
            unixMilliseconds: unsafe wire.unix_milliseconds,
            scenario: try unsafe readText(
                wire.scenario, limit: WireLimits.identifierBytes, "Decision.scenario"),
            action: try unsafe readText(
                wire.action, limit: WireLimits.nameBytes, "Decision.action"),
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "Decision.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Decision {
        var wire = unsafe Pdserve__Wire__Decision()
        unsafe pdserve__wire__decision__init(&wire)
        unsafe wire.unix_milliseconds = unixMilliseconds
        unsafe wire.scenario = try arena.writeText(
            scenario, limit: WireLimits.identifierBytes, "Decision.scenario")
        unsafe wire.action = try arena.writeReason(action, limit: WireLimits.nameBytes)
        unsafe wire.reason = try arena.writeReason(reason)
        return unsafe wire
    }
}

extension AdminRequest.Argument: @unsafe WireForm {
    init(wire: Pdserve__Wire__AdminArgument) throws(WireError) {
        self.init(
            name: try unsafe readName(
                wire.name, limit: WireLimits.identifierBytes, "AdminArgument.name"),
            value: try unsafe readText(
                wire.value, limit: WireLimits.argumentBytes, "AdminArgument.value"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__AdminArgument {
        var wire = unsafe Pdserve__Wire__AdminArgument()
        unsafe pdserve__wire__admin_argument__init(&wire)
        unsafe wire.name = try arena.writeName(
            name, limit: WireLimits.identifierBytes, "AdminArgument.name")
        unsafe wire.value = try arena.writeText(
            value, limit: WireLimits.argumentBytes, "AdminArgument.value")
        return unsafe wire
    }
}

extension AdminRequest: @unsafe WireForm {
    init(wire: Pdserve__Wire__AdminRequest) throws(WireError) {
        self.init(
            command: try unsafe readName(
                wire.command, limit: WireLimits.identifierBytes, "AdminRequest.command"),
            arguments: try unsafe readForms(
                wire.arguments, count: wire.n_arguments, limit: WireLimits.arguments,
                "AdminRequest.arguments"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__AdminRequest {
        var wire = unsafe Pdserve__Wire__AdminRequest()
        unsafe pdserve__wire__admin_request__init(&wire)
        unsafe wire.command = try arena.writeName(
            command, limit: WireLimits.identifierBytes, "AdminRequest.command")
        unsafe wire.arguments = try arena.writeForms(
            arguments, limit: WireLimits.arguments, "AdminRequest.arguments")
        unsafe wire.n_arguments = arguments.count
        return unsafe wire
    }
}

extension AdminReply: @unsafe WireForm {
    init(wire: Pdserve__Wire__AdminReply) throws(WireError) {
        self.init(
            isAccepted: unsafe wire.is_accepted != 0,
            text: try unsafe readText(
                wire.text, limit: WireLimits.answerBytes, "AdminReply.text"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__AdminReply {
        var wire = unsafe Pdserve__Wire__AdminReply()
        unsafe pdserve__wire__admin_reply__init(&wire)
        unsafe wire.is_accepted = isAccepted ? 1 : 0
        unsafe wire.text = try arena.writeReason(text, limit: WireLimits.answerBytes)
        return unsafe wire
    }
}
