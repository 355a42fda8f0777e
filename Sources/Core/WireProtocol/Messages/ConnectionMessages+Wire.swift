import CProtobufC
import CWireMessages
import ServingTypes

extension Hello: @unsafe WireForm {
    init(wire: Pdserve__Wire__Hello) throws(WireError) {
        let fingerprint =
            unsafe wire.model_fingerprint.len == 0
            ? nil : try unsafe readFingerprint(wire.model_fingerprint, "Hello.model_fingerprint")
        self.init(
            protocolVersion: unsafe wire.protocol_version,
            cluster: try unsafe readName(
                wire.cluster, limit: WireLimits.identifierBytes, "Hello.cluster"),
            role: try readValue(unsafe wire.role.rawValue, "Hello.role"),
            instance: try unsafe readInstance(wire.instance, "Hello.instance"),
            incarnation: unsafe wire.incarnation,
            fingerprint: fingerprint,
            productVersion: try unsafe readText(
                wire.product_version, limit: WireLimits.nameBytes, "Hello.product_version"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Hello {
        var wire = unsafe Pdserve__Wire__Hello()
        unsafe pdserve__wire__hello__init(&wire)
        unsafe wire.protocol_version = protocolVersion
        unsafe wire.cluster = try arena.writeName(
            cluster, limit: WireLimits.identifierBytes, "Hello.cluster")
        unsafe wire.role = Pdserve__Wire__Role(UInt32(role.rawValue))
        unsafe wire.instance = try arena.writeInstance(instance, "Hello.instance")
        unsafe wire.incarnation = incarnation
        if let fingerprint {
            unsafe wire.model_fingerprint = try arena.writeFingerprint(fingerprint)
        }
        unsafe wire.product_version = try arena.writeText(
            productVersion, limit: WireLimits.nameBytes, "Hello.product_version")
        return unsafe wire
    }
}

extension Refusal: @unsafe WireForm {
    init(wire: Pdserve__Wire__Refusal) throws(WireError) {
        self.init(
            code: try readValue(unsafe wire.code.rawValue, "Refusal.code"),
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "Refusal.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Refusal {
        var wire = unsafe Pdserve__Wire__Refusal()
        unsafe pdserve__wire__refusal__init(&wire)
        unsafe wire.code = Pdserve__Wire__FailureCode(UInt32(code.rawValue))
        unsafe wire.reason = try arena.writeReason(reason)
        return unsafe wire
    }
}

extension Ping: @unsafe WireForm {
    init(wire: Pdserve__Wire__Ping) throws(WireError) { self.init(number: unsafe wire.number) }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Ping {
        var wire = unsafe Pdserve__Wire__Ping()
        unsafe pdserve__wire__ping__init(&wire)
        unsafe wire.number = number
        return unsafe wire
    }
}

extension Pong: @unsafe WireForm {
    init(wire: Pdserve__Wire__Pong) throws(WireError) {
        self.init(
            number: unsafe wire.number,
            status: unsafe wire.status == nil
                ? nil : try unsafe readForm(wire.status, "Pong.status"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Pong {
        var wire = unsafe Pdserve__Wire__Pong()
        unsafe pdserve__wire__pong__init(&wire)
        unsafe wire.number = number
        if let status { unsafe wire.status = try arena.writeForm(status) }
        return unsafe wire
    }
}
