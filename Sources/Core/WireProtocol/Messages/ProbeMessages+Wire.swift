import CProtobufC
import CWireMessages
import ServingTypes

extension Canary: @unsafe WireForm {
    init(wire: Pdserve__Wire__Canary) throws(WireError) { self.init(number: unsafe wire.number) }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Canary {
        var wire = unsafe Pdserve__Wire__Canary()
        unsafe pdserve__wire__canary__init(&wire)
        unsafe wire.number = number
        return unsafe wire
    }
}

extension CanaryDone: @unsafe WireForm {
    init(wire: Pdserve__Wire__CanaryDone) throws(WireError) {
        self.init(
            number: unsafe wire.number,
            outcome: try readValue(unsafe wire.outcome.rawValue, "CanaryDone.outcome"),
            tokens: try unsafe read(
                wire.tokens, 0...WireLimits.canaryTokens, "CanaryDone.tokens"),
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "CanaryDone.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__CanaryDone {
        var wire = unsafe Pdserve__Wire__CanaryDone()
        unsafe pdserve__wire__canary_done__init(&wire)
        unsafe wire.number = number
        unsafe wire.outcome = Pdserve__Wire__CanaryOutcome(UInt32(outcome.rawValue))
        unsafe wire.tokens = try write32(
            tokens, 0...WireLimits.canaryTokens, "CanaryDone.tokens")
        unsafe wire.reason = try arena.writeReason(reason)
        return unsafe wire
    }
}

extension Exit: @unsafe WireForm {
    init(wire: Pdserve__Wire__Exit) throws(WireError) {
        self.init(
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "Exit.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__Exit {
        var wire = unsafe Pdserve__Wire__Exit()
        unsafe pdserve__wire__exit__init(&wire)
        unsafe wire.reason = try arena.writeReason(reason)
        return unsafe wire
    }
}
