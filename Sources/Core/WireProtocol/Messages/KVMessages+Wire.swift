import CProtobufC
import CWireMessages
import ServingTypes

private let someTokens = 1...WireLimits.tokens

extension KVOffer: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVOffer) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            secret: try unsafe readSecret(wire.secret, "KVOffer.secret"),
            fingerprint: try unsafe readFingerprint(wire.fingerprint, "KVOffer.fingerprint"),
            tokens: try unsafe read(wire.tokens, someTokens, "KVOffer.tokens"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVOffer {
        var wire = unsafe Pdserve__Wire__KVOffer()
        unsafe pdserve__wire__kvoffer__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.secret = try arena.writeSecret(secret)
        unsafe wire.fingerprint = try arena.writeFingerprint(fingerprint)
        unsafe wire.tokens = try write32(tokens, someTokens, "KVOffer.tokens")
        return unsafe wire
    }
}

extension KVGrant: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVGrant) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            heldTokens: try unsafe read(
                wire.held_tokens, 0...WireLimits.tokens, "KVGrant.held_tokens"),
            maximumChunkBytes: try unsafe read(
                wire.maximum_chunk_bytes, Self.chunkBytes, "KVGrant.maximum_chunk_bytes"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVGrant {
        var wire = unsafe Pdserve__Wire__KVGrant()
        unsafe pdserve__wire__kvgrant__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.held_tokens = try write32(
            heldTokens, 0...WireLimits.tokens, "KVGrant.held_tokens")
        unsafe wire.maximum_chunk_bytes = try write64(
            maximumChunkBytes, Self.chunkBytes, "KVGrant.maximum_chunk_bytes")
        return unsafe wire
    }

    private static let chunkBytes = 1...MessageKind.kvChunk.maximumPayloadBytes
}

extension KVChunk: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVChunk) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            tokenStart: try unsafe read(
                wire.token_start, 0...WireLimits.tokens, "KVChunk.token_start"),
            tokenCount: try unsafe read(wire.token_count, someTokens, "KVChunk.token_count"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVChunk {
        var wire = unsafe Pdserve__Wire__KVChunk()
        unsafe pdserve__wire__kvchunk__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.token_start = try write32(
            tokenStart, 0...WireLimits.tokens, "KVChunk.token_start")
        unsafe wire.token_count = try write32(tokenCount, someTokens, "KVChunk.token_count")
        return unsafe wire
    }
}

extension KVEnd: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVEnd) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            tokens: try unsafe read(wire.tokens, someTokens, "KVEnd.tokens"),
            firstToken: try unsafe readForm(wire.first_token, "KVEnd.first_token"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVEnd {
        var wire = unsafe Pdserve__Wire__KVEnd()
        unsafe pdserve__wire__kvend__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.tokens = try write32(tokens, someTokens, "KVEnd.tokens")
        unsafe wire.first_token = try arena.writeForm(firstToken)
        return unsafe wire
    }
}

extension KVDone: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVDone) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            code: try readOptionalValue(unsafe wire.code.rawValue, "KVDone.code"),
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "KVDone.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVDone {
        var wire = unsafe Pdserve__Wire__KVDone()
        unsafe pdserve__wire__kvdone__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        if let code { unsafe wire.code = Pdserve__Wire__FailureCode(UInt32(code.rawValue)) }
        unsafe wire.reason = try arena.writeReason(reason)
        return unsafe wire
    }
}

extension KVAbort: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVAbort) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "KVAbort.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVAbort {
        var wire = unsafe Pdserve__Wire__KVAbort()
        unsafe pdserve__wire__kvabort__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.reason = try arena.writeReason(reason)
        return unsafe wire
    }
}
