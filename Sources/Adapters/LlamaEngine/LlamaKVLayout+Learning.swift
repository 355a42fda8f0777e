import CLlama
import InferenceEngine

extension LlamaContext {
    /// Computes a few tokens to see how libllama writes states; also warms the model up.
    ///
    /// - Throws: `EngineError.modelNotSupported` where ranges of the state can't be handed over.
    func learnLayout() throws(EngineError) -> LlamaKVLayout {
        defer { removeAll() }
        for position in 0..<2 { try computeOne(position: position, sequence: 0) }
        let one = exportState(sequence: 0, range: 0..<1)
        let two = exportState(sequence: 0, range: 0..<2)
        let layout = unsafe one.withUnsafeBytes { one in
            unsafe two.withUnsafeBytes { unsafe LlamaKVLayout(one: one, two: $0) }
        }
        guard var layout else { throw model.refusal("keeps its KV in an unknown layout") }
        if let window = model.windowTokens {
            let state = try probeWindow(tokens: window)
            let isKnown = unsafe state.withUnsafeBytes {
                unsafe layout.learnWindow(tokens: window, from: $0)
            }
            guard isKnown else {
                throw model.refusal("attends to a window of \(window) tokens of an unknown kind")
            }
        }
        // Indexers of sparse attention keep a further cache, which no test has handed over yet.
        guard layout.tables.count(where: { $0.window == .whole }) == 1, layout.tables.count <= 2
        else { throw model.refusal("keeps further caches beside its keys and values") }
        return layout
    }

    /// The state of a sequence of which only positions 0, 1 and `tokens` were computed.
    private func probeWindow(tokens: Int) throws(EngineError) -> [UInt8] {
        removeAll()
        for position in 0..<2 { try computeOne(position: position, sequence: 0) }
        // Positions of a sequence have no gaps while it is computed; so another one has the last.
        try computeOne(position: tokens, sequence: Int(spareSequence))
        unsafe llama_memory_seq_cp(memory, spareSequence, 0, Int32(tokens), Int32(tokens + 1))
        remove(sequence: spareSequence)
        return exportState(sequence: 0, range: 0..<tokens + 1)
    }

    private func computeOne(position: Int, sequence: Int) throws(EngineError) {
        clearBatch()
        add(token: 0, position: position, sequence: sequence, wantsLogits: true)
        try compute()
    }
}

extension LlamaKVLayout {
    /// Learns the caches from the states of token 0 alone and of tokens 0 and 1.
    ///
    /// Nil if the states don't look as this version of libllama writes them.
    init?(one: UnsafeRawBufferPointer, two: UnsafeRawBufferPointer) {
        let readings = unsafe LlamaKVTable.readings(of: two, from: Self.stateHeaderBytes)
            .filter { caches in caches.allSatisfy { $0.positions == [0, 1] } }
        guard readings.count == 1, let caches = readings.first, !caches.isEmpty else { return nil }
        tables = caches.map(\.table)
        guard tokenBytes > cellBytes, one.count == stateBytes(of: 0..<1) else { return nil }
    }

    /// Learns each cache's window from the state of a sequence with positions 0, 1 and `tokens`.
    mutating func learnWindow(tokens: Int, from state: UnsafeRawBufferPointer) -> Bool {
        let readings = unsafe LlamaKVTable.readings(of: state, from: Self.stateHeaderBytes)
        guard tokens >= 2,
            let caches = readings.first(where: { $0.map(\.table) == tables })
        else { return false }
        for (index, cache) in caches.enumerated() {
            switch cache.positions {
            case [0, 1, tokens]: tables[index].window = .whole
            case [1, tokens]: tables[index].window = .sliding(tokens: tokens)
            case [tokens]: tables[index].window = .chunks(tokens: tokens)
            default: return false
            }
        }
        return true
    }

    /// What keeping all KV of the layers with a window costs; nil for models without a window.
    func windowUse(settings: LlamaEngine.Settings) -> LlamaEngine.WindowUse? {
        for table in tables {
            switch table.window {
            case .whole: continue
            case .sliding(let tokens), .chunks(let tokens):
                let all = settings.kvCapacityTokens.roundedUp(toMultipleOf: Limits.cellPadding)
                let (ofSequences, overflows) = tokens.multipliedReportingOverflow(
                    by: settings.maximumSequences + 1)
                let needed =
                    overflows
                    ? all
                    : min(all, ofSequences + settings.microBatchTokens)
                        .roundedUp(toMultipleOf: Limits.cellPadding)
                return LlamaEngine.WindowUse(
                    windowTokens: tokens, bytesPerToken: table.rowBytes,
                    fullBytes: all * table.rowBytes, neededBytes: needed * table.rowBytes)
            }
        }
        return nil
    }
}

extension LlamaKVLayout: CustomStringConvertible {
    /// Part of the fingerprint: differs wherever states can't be exchanged.
    var description: String {
        tables.map { table in
            let rows =
                (table.keys.map { "k\($0.type):\($0.bytes)" }
                + table.values.map { "v\($0.type):\($0.bytes)" }).joined(separator: " ")
            return "\(table.window) cells of \(table.cellBytes) \(rows)"
        }.joined(separator: "; ")
    }
}

extension Int {
    fileprivate func roundedUp(toMultipleOf unit: Int) -> Int {
        let rest = self % unit
        return rest == 0 ? self : self + unit - rest
    }
}
