import ClusterFile
import ClusterRules
package import Logging
import ServiceRuntime
import ServingTypes
import Synchronization

/// Who may use this gateway: the scheduler's side brings the rules, the HTTP side asks.
package final class AccessControl: Sendable {
    private struct State {
        var gate = AccessGate()
        /// There is a cluster file, so its limits are meant.
        var hasFile = false
    }

    private let state = Mutex(State())
    private let isEncrypted: Bool
    private let logger: Logger

    /// - Parameter isEncrypted: whether clients speak HTTPS.
    package init(isEncrypted: Bool, logger: Logger) {
        self.isEncrypted = isEncrypted
        self.logger = logger
    }

    var spec: ClusterSpec? { state.withLock { $0.gate.spec } }

    /// Takes over the scheduler's rules; nil if they can't be used, and those before them stay.
    func follow(_ rules: ServingTypes.ClusterRules) -> ClusterSpec? {
        let spec: ClusterSpec
        do throws(ClusterFile.Failure) {
            spec = try ClusterFile.parse(rules.text)
        } catch {
            GatewayMetrics.countWrongRules()
            logger.error(
                "the scheduler's rules can't be used, those before them stay",
                metadata: ["problems": "\(error.problems.joined(separator: "; "))"])
            return nil
        }
        state.withLock { state in
            state.gate.follow(spec)
            state.hasFile = !rules.text.isEmpty
        }
        logger.notice(
            "the rules of the cluster apply",
            metadata: ["scenarios": "\(spec.scenarios.map(\.name).joined(separator: " "))"])
        if !isEncrypted, spec.scenarios.contains(where: { !$0.keys.isEmpty }) {
            logger.warning(
                """
                clients send their keys over plain HTTP; give --https-certificate and --https-key, \
                or put a proxy with HTTPS in front
                """)
        }
        return spec
    }

    func checkKey(_ keyHash: [UInt8]?) throws(AccessError) {
        try decide { gate throws(AccessError) in try gate.checkKey(keyHash) }
    }

    func authorize(_ traits: RequestTraits, keyHash: [UInt8]?) throws(AccessError) -> Admission {
        try decide { gate throws(AccessError) in try gate.authorize(traits, keyHash: keyHash) }
    }

    func charge(_ admission: inout Admission, tokens: Int) throws(AccessError) -> RateStanding {
        let now = ProcessClock.now()
        var charged = admission
        let standing = try decide { gate throws(AccessError) in
            try gate.charge(&charged, tokens: tokens, now: now)
        }
        admission = charged
        return standing
    }

    private func decide<Decision: Sendable>(
        _ body: (inout AccessGate) throws(AccessError) -> Decision
    ) throws(AccessError) -> Decision {
        let result = state.withLock { state in
            Result { () throws(AccessError) in try body(&state.gate) }
        }
        return try result.get()
    }

    /// Corrects the charge of a request that has ended.
    func ended(_ admission: Admission, usedTokens: Int) {
        let now = ProcessClock.now()
        state.withLock { $0.gate.ended(admission, usedTokens: usedTokens, now: now) }
    }

    /// The time a request of the scenario may wait for its first token; nil without cluster file.
    func ttftLimit(of scenario: ScenarioSpec) -> Duration? {
        state.withLock { $0.hasFile } ? scenario.ttftLimit : nil
    }
}
