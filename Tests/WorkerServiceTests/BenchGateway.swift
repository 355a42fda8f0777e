import ServiceStart
import ServingTypes
import Synchronization
import Transport
import WireProtocol

/// What a gateway sends to an engine, through two workers or to one alone.
struct BenchRequest: Sendable, Hashable {
    var attempt: AttemptID
    var prompt: [TokenID]
    var newTokens = 6
    var sampling = SamplingParameters()
    var deadline = Duration.seconds(60)

    /// A new request whose prompt differs from all others'.
    init(promptTokens: Int = 100, newTokens: Int = 6) {
        var generator = SystemRandomNumberGenerator()
        let request = RequestID(using: &generator)
        attempt = AttemptID(request: request, number: 1)
        prompt = (0..<promptTokens).map { TokenID(32 + (UInt64($0) &* request.low >> 7) % 90) }
        self.newTokens = newTokens
        sampling.seed = request.high
    }

    var terms: AttemptTerms {
        AttemptTerms(
            attempt: attempt, outputTokens: 0, maximumNewTokens: newTokens, sampling: sampling,
            deadline: deadline)
    }
}

/// What a gateway knows of a request in the end.
struct Answer: Hashable, Sendable {
    struct Failure: Hashable, Sendable {
        var role: Role
        var code: FailureCode
    }

    var tokens: [TokenID] = []
    /// Nil if all tokens came.
    var failure: Failure?
}

/// The test as gateway: a control connection to each worker.
final class BenchGateway: Sendable {
    enum Event: Sendable {
        case granted(ReservationGranted)
        case refused(ReservationRefused)
        case accepted(PrefillAccepted)
        case rejected(PrefillRejected)
        case tokens(TokenBatch, from: Role)
        case failed(RequestFailed, from: Role)
    }

    /// Events of one attempt, for one reader.
    final class Events: Sendable {
        private let stream: AsyncStream<Event>
        fileprivate let continuation: AsyncStream<Event>.Continuation
        private let putBack = Mutex<[Event]>([])

        fileprivate init() { (stream, continuation) = AsyncStream.makeStream() }

        /// What has come and was not read; ends once the request is forgotten.
        var rest: AsyncStream<Event> { stream }

        /// Ends the events; the tokens among those that were not read.
        func tokensAtEnd() async -> [TokenID] {
            continuation.finish()
            var tokens: [TokenID] = []
            for await event in stream {
                guard case .tokens(let batch, _) = event else { continue }
                tokens = tokens.prefix(batch.firstIndex) + batch.tokens.map(\.token)
            }
            return tokens
        }

        /// Lets these come before all others.
        func putBack(_ events: [Event]) { putBack.withLock { $0 = events + $0 } }

        func next(within deadline: Duration) async throws -> Event {
            if let event = putBack.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) {
                return event
            }
            let event = try await withDeadline(deadline) { [stream] in
                await stream.first { _ in true }
            }
            guard let event else { throw BenchFailure("the gateway has forgotten the request") }
            return event
        }

        /// Waits for the last token, or for a failure that came before it.
        func answer(within deadline: Duration) async throws -> Answer {
            let end = ContinuousClock.now + deadline
            var answer = Answer()
            while true {
                switch try await next(within: end - ContinuousClock.now) {
                case .tokens(let batch, _):
                    guard batch.firstIndex <= answer.tokens.count else {
                        throw BenchFailure("token \(answer.tokens.count) is missing")
                    }
                    let new = batch.tokens.map(\.token)
                    let known = answer.tokens[batch.firstIndex...].prefix(new.count)
                    guard new.starts(with: known) else {
                        throw BenchFailure("the workers sent different tokens")
                    }
                    answer.tokens += new.dropFirst(known.count)
                    if batch.finish != nil { return answer }
                case .failed(let failed, let role):
                    answer.failure = Answer.Failure(role: role, code: failed.code)
                    return answer
                default: continue
                }
            }
        }
    }

    private struct State {
        var sessions: [Role: ControlSession] = [:]
        var listeners: [AttemptID: Events] = [:]
    }

    private let state = Mutex(State())

    func waitUntilConnected() async throws {
        for _ in 0..<1000 {
            if state.withLock({ $0.sessions.count == 2 }) { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw BenchFailure("the workers can't be reached")
    }

    func listen(to attempt: AttemptID) -> Events {
        let events = Events()
        state.withLock { $0.listeners[attempt] = events }
        return events
    }

    /// Ends the events of an attempt.
    func forget(_ attempt: AttemptID) {
        state.withLock { $0.listeners.removeValue(forKey: attempt) }?.continuation.finish()
    }

    func send(_ message: ControlMessage, _ tokens: [TokenID] = [], to role: Role) {
        state.withLock { $0.sessions[role] }?
            .post(message, payload: TokenPayload.encode(tokens))
    }

    /// Keeps the connection to one worker until the task is cancelled.
    func follow(_ client: ControlClient, _ role: Role) async {
        await client.run { session in
            self.state.withLock { $0.sessions[role] = session }
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await session.keepAlive() }
                group.addTask {
                    for try await frame in session.inbound { self.take(frame.message, role) }
                }
                try await group.next()
                group.cancelAll()
            }
        }
    }

    private func take(_ message: ControlMessage, _ role: Role) {
        switch message {
        case .reservationGranted(let granted): tell(granted.attempt, .granted(granted))
        case .reservationRefused(let refused): tell(refused.attempt, .refused(refused))
        case .prefillAccepted(let accepted): tell(accepted.attempt, .accepted(accepted))
        case .prefillRejected(let rejected): tell(rejected.attempt, .rejected(rejected))
        case .tokenBatch(let batch): tell(batch.attempt, .tokens(batch, from: role))
        case .requestFailed(let failed): tell(failed.attempt, .failed(failed, from: role))
        default: break
        }
    }

    private func tell(_ attempt: AttemptID, _ event: Event) {
        state.withLock { _ = $0.listeners[attempt]?.continuation.yield(event) }
    }
}

/// Throws if the body takes longer.
func withDeadline<Value: Sendable>(
    _ deadline: Duration, _ body: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    try await withThrowingTaskGroup(of: Value?.self) { group in
        group.addTask { try await body() }
        group.addTask {
            try await Task.sleep(for: deadline)
            return nil
        }
        defer { group.cancelAll() }
        guard let first = try await group.next(), let value = first else {
            throw BenchFailure("nothing came within \(deadline)")
        }
        return value
    }
}
