import ServingTypes

/// Messages as people say them.
func sentence(_ message: ControlMessage, _ tokens: [TokenID]) -> String {
    switch message {
    case .reserveKV(let message):
        "reserve for \(name(message.terms.attempt)), \(extent(message.terms, tokens))"
            + (message.isFallback ? ", as no decode-worker is left" : "")
    case .reservationGranted(let message):
        "granted \(name(message.attempt)), \(message.kvBytes) tokens" + held(message.heldTokens)
    case .reservationRefused(let message):
        "refused \(name(message.attempt)) (\(message.code)), \(message.freeBytes) tokens free"
    case .prefillOffer(let message):
        "offer \(name(message.terms.attempt)) for "
            + "\(message.target?.instance.name ?? "a place later"), "
            + extent(message.terms, tokens) + held(message.target?.heldTokens ?? 0)
            + (message.isFallback ? ", alone" : "")
    case .placeKV(let message):
        "KV of \(name(message.attempt)) goes to \(message.target.instance)"
            + held(message.target.heldTokens)
    case .moveWanted(let message): "another place for \(name(message.attempt))?"
    case .kvDelivered(let message): "KV of \(name(message.attempt)) has arrived"
    case .holdSequence(let message):
        "hold \(name(message.attempt)) as \(name(message.successorID))"
    case .sequenceHeld(let message):
        "\(name(message.attempt)) is held with \(message.outputTokens) tokens"
    case .prefillAccepted(let message):
        "accepted \(name(message.attempt))"
            + (message.cachedTokens > 0 ? ", \(message.cachedTokens) cached" : "")
    case .prefillRejected(let message): "rejected \(name(message.attempt)) (\(message.code))"
    case .slotsOpen(let message): "free slots: \(message.freePrefillSlots)"
    case .kvRoomOpen(let message): "free room: \(message.freeKVBytes) tokens"
    case .tokenBatch(let message):
        "\(name(message.attempt)) from \(message.firstIndex) on: "
            + list(message.tokens.map(\.token)) + (message.finish.map { ", \($0)" } ?? "")
    case .requestFailed(let message):
        "\(name(message.attempt)) failed (\(message.code)): \(message.reason)"
    case .cancelRequest(let message): "cancel \(name(message.attempt))"
    case .kvOffer(let message):
        "KV offer \(name(message.attempt)), \(message.tokens) tokens"
            + (message.startToken > 0 ? " from \(message.startToken) on" : "")
    case .kvGrant(let message):
        "KV of \(name(message.attempt)) may come from \(message.heldTokens) on, "
            + "\(message.creditBytes) tokens"
    case .kvCredit(let message):
        "KV of \(name(message.attempt)) may come, \(message.bytes) tokens more"
    case .kvResend(let message):
        "KV of \(name(message.attempt)) again from \(message.fromToken) on, "
            + "\(message.creditBytes) tokens: \(message.reason)"
    case .kvChunk(let message):
        "KV of \(name(message.attempt)), \(message.tokenStart)+\(message.tokenCount)"
    case .kvEnd(let message):
        "KV end of \(name(message.attempt)), first token \(message.firstToken.token)"
    case .kvDone(let message):
        "KV of \(name(message.attempt)) " + (message.code.map { "refused (\($0))" } ?? "is whole")
    case .kvAbort(let message): "KV of \(name(message.attempt)) given up"
    default: "\(message.kind)"
    }
}

func list(_ tokens: [TokenID]) -> String {
    tokens.map { "\($0)" }.joined(separator: " ")
}

/// The name a scenario gave to the request.
func letter(_ request: RequestID) -> String {
    UnicodeScalar(UInt32(truncatingIfNeeded: request.low)).map { "\(Character($0))" } ?? "?"
}

private func name(_ attempt: AttemptID) -> String { "\(letter(attempt.request))#\(attempt.number)" }

private func held(_ tokens: Int) -> String { tokens > 0 ? ", \(tokens) held" : "" }

private func extent(_ terms: AttemptTerms, _ tokens: [TokenID]) -> String {
    let output = terms.outputTokens > 0 ? " (\(terms.outputTokens) of them output)" : ""
    return "\(list(tokens))\(output), \(terms.maximumNewTokens) new"
}
