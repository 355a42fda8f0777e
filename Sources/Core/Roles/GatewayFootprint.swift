import ServingTypes

/// What a request waits for, or a worker gives.
enum GatewayNeed: Int, Sendable, CaseIterable {
    /// A slot in which its prompt is computed.
    case prompts
    /// Room for its KV, and a place in a batch.
    case sequences
}

struct GatewayNeeds: OptionSet, Hashable, Sendable {
    let rawValue: Int

    static let prompts = GatewayNeeds(.prompts)
    static let sequences = GatewayNeeds(.sequences)

    init(rawValue: Int) { self.rawValue = rawValue }
    init(_ need: GatewayNeed) { rawValue = 1 << need.rawValue }

    func contains(_ need: GatewayNeed) -> Bool { contains(GatewayNeeds(need)) }
}

/// Where one request shows up in the gateway's lists.
struct GatewayFootprint: Hashable, Sendable {
    struct Question: Hashable, Sendable {
        var instance: InstanceID
        var need: GatewayNeed
    }

    var group: GroupID?
    var waitsFor: GatewayNeeds
    /// The next moment at which its deadlines matter.
    var timer: MonotonicTime
    /// The prefill-worker it depends on, and the one whose work it is.
    var prefill: InstanceID?
    var openPrompt: InstanceID?
    /// The decode-worker that keeps room for it, or is asked to.
    var decode: InstanceID?
    /// The worker whose answer it waits for.
    var asked: Question?
    var isPlaced: Bool

    init(_ flight: GatewayFlight, limits: GatewayLimits) {
        group = flight.group
        waitsFor = flight.waitsFor
        if limits.beginsWithoutRoom, flight.isUnbound { waitsFor = [.prompts, .sequences] }
        decode = flight.decode
        prefill = flight.prefill.flatMap { flight.needs($0) ? $0 : nil }
        openPrompt = flight.decodeHasWritten ? nil : flight.prefill
        isPlaced = if case .accepted = flight.slot { true } else { false }
        timer = flight.endDeadline
        if case .asked(let target, let since) = flight.room {
            asked = Question(instance: target.instance, need: .sequences)
            timer = min(timer, since + limits.answerDeadline)
        } else if case .offered(let instance, let since) = flight.slot {
            asked = Question(instance: instance, need: .prompts)
            timer = min(timer, since + limits.answerDeadline)
        } else if !waitsFor.isEmpty {
            timer = min(timer, flight.placementDeadline)
            if let latest = flight.latestStart { timer = min(timer, latest) }
            if flight.looksAgain || !flight.refused.isEmpty {
                timer = min(timer, flight.askAgainAt)
            }
        }
    }
}
