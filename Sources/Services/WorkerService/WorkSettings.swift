import ServiceRuntime
package import ServingTypes

/// Settings of what a worker takes, and of what it keeps for later.
package struct WorkSettings: Sendable {
    private enum InitialRole: String, CaseIterable {
        case prefill, decode, mixed, spare
    }

    /// What it does until the scheduler assigns something else.
    package var role: ServingRole
    package var scenario: String
    package var prefillSlots: Int
    package var decodeSequences: Int
    package var localPrefills: Int
    package var keptSequences: Int
    /// Nil: as many as the model makes worth while.
    package var keptTokens: Int?
    package var prefixBlockTokens: Int

    /// Tokens that a decode-worker keeps of ended sequences whatever they cost.
    static let fewestKeptTokens = 1024
    /// Part of the model's size that a decode-worker's kept KV may have.
    ///
    /// A decode step reads the weights and all KV there is, so that kept KV makes it longer by
    /// about as much.
    private static let keptPart = 0.1

    /// Tokens of KV that a worker keeps of ended sequences.
    ///
    /// - Parameter weightBytes: is asked only where it decides; nil if nobody knows.
    func keptTokens(
        role: Role, weightBytes: @autoclosure () -> Int?, kvBytesPerToken: Int
    ) -> Int {
        if let keptTokens { return keptTokens }
        guard role == .decodeWorker else { return .max }
        let worth = Self.keptPart * Double(weightBytes() ?? 0) / Double(max(1, kvBytesPerToken))
        return max(Self.fewestKeptTokens, Int(worth))
    }

    /// Sequences an engine may have open: those of libllama.
    static let maximumSequences = 256

    init(_ reader: inout SettingsReader, role: Role) throws(SettingsError) {
        let usual: InitialRole = role == .prefillWorker ? .prefill : .decode
        let initial = try reader.choice(
            "role", default: usual, "What it does until the scheduler assigns something else.")
        self.role = ServingRole(name: initial.rawValue) ?? ServingRole(usualFor: role)
        scenario =
            try reader.optionalText(
                "scenario",
                "The scenario it is meant for; default: any that its model serves.") ?? ""
        prefillSlots = try reader.integer(
            "prefill-slots", default: 4, in: 0...Self.maximumSequences,
            "Prompts taken at once; more are rejected and go to another worker.")
        decodeSequences = try reader.integer(
            "decode-sequences", default: 64, in: 0...Self.maximumSequences,
            "Sequences decoded at once.")
        localPrefills = try reader.integer(
            "local-prefills", default: 2, in: 0...Self.maximumSequences,
            "Prompts computed at once by the worker that decodes them; more are rejected.")
        keptSequences = try reader.integer(
            "kept-sequences", default: 32, in: 0...Self.maximumSequences,
            "Ended sequences whose KV is kept for prompts that begin alike. Prompts, decoded and "
                + "kept sequences are at most \(Self.maximumSequences) together: first those that "
                + "the worker is named for, kept ones last.")
        let keptTokens = try reader.integer(
            "kept-tokens", default: 0, in: 0...(1 << 30),
            "Tokens of KV that these hold together. Each step of whatever decodes reads them too; "
                + "0: prefill-workers keep what has room, decode-workers as much KV as a tenth of "
                + "the model's size, and \(Self.fewestKeptTokens) tokens at least.")
        self.keptTokens = keptTokens == 0 ? nil : keptTokens
        prefixBlockTokens = try reader.integer(
            "prefix-block", default: 16, in: 1...8192,
            "Prompts begin with kept KV of a multiple of so many tokens. With the micro-batch the "
                + "rest is computed in the same runs as the whole prompt would be, so that it "
                + "rounds alike; less finds more.")
        // What the worker is meant for comes first, what it keeps comes last.
        if role == .prefillWorker {
            decodeSequences = min(decodeSequences, Self.maximumSequences - prefillSlots)
        } else {
            prefillSlots = min(prefillSlots, Self.maximumSequences - decodeSequences)
        }
        keptSequences = min(
            keptSequences, Self.maximumSequences - prefillSlots - decodeSequences)
    }

    /// Sequences the engine has to hold: prompts, running ones, and those kept.
    var engineSequences: Int { max(1, prefillSlots + decodeSequences + keptSequences) }
}
