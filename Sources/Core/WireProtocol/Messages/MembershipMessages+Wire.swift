import CProtobufC
import CWireMessages
import ServingTypes

private let memory = 0...WireLimits.memoryBytes
private let slots = 0...WireLimits.slots
/// Not negative and finite; a comparison with NaN is false.
private let measured = 0...Double.greatestFiniteMagnitude

extension ServingRole {
    var wire: Pdserve__Wire__ServingRole { Pdserve__Wire__ServingRole(UInt32(rawValue)) }
}

extension InstanceDescription: @unsafe WireForm {
    init(wire: Pdserve__Wire__InstanceDescription) throws(WireError) {
        self.init(
            instance: try unsafe readInstance(wire.instance, "InstanceDescription.instance"),
            role: try readValue(unsafe wire.role.rawValue, "InstanceDescription.role"),
            incarnation: unsafe wire.incarnation,
            host: try unsafe readText(
                wire.host, limit: WireLimits.hostBytes, "InstanceDescription.host"),
            controlAddress: NetworkAddress(
                host: try unsafe readText(
                    wire.control_host, limit: WireLimits.hostBytes,
                    "InstanceDescription.control_host"),
                port: try unsafe read(
                    wire.control_port, 0...65535, "InstanceDescription.control_port")),
            bulkAddress: NetworkAddress(
                host: try unsafe readText(
                    wire.bulk_host, limit: WireLimits.hostBytes, "InstanceDescription.bulk_host"),
                port: try unsafe read(
                    wire.bulk_port, 0...65535, "InstanceDescription.bulk_port")),
            modelName: try unsafe readText(
                wire.model_name, limit: WireLimits.nameBytes, "InstanceDescription.model_name"),
            fingerprint: try unsafe readFingerprint(
                wire.fingerprint, "InstanceDescription.fingerprint"),
            contextTokens: try unsafe read(
                wire.context_tokens, 0...WireLimits.tokens, "InstanceDescription.context_tokens"),
            kvBytesPerToken: try unsafe read(
                wire.kv_bytes_per_token, memory, "InstanceDescription.kv_bytes_per_token"),
            kvCapacityBytes: try unsafe read(
                wire.kv_capacity_bytes, memory, "InstanceDescription.kv_capacity_bytes"),
            prefillSlots: try unsafe read(
                wire.prefill_slots, slots, "InstanceDescription.prefill_slots"),
            decodeSequences: try unsafe read(
                wire.decode_sequences, slots, "InstanceDescription.decode_sequences"),
            device: try unsafe readText(
                wire.device, limit: WireLimits.nameBytes, "InstanceDescription.device"),
            initialRole: try readOptionalValue(
                unsafe wire.initial_role.rawValue, "InstanceDescription.initial_role"),
            scenario: try unsafe readText(
                wire.scenario, limit: WireLimits.identifierBytes, "InstanceDescription.scenario"),
            modelPath: try unsafe readText(
                wire.model_path, limit: WireLimits.modelPathBytes,
                "InstanceDescription.model_path"))
        devices = try unsafe readTexts(
            wire.devices, count: wire.n_devices, limit: WireLimits.devices,
            textBytes: WireLimits.nameBytes, "InstanceDescription.devices")
        if unsafe wire.predicted != nil {
            predicted = try unsafe readForm(wire.predicted, "InstanceDescription.predicted")
        }
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__InstanceDescription {
        var wire = unsafe Pdserve__Wire__InstanceDescription()
        unsafe pdserve__wire__instance_description__init(&wire)
        unsafe wire.instance = try arena.writeInstance(instance, "InstanceDescription.instance")
        unsafe wire.role = Pdserve__Wire__Role(UInt32(role.rawValue))
        unsafe wire.incarnation = incarnation
        unsafe wire.host = try arena.writeText(
            host, limit: WireLimits.hostBytes, "InstanceDescription.host")
        unsafe wire.control_host = try arena.writeText(
            controlAddress.host, limit: WireLimits.hostBytes, "InstanceDescription.control_host")
        unsafe wire.control_port = try write32(
            controlAddress.port, 0...65535, "InstanceDescription.control_port")
        unsafe wire.bulk_host = try arena.writeText(
            bulkAddress.host, limit: WireLimits.hostBytes, "InstanceDescription.bulk_host")
        unsafe wire.bulk_port = try write32(
            bulkAddress.port, 0...65535, "InstanceDescription.bulk_port")
        unsafe wire.model_name = try arena.writeText(
            modelName, limit: WireLimits.nameBytes, "InstanceDescription.model_name")
        unsafe wire.fingerprint = try arena.writeFingerprint(fingerprint)
        unsafe wire.context_tokens = try write64(
            contextTokens, 0...WireLimits.tokens, "InstanceDescription.context_tokens")
        unsafe wire.kv_bytes_per_token = try write64(
            kvBytesPerToken, memory, "InstanceDescription.kv_bytes_per_token")
        unsafe wire.kv_capacity_bytes = try write64(
            kvCapacityBytes, memory, "InstanceDescription.kv_capacity_bytes")
        unsafe wire.prefill_slots = try write32(
            prefillSlots, slots, "InstanceDescription.prefill_slots")
        unsafe wire.decode_sequences = try write32(
            decodeSequences, slots, "InstanceDescription.decode_sequences")
        unsafe wire.device = try arena.writeText(
            device, limit: WireLimits.nameBytes, "InstanceDescription.device")
        unsafe wire.initial_role = initialRole.wire
        unsafe wire.scenario = try arena.writeText(
            scenario, limit: WireLimits.identifierBytes, "InstanceDescription.scenario")
        unsafe wire.model_path = try arena.writeText(
            modelPath, limit: WireLimits.modelPathBytes, "InstanceDescription.model_path")
        unsafe wire.devices = try arena.writeTexts(
            devices, limit: WireLimits.devices, textBytes: WireLimits.nameBytes,
            "InstanceDescription.devices")
        unsafe wire.n_devices = devices.count
        if let predicted { unsafe wire.predicted = try arena.writeForm(predicted) }
        return unsafe wire
    }
}

extension InstanceStatus: @unsafe WireForm {
    init(wire: Pdserve__Wire__InstanceStatus) throws(WireError) {
        self.init()
        freePrefillSlots = try unsafe read(
            wire.free_prefill_slots, slots, "InstanceStatus.free_prefill_slots")
        runningSequences = try unsafe read(
            wire.running_sequences, slots, "InstanceStatus.running_sequences")
        freeKVBytes = try unsafe read(wire.free_kv_bytes, memory, "InstanceStatus.free_kv_bytes")
        reservedKVBytes = try unsafe read(
            wire.reserved_kv_bytes, memory, "InstanceStatus.reserved_kv_bytes")
        engineSteps = unsafe wire.engine_steps
        stepAgeMilliseconds = unsafe wire.step_age_milliseconds
        isDraining = unsafe wire.is_draining != 0
        role =
            try readOptionalValue(unsafe wire.role.rawValue, "InstanceStatus.role") ?? .spare
        assignment = unsafe wire.assignment
        localPrefills = try unsafe read(
            wire.local_prefills, slots, "InstanceStatus.local_prefills")
        prefillTokensPerSecond = try checked(
            unsafe wire.prefill_tokens_per_second, measured,
            "InstanceStatus.prefill_tokens_per_second")
        decodeStepMilliseconds = try checked(
            unsafe wire.decode_step_milliseconds, measured,
            "InstanceStatus.decode_step_milliseconds")
        computingPrompts = try unsafe read(
            wire.computing_prompts, slots, "InstanceStatus.computing_prompts")
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__InstanceStatus {
        var wire = unsafe Pdserve__Wire__InstanceStatus()
        unsafe pdserve__wire__instance_status__init(&wire)
        unsafe wire.free_prefill_slots = try write32(
            freePrefillSlots, slots, "InstanceStatus.free_prefill_slots")
        unsafe wire.running_sequences = try write32(
            runningSequences, slots, "InstanceStatus.running_sequences")
        unsafe wire.free_kv_bytes = try write64(
            freeKVBytes, memory, "InstanceStatus.free_kv_bytes")
        unsafe wire.reserved_kv_bytes = try write64(
            reservedKVBytes, memory, "InstanceStatus.reserved_kv_bytes")
        unsafe wire.engine_steps = engineSteps
        unsafe wire.step_age_milliseconds = stepAgeMilliseconds
        unsafe wire.is_draining = isDraining ? 1 : 0
        unsafe wire.role = role.wire
        unsafe wire.assignment = assignment
        unsafe wire.local_prefills = try write32(
            localPrefills, slots, "InstanceStatus.local_prefills")
        unsafe wire.prefill_tokens_per_second = try checked(
            prefillTokensPerSecond, measured, "InstanceStatus.prefill_tokens_per_second")
        unsafe wire.decode_step_milliseconds = try checked(
            decodeStepMilliseconds, measured, "InstanceStatus.decode_step_milliseconds")
        unsafe wire.computing_prompts = try write32(
            computingPrompts, slots, "InstanceStatus.computing_prompts")
        return unsafe wire
    }
}

extension Register: @unsafe WireForm {
    init(wire: Pdserve__Wire__Register) throws(WireError) {
        self.init(
            description: try unsafe readForm(wire.description, "Register.description"),
            status: try unsafe readForm(wire.status, "Register.status"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Register {
        var wire = unsafe Pdserve__Wire__Register()
        unsafe pdserve__wire__register__init(&wire)
        unsafe wire.description = try arena.writeForm(description)
        unsafe wire.status = try arena.writeForm(status)
        return unsafe wire
    }
}

extension Heartbeat: @unsafe WireForm {
    init(wire: Pdserve__Wire__Heartbeat) throws(WireError) {
        self.init(status: try unsafe readForm(wire.status, "Heartbeat.status"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Heartbeat {
        var wire = unsafe Pdserve__Wire__Heartbeat()
        unsafe pdserve__wire__heartbeat__init(&wire)
        unsafe wire.status = try arena.writeForm(status)
        return unsafe wire
    }
}

extension Deregister: @unsafe WireForm {
    init(wire: Pdserve__Wire__Deregister) throws(WireError) {
        self.init(
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "Deregister.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Deregister {
        var wire = unsafe Pdserve__Wire__Deregister()
        unsafe pdserve__wire__deregister__init(&wire)
        unsafe wire.reason = try arena.writeReason(reason)
        return unsafe wire
    }
}

extension Subscribe: @unsafe WireForm {
    init(wire: Pdserve__Wire__Subscribe) throws(WireError) {
        self.init(
            host: try unsafe readText(wire.host, limit: WireLimits.hostBytes, "Subscribe.host"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Subscribe {
        var wire = unsafe Pdserve__Wire__Subscribe()
        unsafe pdserve__wire__subscribe__init(&wire)
        unsafe wire.host = try arena.writeText(
            host, limit: WireLimits.hostBytes, "Subscribe.host")
        return unsafe wire
    }
}

extension Assign: @unsafe WireForm {
    init(wire: Pdserve__Wire__Assign) throws(WireError) {
        self.init(
            number: unsafe wire.number,
            role: try readValue(unsafe wire.role.rawValue, "Assign.role"),
            group: try unsafe readGroup(wire.group, "Assign.group"),
            scenario: try unsafe readText(
                wire.scenario, limit: WireLimits.identifierBytes, "Assign.scenario"),
            stepLimit: try unsafe readMicroseconds(
                wire.step_limit_microseconds, "Assign.step_limit_microseconds"),
            modelPath: try unsafe readText(
                wire.model_path, limit: WireLimits.modelPathBytes, "Assign.model_path"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Assign {
        var wire = unsafe Pdserve__Wire__Assign()
        unsafe pdserve__wire__assign__init(&wire)
        unsafe wire.number = number
        unsafe wire.role = role.wire
        unsafe wire.group = try arena.writeGroup(group, "Assign.group")
        unsafe wire.scenario = try arena.writeText(
            scenario, limit: WireLimits.identifierBytes, "Assign.scenario")
        unsafe wire.step_limit_microseconds = try writeMicroseconds(
            stepLimit, "Assign.step_limit_microseconds")
        unsafe wire.model_path = try arena.writeText(
            modelPath, limit: WireLimits.modelPathBytes, "Assign.model_path")
        return unsafe wire
    }
}

extension ClusterRules: @unsafe WireForm {
    init(wire: Pdserve__Wire__ClusterRules) throws(WireError) {
        self.init(
            text: try unsafe readText(
                wire.text, limit: WireLimits.rulesBytes, "ClusterRules.text"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__ClusterRules {
        var wire = unsafe Pdserve__Wire__ClusterRules()
        unsafe pdserve__wire__cluster_rules__init(&wire)
        unsafe wire.text = try arena.writeText(
            text, limit: WireLimits.rulesBytes, "ClusterRules.text")
        return unsafe wire
    }
}
