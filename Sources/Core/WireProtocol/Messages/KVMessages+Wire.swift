import CProtobufC
import CWireMessages
import ServingTypes

private let someTokens = 1...WireLimits.tokens
private let tokenIndex = 0...WireLimits.tokens
private let credit = 0...WireLimits.memoryBytes
private let chunkBytes = 1...MessageKind.kvChunk.maximumPayloadBytes

extension KVOffer: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVOffer) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            secret: try unsafe readSecret(wire.secret, "KVOffer.secret"),
            fingerprint: try unsafe readFingerprint(wire.fingerprint, "KVOffer.fingerprint"),
            tokens: try unsafe read(wire.tokens, someTokens, "KVOffer.tokens"),
            startToken: try unsafe read(wire.start_token, tokenIndex, "KVOffer.start_token"),
            chunkTokens: try unsafe read(wire.chunk_tokens, someTokens, "KVOffer.chunk_tokens"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVOffer {
        var wire = unsafe Pdserve__Wire__KVOffer()
        unsafe pdserve__wire__kvoffer__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.secret = try arena.writeSecret(secret)
        unsafe wire.fingerprint = try arena.writeFingerprint(fingerprint)
        unsafe wire.tokens = try write32(tokens, someTokens, "KVOffer.tokens")
        unsafe wire.start_token = try write32(startToken, tokenIndex, "KVOffer.start_token")
        unsafe wire.chunk_tokens = try write32(chunkTokens, someTokens, "KVOffer.chunk_tokens")
        return unsafe wire
    }
}

extension KVGrant: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVGrant) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            heldTokens: try unsafe read(wire.held_tokens, tokenIndex, "KVGrant.held_tokens"),
            maximumChunkBytes: try unsafe read(
                wire.maximum_chunk_bytes, chunkBytes, "KVGrant.maximum_chunk_bytes"),
            creditBytes: try unsafe read(
                wire.credit_bytes, credit, "KVGrant.credit_bytes"),
            round: unsafe wire.round,
            local: try unsafe readLocal(wire.local_path, wire.local_token))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVGrant {
        var wire = unsafe Pdserve__Wire__KVGrant()
        unsafe pdserve__wire__kvgrant__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.held_tokens = try write32(heldTokens, tokenIndex, "KVGrant.held_tokens")
        unsafe wire.maximum_chunk_bytes = try write64(
            maximumChunkBytes, chunkBytes, "KVGrant.maximum_chunk_bytes")
        unsafe wire.credit_bytes = try write64(
            creditBytes, credit, "KVGrant.credit_bytes")
        unsafe wire.round = round
        guard let local else { return unsafe wire }
        unsafe wire.local_path = try arena.writeName(
            local.path, limit: WireLimits.pathBytes, "KVGrant.local_path")
        unsafe wire.local_token = try arena.writeBytes(
            local.token, count: LocalCarrier.tokenBytes, "KVGrant.local_token")
        return unsafe wire
    }
}

private func readLocal(
    _ path: ProtobufCBinaryData, _ token: ProtobufCBinaryData
) throws(WireError) -> LocalCarrier? {
    guard unsafe path.len > 0 || token.len > 0 else { return nil }
    return LocalCarrier(
        path: try unsafe readName(path, limit: WireLimits.pathBytes, "KVGrant.local_path"),
        token: try unsafe readBytes(
            token, count: LocalCarrier.tokenBytes, "KVGrant.local_token"))
}

extension KVChunk: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVChunk) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            tokenStart: try unsafe read(wire.token_start, tokenIndex, "KVChunk.token_start"),
            tokenCount: try unsafe read(wire.token_count, someTokens, "KVChunk.token_count"),
            checksum: unsafe wire.checksum, round: unsafe wire.round)
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVChunk {
        var wire = unsafe Pdserve__Wire__KVChunk()
        unsafe pdserve__wire__kvchunk__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.token_start = try write32(tokenStart, tokenIndex, "KVChunk.token_start")
        unsafe wire.token_count = try write32(tokenCount, someTokens, "KVChunk.token_count")
        unsafe wire.checksum = checksum
        unsafe wire.round = round
        return unsafe wire
    }
}

extension KVEnd: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVEnd) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            tokens: try unsafe read(wire.tokens, someTokens, "KVEnd.tokens"),
            firstToken: try unsafe readForm(wire.first_token, "KVEnd.first_token"),
            digest: unsafe wire.digest)
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVEnd {
        var wire = unsafe Pdserve__Wire__KVEnd()
        unsafe pdserve__wire__kvend__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.tokens = try write32(tokens, someTokens, "KVEnd.tokens")
        unsafe wire.first_token = try arena.writeForm(firstToken)
        unsafe wire.digest = digest
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

extension KVMemoryChunk: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVMemoryChunk) throws(WireError) {
        self.init(
            chunk: KVChunk(
                attempt: try unsafe readForm(wire.attempt, "attempt"),
                tokenStart: try unsafe read(
                    wire.token_start, tokenIndex, "KVMemoryChunk.token_start"),
                tokenCount: try unsafe read(
                    wire.token_count, someTokens, "KVMemoryChunk.token_count"),
                checksum: unsafe wire.checksum, round: unsafe wire.round),
            number: unsafe wire.number,
            bytes: try unsafe read(wire.bytes, chunkBytes, "KVMemoryChunk.bytes"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVMemoryChunk {
        var wire = unsafe Pdserve__Wire__KVMemoryChunk()
        unsafe pdserve__wire__kvmemory_chunk__init(&wire)
        unsafe wire.attempt = try arena.writeForm(chunk.attempt)
        unsafe wire.token_start = try write32(
            chunk.tokenStart, tokenIndex, "KVMemoryChunk.token_start")
        unsafe wire.token_count = try write32(
            chunk.tokenCount, someTokens, "KVMemoryChunk.token_count")
        unsafe wire.checksum = chunk.checksum
        unsafe wire.round = chunk.round
        unsafe wire.number = number
        unsafe wire.bytes = try write64(bytes, chunkBytes, "KVMemoryChunk.bytes")
        return unsafe wire
    }
}

extension KVCredit: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVCredit) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            bytes: try unsafe read(wire.bytes, credit, "KVCredit.bytes"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVCredit {
        var wire = unsafe Pdserve__Wire__KVCredit()
        unsafe pdserve__wire__kvcredit__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.bytes = try write64(bytes, credit, "KVCredit.bytes")
        return unsafe wire
    }
}

extension KVResend: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVResend) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            fromToken: try unsafe read(wire.from_token, tokenIndex, "KVResend.from_token"),
            creditBytes: try unsafe read(
                wire.credit_bytes, credit, "KVResend.credit_bytes"),
            round: unsafe wire.round,
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "KVResend.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVResend {
        var wire = unsafe Pdserve__Wire__KVResend()
        unsafe pdserve__wire__kvresend__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.from_token = try write32(fromToken, tokenIndex, "KVResend.from_token")
        unsafe wire.credit_bytes = try write64(
            creditBytes, credit, "KVResend.credit_bytes")
        unsafe wire.round = round
        unsafe wire.reason = try arena.writeReason(reason)
        return unsafe wire
    }
}
