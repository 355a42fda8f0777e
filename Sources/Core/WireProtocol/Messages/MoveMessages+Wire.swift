import CProtobufC
import CWireMessages
import ServingTypes

extension MoveWanted: @unsafe WireForm {
    init(wire: Pdserve__Wire__MoveWanted) throws(WireError) {
        self.init(attempt: try unsafe readForm(wire.attempt, "attempt"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__MoveWanted {
        var wire = unsafe Pdserve__Wire__MoveWanted()
        unsafe pdserve__wire__move_wanted__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        return unsafe wire
    }
}

extension HoldSequence: @unsafe WireForm {
    init(wire: Pdserve__Wire__HoldSequence) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            successor: unsafe wire.successor)
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__HoldSequence {
        var wire = unsafe Pdserve__Wire__HoldSequence()
        unsafe pdserve__wire__hold_sequence__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.successor = successor
        return unsafe wire
    }
}

extension SequenceHeld: @unsafe WireForm {
    init(wire: Pdserve__Wire__SequenceHeld) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            successor: unsafe wire.successor,
            outputTokens: try unsafe read(
                wire.output_tokens, 0...WireLimits.tokens, "SequenceHeld.output_tokens"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__SequenceHeld {
        var wire = unsafe Pdserve__Wire__SequenceHeld()
        unsafe pdserve__wire__sequence_held__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.successor = successor
        unsafe wire.output_tokens = try write32(
            outputTokens, 0...WireLimits.tokens, "SequenceHeld.output_tokens")
        return unsafe wire
    }
}

extension KVDelivered: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVDelivered) throws(WireError) {
        self.init(attempt: try unsafe readForm(wire.attempt, "attempt"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVDelivered {
        var wire = unsafe Pdserve__Wire__KVDelivered()
        unsafe pdserve__wire__kvdelivered__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        return unsafe wire
    }
}
