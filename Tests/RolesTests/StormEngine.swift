import InferenceEngine
import KVHandOver
import ServingTypes

/// The engine's rules for KV without the computing, one command or token a step.
struct StormEngine {
    enum Command {
        case importBlock(SequenceID, StormPayload)
        case fork(SequenceID, from: SequenceID, tokens: Int)
        case export(SequenceID, from: Int)
        case run(SequenceJob)
        case hold(SequenceID)
        case cancel(SequenceID)
    }

    private struct Sequence {
        var tokens = 0
        var job: SequenceJob?
        var generated = 0
        var isRetained = false
        var exportedFrom: Int?
        var lastBlockWasRefused = false
    }

    /// Blocks that each sequence was made of.
    private(set) var imported: [SequenceID: [StormPayload]] = [:]
    private(set) var defect = ""
    /// The next sequence that is begun with others' KV is not.
    var refusesFork = false
    private var commands: [Command] = []
    private var sequences: [SequenceID: Sequence] = [:]
    private var refused: Set<SequenceID> = []
    private var ledger = KVLedger()

    var openSequences: Int { sequences.count }
    var usedTokens: Int { ledger.usedTokens }
    var hasCommands: Bool { !commands.isEmpty }
    var isQuiet: Bool {
        commands.isEmpty
            && sequences.values.allSatisfy { $0.isRetained && $0.exportedFrom == nil }
    }

    func tokens(of sequence: SequenceID) -> Int { sequences[sequence]?.tokens ?? 0 }

    mutating func submit(_ command: Command) { commands.append(command) }

    mutating func step(_ generator: inout SeededGenerator) -> EngineEvent? {
        guard commands.isEmpty else { return take(commands.removeFirst()) }
        let running = sequences.filter { $0.value.job != nil || $0.value.exportedFrom != nil }
            .keys.sorted { $0.value < $1.value }
        guard !running.isEmpty else { return nil }
        let id = running[generator.below(running.count)]
        if generator.below(200) == 0 { return fail(id) }
        return sequences[id]?.exportedFrom == nil ? compute(id) : export(id)
    }

    /// Nothing but what was retained and exported goes wrong by itself, and only where faults are
    /// wanted.
    var failures = false

    private mutating func fail(_ id: SequenceID) -> EngineEvent? {
        guard failures else { return nil }
        remove(id)
        return .failed(id, .computeFailed(code: 1))
    }

    private mutating func export(_ id: SequenceID) -> EngineEvent {
        sequences[id]?.exportedFrom = nil
        return .exportEnded(id)
    }

    /// The whole prompt at once, then a token.
    private mutating func compute(_ id: SequenceID) -> EngineEvent? {
        guard let present = sequences[id], let job = present.job else { return nil }
        let generated = present.generated + 1
        add(job.tokens.count + present.generated - present.tokens, to: id)
        sequences[id]?.generated = generated
        let isLast = generated == job.maximumNewTokens
        if isLast {
            if job.retainsKV {
                sequences[id]?.job = nil
                sequences[id]?.isRetained = true
            } else {
                remove(id)
            }
        }
        return .token(id, TokenOutput(token: 8), finish: isLast ? .length : nil)
    }

    private mutating func add(_ tokens: Int, to id: SequenceID) {
        sequences[id, default: Sequence()].tokens += tokens
        ledger.add(tokens, to: id)
    }

    private mutating func remove(_ id: SequenceID) {
        sequences[id] = nil
        ledger.remove(id)
    }

    private mutating func take(_ command: Command) -> EngineEvent? {
        switch command {
        case .importBlock(let id, let payload): return take(payload, for: id)
        case .fork(let id, let retained, let tokens):
            return fork(id, from: retained, tokens: tokens)
        case .export(let id, let start):
            guard let present = sequences[id], present.isRetained, start < present.tokens else {
                defect = "\(id) can't be exported from \(start) on"
                return .failed(id, .invalidJob(reason: "not retained"))
            }
            sequences[id]?.exportedFrom = start
            return nil
        case .run(let job): return start(job)
        case .hold(let id): return hold(id)
        case .cancel(let id):
            refused.remove(id)
            guard sequences[id] != nil else { return nil }
            remove(id)
            return .cancelled(id)
        }
    }

    private mutating func hold(_ id: SequenceID) -> EngineEvent? {
        guard let present = sequences[id], present.job != nil, present.generated > 0 else {
            return nil
        }
        sequences[id]?.job = nil
        sequences[id]?.isRetained = true
        return .held(id)
    }

    private mutating func fork(
        _ id: SequenceID, from retained: SequenceID, tokens: Int
    ) -> EngineEvent {
        guard let present = sequences[retained], present.isRetained, sequences[id] == nil,
            tokens <= present.tokens
        else {
            defect = "\(retained) can't be shared"
            return .blockRefused(id, expectedToken: 0, reason: "not retained")
        }
        guard !refusesFork else {
            refusesFork = false
            refused.insert(id)
            return .blockRefused(id, expectedToken: 0, reason: "not whole")
        }
        sequences[id] = Sequence(tokens: tokens)
        ledger.fork(id, from: retained, tokens: tokens)
        return .imported(id, tokens: tokens)
    }

    private mutating func take(_ payload: StormPayload, for id: SequenceID) -> EngineEvent {
        let present = sequences[id]
        let expected = present?.tokens ?? 0
        guard present?.job == nil, payload.facts.tokenStart == expected, !payload.isCorrupt else {
            if present == nil { refused.insert(id) }
            sequences[id]?.lastBlockWasRefused = true
            return .blockRefused(id, expectedToken: expected, reason: "checksum")
        }
        add(payload.facts.tokenCount, to: id)
        sequences[id]?.lastBlockWasRefused = false
        refused.remove(id)
        imported[id, default: []].append(payload)
        return .imported(id, tokens: payload.facts.tokenEnd)
    }

    private mutating func start(_ job: SequenceJob) -> EngineEvent? {
        let id = job.sequence
        let present = sequences[id]
        if job.importedTokens == present?.tokens ?? 0, present?.job == nil {
            if present == nil { add(0, to: id) }
            sequences[id]?.job = job
            return nil
        }
        guard present?.lastBlockWasRefused ?? refused.contains(id) else {
            defect = "a job without its KV"
            return .failed(id, .invalidJob(reason: "the KV is not there"))
        }
        return nil
    }
}
