import CProtobufC
import CWireMessages
import ServingTypes

extension TokenLogprob: @unsafe WireForm {
    init(wire: Pdserve__Wire__TokenLogprob) throws(WireError) {
        unsafe self.init(token: wire.token, logprob: wire.logprob)
        try check()
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__TokenLogprob {
        try check()
        var wire = unsafe Pdserve__Wire__TokenLogprob()
        unsafe pdserve__wire__token_logprob__init(&wire)
        unsafe wire.token = token
        unsafe wire.logprob = logprob
        return unsafe wire
    }

    private func check() throws(WireError) {
        guard token >= 0 else { throw .outOfRange(field: "TokenLogprob.token") }
        guard logprob.isFinite else { throw .outOfRange(field: "TokenLogprob.logprob") }
    }
}

extension TokenOutput: @unsafe WireForm {
    init(wire: Pdserve__Wire__TokenOutput) throws(WireError) {
        self.init(
            token: unsafe wire.token,
            logprob: unsafe wire.has_logprob == 0 ? nil : wire.logprob,
            alternatives: try unsafe readForms(
                wire.alternatives, count: wire.n_alternatives, limit: WireLimits.alternatives,
                "TokenOutput.alternatives"))
        try check()
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__TokenOutput {
        try check()
        var wire = unsafe Pdserve__Wire__TokenOutput()
        unsafe pdserve__wire__token_output__init(&wire)
        unsafe wire.token = token
        if let logprob {
            unsafe wire.has_logprob = 1
            unsafe wire.logprob = logprob
        }
        unsafe wire.alternatives = try arena.writeForms(
            alternatives, limit: WireLimits.alternatives, "TokenOutput.alternatives")
        unsafe wire.n_alternatives = alternatives.count
        return unsafe wire
    }

    private func check() throws(WireError) {
        guard token >= 0 else { throw .outOfRange(field: "TokenOutput.token") }
        if let logprob, !logprob.isFinite { throw .outOfRange(field: "TokenOutput.logprob") }
    }
}

extension TokenBatch: @unsafe WireForm {
    init(wire: Pdserve__Wire__TokenBatch) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            firstIndex: try unsafe read(
                wire.first_index, 0...WireLimits.tokens, "TokenBatch.first_index"),
            tokens: try unsafe readForms(
                wire.tokens, count: wire.n_tokens, limit: WireLimits.batchTokens,
                "TokenBatch.tokens"),
            finish: try readOptionalValue(unsafe wire.finish.rawValue, "TokenBatch.finish"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__TokenBatch {
        var wire = unsafe Pdserve__Wire__TokenBatch()
        unsafe pdserve__wire__token_batch__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.first_index = try write32(
            firstIndex, 0...WireLimits.tokens, "TokenBatch.first_index")
        unsafe wire.tokens = try arena.writeForms(
            tokens, limit: WireLimits.batchTokens, "TokenBatch.tokens")
        unsafe wire.n_tokens = tokens.count
        if let finish {
            unsafe wire.finish = Pdserve__Wire__FinishReason(UInt32(finish.rawValue))
        }
        return unsafe wire
    }
}

extension RequestFailed: @unsafe WireForm {
    init(wire: Pdserve__Wire__RequestFailed) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            code: try readValue(unsafe wire.code.rawValue, "RequestFailed.code"),
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "RequestFailed.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__RequestFailed {
        var wire = unsafe Pdserve__Wire__RequestFailed()
        unsafe pdserve__wire__request_failed__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.code = Pdserve__Wire__FailureCode(UInt32(code.rawValue))
        unsafe wire.reason = try arena.writeReason(reason)
        return unsafe wire
    }
}

extension CancelRequest: @unsafe WireForm {
    init(wire: Pdserve__Wire__CancelRequest) throws(WireError) {
        self.init(attempt: try unsafe readForm(wire.attempt, "attempt"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__CancelRequest {
        var wire = unsafe Pdserve__Wire__CancelRequest()
        unsafe pdserve__wire__cancel_request__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        return unsafe wire
    }
}
