import CProtobufC
import CWireMessages
import ServingTypes

private let memory = 0...WireLimits.memoryBytes

extension AttemptID: @unsafe WireForm {
    init(wire: Pdserve__Wire__AttemptID) throws(WireError) {
        self.init(
            request: RequestID(high: unsafe wire.request_high, low: unsafe wire.request_low),
            number: unsafe wire.number)
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__AttemptID {
        var wire = unsafe Pdserve__Wire__AttemptID()
        unsafe pdserve__wire__attempt_id__init(&wire)
        unsafe wire.request_high = request.high
        unsafe wire.request_low = request.low
        unsafe wire.number = number
        return unsafe wire
    }
}

extension LogitBias: @unsafe WireForm {
    init(wire: Pdserve__Wire__LogitBias) throws(WireError) {
        unsafe self.init(token: wire.token, bias: wire.bias)
        try check()
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__LogitBias {
        try check()
        var wire = unsafe Pdserve__Wire__LogitBias()
        unsafe pdserve__wire__logit_bias__init(&wire)
        unsafe wire.token = token
        unsafe wire.bias = bias
        return unsafe wire
    }

    private func check() throws(WireError) {
        _ = try checked(token, 0...TokenID.max, "LogitBias.token")
        _ = try checked(bias, -WireLimits.logitBias...WireLimits.logitBias, "LogitBias.bias")
    }
}

extension SamplingParameters: @unsafe WireForm {
    init(wire: Pdserve__Wire__SamplingParameters) throws(WireError) {
        self.init()
        temperature = unsafe wire.temperature
        topK = unsafe wire.top_k
        topP = unsafe wire.top_p
        minP = unsafe wire.min_p
        repeatPenalty = unsafe wire.repeat_penalty
        penaltyWindowTokens = unsafe wire.penalty_window_tokens
        frequencyPenalty = unsafe wire.frequency_penalty
        presencePenalty = unsafe wire.presence_penalty
        seed = unsafe wire.seed
        logitBias = try unsafe readForms(
            wire.logit_bias, count: wire.n_logit_bias, limit: WireLimits.logitBiases,
            "SamplingParameters.logit_bias")
        let alternatives = Int(unsafe wire.top_logprobs_plus_one)
        topLogprobs = alternatives == 0 ? nil : alternatives - 1
        ignoresEndOfGeneration = unsafe wire.ignores_end_of_generation != 0
        try check()
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__SamplingParameters {
        try check()
        var wire = unsafe Pdserve__Wire__SamplingParameters()
        unsafe pdserve__wire__sampling_parameters__init(&wire)
        unsafe wire.temperature = temperature
        unsafe wire.top_k = topK
        unsafe wire.top_p = topP
        unsafe wire.min_p = minP
        unsafe wire.repeat_penalty = repeatPenalty
        unsafe wire.penalty_window_tokens = penaltyWindowTokens
        unsafe wire.frequency_penalty = frequencyPenalty
        unsafe wire.presence_penalty = presencePenalty
        unsafe wire.seed = seed
        unsafe wire.logit_bias = try arena.writeForms(
            logitBias, limit: WireLimits.logitBiases, "SamplingParameters.logit_bias")
        unsafe wire.n_logit_bias = logitBias.count
        if let topLogprobs { unsafe wire.top_logprobs_plus_one = UInt32(topLogprobs + 1) }
        unsafe wire.ignores_end_of_generation = ignoresEndOfGeneration ? 1 : 0
        return unsafe wire
    }

    /// Every range of the type's documentation; a comparison with NaN is false, so NaN fails too.
    private func check() throws(WireError) {
        let tokens = Int32(WireLimits.tokens)
        _ = try checked(temperature, 0...2, "SamplingParameters.temperature")
        _ = try checked(topK, 0...tokens, "SamplingParameters.top_k")
        _ = try checked(topP, 0...1, "SamplingParameters.top_p")
        _ = try checked(minP, 0...1, "SamplingParameters.min_p")
        // Zero would divide by it.
        _ = try checked(
            repeatPenalty, Float.leastNormalMagnitude...WireLimits.repeatPenalty,
            "SamplingParameters.repeat_penalty")
        _ = try checked(
            penaltyWindowTokens, -1...tokens, "SamplingParameters.penalty_window_tokens")
        _ = try checked(frequencyPenalty, -2...2, "SamplingParameters.frequency_penalty")
        _ = try checked(presencePenalty, -2...2, "SamplingParameters.presence_penalty")
        _ = try checked(
            topLogprobs ?? 0, 0...WireLimits.alternatives,
            "SamplingParameters.top_logprobs_plus_one")
    }
}

extension AttemptTerms {
    fileprivate init(
        attempt: UnsafeMutablePointer<Pdserve__Wire__AttemptID>?, outputTokens: UInt32,
        maximumNewTokens: UInt32,
        sampling: UnsafeMutablePointer<Pdserve__Wire__SamplingParameters>?,
        deadlineMilliseconds: UInt64
    ) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(attempt, "attempt"),
            outputTokens: try read(outputTokens, 0...WireLimits.tokens, "output_tokens"),
            maximumNewTokens: try read(
                maximumNewTokens, 1...WireLimits.tokens, "maximum_new_tokens"),
            sampling: try unsafe readForm(sampling, "sampling"),
            deadline: try readMilliseconds(deadlineMilliseconds, "deadline_milliseconds"))
    }
}

extension ReserveKV: @unsafe WireForm {
    init(wire: Pdserve__Wire__ReserveKV) throws(WireError) {
        self.init(
            terms: try unsafe AttemptTerms(
                attempt: wire.attempt, outputTokens: wire.output_tokens,
                maximumNewTokens: wire.maximum_new_tokens, sampling: wire.sampling,
                deadlineMilliseconds: wire.deadline_milliseconds),
            isFallback: unsafe wire.is_fallback != 0)
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__ReserveKV {
        var wire = unsafe Pdserve__Wire__ReserveKV()
        unsafe pdserve__wire__reserve_kv__init(&wire)
        unsafe wire.attempt = try arena.writeForm(terms.attempt)
        unsafe wire.output_tokens = try write32(
            terms.outputTokens, 0...WireLimits.tokens, "output_tokens")
        unsafe wire.maximum_new_tokens = try write32(
            terms.maximumNewTokens, 1...WireLimits.tokens, "maximum_new_tokens")
        unsafe wire.sampling = try arena.writeForm(terms.sampling)
        unsafe wire.deadline_milliseconds = try writeMilliseconds(
            terms.deadline, "deadline_milliseconds")
        unsafe wire.is_fallback = isFallback ? 1 : 0
        return unsafe wire
    }
}

extension ReservationGranted: @unsafe WireForm {
    init(wire: Pdserve__Wire__ReservationGranted) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            secret: try unsafe readSecret(wire.secret, "ReservationGranted.secret"),
            kvBytes: try unsafe read(wire.kv_bytes, memory, "ReservationGranted.kv_bytes"),
            heldTokens: try unsafe read(
                wire.held_tokens, 0...WireLimits.tokens, "ReservationGranted.held_tokens"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__ReservationGranted {
        var wire = unsafe Pdserve__Wire__ReservationGranted()
        unsafe pdserve__wire__reservation_granted__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.secret = try arena.writeSecret(secret)
        unsafe wire.kv_bytes = try write64(kvBytes, memory, "ReservationGranted.kv_bytes")
        unsafe wire.held_tokens = try write32(
            heldTokens, 0...WireLimits.tokens, "ReservationGranted.held_tokens")
        return unsafe wire
    }
}

extension ReservationRefused: @unsafe WireForm {
    init(wire: Pdserve__Wire__ReservationRefused) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            code: try readValue(unsafe wire.code.rawValue, "ReservationRefused.code"),
            neededBytes: try unsafe read(
                wire.needed_bytes, memory, "ReservationRefused.needed_bytes"),
            freeBytes: try unsafe read(
                wire.free_bytes, memory, "ReservationRefused.free_bytes"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__ReservationRefused {
        var wire = unsafe Pdserve__Wire__ReservationRefused()
        unsafe pdserve__wire__reservation_refused__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.code = Pdserve__Wire__FailureCode(UInt32(code.rawValue))
        unsafe wire.needed_bytes = try write64(
            neededBytes, memory, "ReservationRefused.needed_bytes")
        unsafe wire.free_bytes = try write64(freeBytes, memory, "ReservationRefused.free_bytes")
        return unsafe wire
    }
}

extension PrefillOffer: @unsafe WireForm {
    init(wire: Pdserve__Wire__PrefillOffer) throws(WireError) {
        self.init(
            terms: try unsafe AttemptTerms(
                attempt: wire.attempt, outputTokens: wire.output_tokens,
                maximumNewTokens: wire.maximum_new_tokens, sampling: wire.sampling,
                deadlineMilliseconds: wire.deadline_milliseconds),
            target: try unsafe Self.readTarget(wire),
            isFallback: unsafe wire.is_fallback != 0)
    }

    /// Without an instance there is no target, so nothing else of one may be there.
    private static func readTarget(_ wire: Pdserve__Wire__PrefillOffer) throws(WireError)
        -> KVTarget?
    {
        let isAbsent =
            unsafe wire.decode_instance.len == 0 && wire.decode_host.len == 0
            && wire.decode_port == 0 && wire.secret.len == 0 && wire.held_tokens == 0
        if isAbsent { return nil }
        return KVTarget(
            instance: try unsafe readInstance(
                wire.decode_instance, "PrefillOffer.decode_instance"),
            bulkAddress: NetworkAddress(
                host: try unsafe readName(
                    wire.decode_host, limit: WireLimits.hostBytes, "PrefillOffer.decode_host"),
                port: try unsafe read(wire.decode_port, 0...65535, "PrefillOffer.decode_port")),
            secret: try unsafe readSecret(wire.secret, "PrefillOffer.secret"),
            heldTokens: try unsafe read(
                wire.held_tokens, 0...WireLimits.tokens, "PrefillOffer.held_tokens"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__PrefillOffer {
        var wire = unsafe Pdserve__Wire__PrefillOffer()
        unsafe pdserve__wire__prefill_offer__init(&wire)
        unsafe wire.attempt = try arena.writeForm(terms.attempt)
        unsafe wire.output_tokens = try write32(
            terms.outputTokens, 0...WireLimits.tokens, "output_tokens")
        unsafe wire.maximum_new_tokens = try write32(
            terms.maximumNewTokens, 1...WireLimits.tokens, "maximum_new_tokens")
        unsafe wire.sampling = try arena.writeForm(terms.sampling)
        unsafe wire.deadline_milliseconds = try writeMilliseconds(
            terms.deadline, "deadline_milliseconds")
        unsafe wire.is_fallback = isFallback ? 1 : 0
        guard let target else { return unsafe wire }
        unsafe wire.decode_instance = try arena.writeInstance(
            target.instance, "PrefillOffer.decode_instance")
        unsafe wire.decode_host = try arena.writeName(
            target.bulkAddress.host, limit: WireLimits.hostBytes, "PrefillOffer.decode_host")
        unsafe wire.decode_port = try write32(
            target.bulkAddress.port, 0...65535, "PrefillOffer.decode_port")
        unsafe wire.secret = try arena.writeSecret(target.secret)
        unsafe wire.held_tokens = try write32(
            target.heldTokens, 0...WireLimits.tokens, "PrefillOffer.held_tokens")
        return unsafe wire
    }
}

extension KVTarget: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVTarget) throws(WireError) {
        self.init(
            instance: try unsafe readInstance(wire.instance, "KVTarget.instance"),
            bulkAddress: NetworkAddress(
                host: try unsafe readName(
                    wire.bulk_host, limit: WireLimits.hostBytes, "KVTarget.bulk_host"),
                port: try unsafe read(wire.bulk_port, 0...65535, "KVTarget.bulk_port")),
            secret: try unsafe readSecret(wire.secret, "KVTarget.secret"),
            heldTokens: try unsafe read(
                wire.held_tokens, 0...WireLimits.tokens, "KVTarget.held_tokens"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVTarget {
        var wire = unsafe Pdserve__Wire__KVTarget()
        unsafe pdserve__wire__kvtarget__init(&wire)
        unsafe wire.instance = try arena.writeInstance(instance, "KVTarget.instance")
        unsafe wire.bulk_host = try arena.writeName(
            bulkAddress.host, limit: WireLimits.hostBytes, "KVTarget.bulk_host")
        unsafe wire.bulk_port = try write32(bulkAddress.port, 0...65535, "KVTarget.bulk_port")
        unsafe wire.secret = try arena.writeSecret(secret)
        unsafe wire.held_tokens = try write32(
            heldTokens, 0...WireLimits.tokens, "KVTarget.held_tokens")
        return unsafe wire
    }
}

extension PlaceKV: @unsafe WireForm {
    init(wire: Pdserve__Wire__PlaceKV) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            target: try unsafe readForm(wire.target, "PlaceKV.target"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__PlaceKV {
        var wire = unsafe Pdserve__Wire__PlaceKV()
        unsafe pdserve__wire__place_kv__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.target = try arena.writeForm(target)
        return unsafe wire
    }
}

extension PrefillAccepted: @unsafe WireForm {
    init(wire: Pdserve__Wire__PrefillAccepted) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            cachedTokens: try unsafe read(
                wire.cached_tokens, 0...WireLimits.tokens, "PrefillAccepted.cached_tokens"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__PrefillAccepted {
        var wire = unsafe Pdserve__Wire__PrefillAccepted()
        unsafe pdserve__wire__prefill_accepted__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.cached_tokens = try write32(
            cachedTokens, 0...WireLimits.tokens, "PrefillAccepted.cached_tokens")
        return unsafe wire
    }
}

extension PrefillRejected: @unsafe WireForm {
    init(wire: Pdserve__Wire__PrefillRejected) throws(WireError) {
        self.init(
            attempt: try unsafe readForm(wire.attempt, "attempt"),
            code: try readValue(unsafe wire.code.rawValue, "PrefillRejected.code"),
            reason: try unsafe readText(
                wire.reason, limit: WireLimits.reasonBytes, "PrefillRejected.reason"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__PrefillRejected {
        var wire = unsafe Pdserve__Wire__PrefillRejected()
        unsafe pdserve__wire__prefill_rejected__init(&wire)
        unsafe wire.attempt = try arena.writeForm(attempt)
        unsafe wire.code = Pdserve__Wire__FailureCode(UInt32(code.rawValue))
        unsafe wire.reason = try arena.writeReason(reason)
        return unsafe wire
    }
}

extension SlotsOpen: @unsafe WireForm {
    init(wire: Pdserve__Wire__SlotsOpen) throws(WireError) {
        self.init(
            freePrefillSlots: try unsafe read(
                wire.free_prefill_slots, 0...WireLimits.slots, "SlotsOpen.free_prefill_slots"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__SlotsOpen {
        var wire = unsafe Pdserve__Wire__SlotsOpen()
        unsafe pdserve__wire__slots_open__init(&wire)
        unsafe wire.free_prefill_slots = try write32(
            freePrefillSlots, 0...WireLimits.slots, "SlotsOpen.free_prefill_slots")
        return unsafe wire
    }
}

extension KVRoomOpen: @unsafe WireForm {
    init(wire: Pdserve__Wire__KVRoomOpen) throws(WireError) {
        self.init(
            freeKVBytes: try unsafe read(wire.free_kv_bytes, memory, "KVRoomOpen.free_kv_bytes"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__KVRoomOpen {
        var wire = unsafe Pdserve__Wire__KVRoomOpen()
        unsafe pdserve__wire__kvroom_open__init(&wire)
        unsafe wire.free_kv_bytes = try write64(freeKVBytes, memory, "KVRoomOpen.free_kv_bytes")
        return unsafe wire
    }
}
