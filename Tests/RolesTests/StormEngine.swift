import InferenceEngine
import KVHandOver
import ServingTypes

/// The engine's rules for KV without the computing, one command or token a step.
struct StormEngine {
    enum Command {
        case importBlock(SequenceID, StormPayload)
        case adopt(SequenceID, from: SequenceID, tokens: Int)
        case run(SequenceJob)
        case cancel(SequenceID)
    }

    private struct Sequence {
        var tokens = 0
        var job: SequenceJob?
        var generated = 0
        var isRetained = false
        var lastBlockWasRefused = false
    }

    /// Blocks that each sequence was made of.
    private(set) var imported: [SequenceID: [StormPayload]] = [:]
    private(set) var defect = ""
    private var commands: [Command] = []
    private var sequences: [SequenceID: Sequence] = [:]
    private var refused: Set<SequenceID> = []

    var openSequences: Int { sequences.count }
    var isQuiet: Bool { commands.isEmpty && sequences.values.allSatisfy(\.isRetained) }

    func tokens(of sequence: SequenceID) -> Int { sequences[sequence]?.tokens ?? 0 }

    mutating func submit(_ command: Command) { commands.append(command) }

    mutating func step(_ generator: inout SeededGenerator) -> EngineEvent? {
        guard commands.isEmpty else { return take(commands.removeFirst()) }
        let running = sequences.filter { $0.value.job != nil }.keys
            .sorted { $0.value < $1.value }
        guard !running.isEmpty else { return nil }
        return compute(running[generator.below(running.count)])
    }

    private mutating func compute(_ id: SequenceID) -> EngineEvent? {
        guard let job = sequences[id]?.job else { return nil }
        sequences[id]?.generated += 1
        sequences[id]?.tokens += 1
        let isLast = sequences[id]?.generated == job.maximumNewTokens
        if isLast {
            if job.retainsKV {
                sequences[id]?.job = nil
                sequences[id]?.isRetained = true
            } else {
                sequences[id] = nil
            }
        }
        return .token(id, TokenOutput(token: 8), finish: isLast ? .length : nil)
    }

    private mutating func take(_ command: Command) -> EngineEvent? {
        switch command {
        case .importBlock(let id, let payload): return take(payload, for: id)
        case .adopt(let id, let retained, let tokens):
            guard let present = sequences[retained], present.isRetained, sequences[id] == nil,
                tokens <= present.tokens
            else {
                defect = "\(retained) can't be adopted"
                return .blockRefused(id, expectedToken: 0, reason: "not retained")
            }
            sequences[retained] = nil
            sequences[id] = Sequence(tokens: tokens)
            return .imported(id, tokens: tokens)
        case .run(let job): return start(job)
        case .cancel(let id):
            refused.remove(id)
            return sequences.removeValue(forKey: id) == nil ? nil : .cancelled(id)
        }
    }

    private mutating func take(_ payload: StormPayload, for id: SequenceID) -> EngineEvent {
        let present = sequences[id]
        let expected = present?.tokens ?? 0
        guard present?.job == nil, payload.facts.tokenStart == expected, !payload.isCorrupt else {
            if present == nil { refused.insert(id) }
            sequences[id]?.lastBlockWasRefused = true
            return .blockRefused(id, expectedToken: expected, reason: "checksum")
        }
        sequences[id, default: Sequence()].tokens += payload.facts.tokenCount
        sequences[id]?.lastBlockWasRefused = false
        refused.remove(id)
        imported[id, default: []].append(payload)
        return .imported(id, tokens: payload.facts.tokenEnd)
    }

    private mutating func start(_ job: SequenceJob) -> EngineEvent? {
        let id = job.sequence
        let present = sequences[id]
        if job.importedTokens == present?.tokens ?? 0, present?.job == nil {
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
