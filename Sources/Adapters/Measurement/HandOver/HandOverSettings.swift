package import ServingTypes

/// What `benchmark handoff` measures.
package struct HandOverSettings: Sendable {
    /// Second token and the following ones: their pace is what a decode step takes.
    package static let newTokens = 12

    /// The GGUF file whose vocabulary prompts are made of.
    package var modelPath: String
    package var promptTokens: [Int]
    package var rounds: Int
    /// Rate of the link between the workers in bits a second; nil if it is not known.
    package var linkBitsPerSecond: Double?
    /// How the workers were started, for the report.
    package var facts: [(name: String, value: String)]

    package init(
        modelPath: String, promptTokens: [Int], rounds: Int, linkBitsPerSecond: Double?,
        facts: [(name: String, value: String)]
    ) {
        self.modelPath = modelPath
        self.promptTokens = promptTokens
        self.rounds = rounds
        self.linkBitsPerSecond = linkBitsPerSecond
        self.facts = facts
    }

    /// KV for two of the longest sequences.
    package var kvTokens: Int {
        max(1024, 2 * ((promptTokens.max() ?? 0) + Self.newTokens))
    }
}

/// The cluster that is measured: one worker of each kind, and nobody else's requests.
package struct HandOverTarget: Sendable {
    package var gateway: NetworkAddress
    package var prefillMetrics: NetworkAddress
    package var decodeMetrics: NetworkAddress
    /// Processes of this host, for their memory; nil for those of others.
    package var prefillProcess: Int32?
    package var decodeProcess: Int32?

    package init(
        gateway: NetworkAddress, prefillMetrics: NetworkAddress, decodeMetrics: NetworkAddress,
        prefillProcess: Int32? = nil, decodeProcess: Int32? = nil
    ) {
        self.gateway = gateway
        self.prefillMetrics = prefillMetrics
        self.decodeMetrics = decodeMetrics
        self.prefillProcess = prefillProcess
        self.decodeProcess = decodeProcess
    }
}
