import ChatAPI
import ClusterRules
import InferenceEngine
import Metrics
import Roles
import ServiceRuntime
import ServingTypes

/// What one HTTP request asks of the cluster.
struct GenerationPlan: Sendable {
    /// One per choice, in the order of the choices' indices.
    var jobs: [GenerationJob]
    var choicesPerPrompt: Int
    var stops: [String]
    var promptTokens: Int
    var reportsLogprobs: Bool

    /// Makes its jobs requests of the scenario.
    mutating func assign(
        to admission: Admission, of source: RequestSource,
        limit: (ScenarioSpec) -> Duration?
    ) throws(APIError) {
        let priority = try source.priority(in: admission.scenario)
        for index in jobs.indices {
            jobs[index].scenario = admission.scenario.name
            jobs[index].priority = priority
            jobs[index].tenant = source.tenant(admission)
            jobs[index].ttftLimit = limit(admission.scenario)
        }
    }
}

/// The answer to one HTTP request while it is being generated, all choices together.
///
/// It is pulled: the next event is taken when the client's side asks for it.
actor Generation {
    private struct Choice {
        var text: OutputText
        var tokens = 0
        /// Of its prompt, the tokens whose KV a worker had when it was first placed.
        var cachedTokens: Int?
        var isOpen = false
        var latest: MonotonicTime
        var finish: FinishReason?
        /// Collected only for complete answers.
        var whole = ""
        var logprobs: [OutputLogprob] = []
    }

    private let gateway: GatewayService
    private let tokenizer: any Tokenizer
    private let plan: GenerationPlan
    private let writer: CompletionWriter
    private let backlog: ClientBacklog
    private let started: MonotonicTime
    private var choices: [Choice]
    private var first: ChoiceEvent?
    private var isOver = false

    /// Starts the requests.
    init(
        gateway: GatewayService, tokenizer: any Tokenizer, plan: GenerationPlan,
        writer: CompletionWriter, admission: Admission
    ) {
        self.gateway = gateway
        self.tokenizer = tokenizer
        self.plan = plan
        self.writer = writer
        started = ProcessClock.now()
        let choice = Choice(text: OutputText(stops: plan.stops), latest: started)
        choices = Array(repeating: choice, count: plan.jobs.count)
        backlog = gateway.generate(
            plan.jobs, admission: admission, promptTokens: plan.promptTokens)
    }

    // MARK: Complete answer

    /// Waits for all choices.
    ///
    /// Cancelling the task cancels the requests.
    func response() async throws(APIError) -> [UInt8] {
        while let event = await nextEvent() {
            let delta = try apply(event)
            choices[event.choice].whole += delta.text
            choices[event.choice].logprobs += delta.logprobs
        }
        guard choices.allSatisfy({ $0.finish != nil }) else { throw .internalFailure }
        let finished = choices.map {
            FinishedChoice(text: $0.whole, finish: $0.finish ?? .stop, logprobs: $0.logprobs)
        }
        return writer.response(finished, usage: usage)
    }

    // MARK: Events

    /// Waits for the first token; throws what can still be answered with a status of its own.
    func awaitStart() async throws(APIError) {
        while let event = await nextEvent() {
            switch event.event {
            case .started: _ = try apply(event)
            case .failed(let failure):
                cancelAll()
                throw APIError(failure)
            case .tokens, .finished:
                first = event
                return
            }
        }
    }

    /// The next piece of the event stream; nil at its end.
    func nextPiece() async -> [UInt8]? {
        while !isOver {
            guard let event = await nextEvent() else {
                isOver = true
                guard choices.allSatisfy({ $0.finish != nil }) else {
                    return backlog.hasOverrun ? CompletionWriter.failure(.unread) : nil
                }
                return writer.usageChunk(usage) + CompletionWriter.endOfStream
            }
            do throws(APIError) {
                let piece = write(try apply(event), of: event.choice)
                if !piece.isEmpty { return piece }
            } catch {
                isOver = true
                cancelAll()
                return CompletionWriter.failure(error)
            }
        }
        return nil
    }

    private func write(_ delta: OutputDelta, of index: Int) -> [UInt8] {
        var piece: [UInt8] = []
        if !choices[index].isOpen {
            choices[index].isOpen = true
            piece += writer.opening(choice: index)
        }
        if let finish = choices[index].finish {
            piece += writer.closing(choice: index, finish, rest: delta)
        } else if !delta.text.isEmpty || !delta.logprobs.isEmpty {
            piece += writer.chunk(choice: index, delta)
        }
        return piece
    }

    // MARK: One event

    private func nextEvent() async -> ChoiceEvent? {
        if let first {
            self.first = nil
            return first
        }
        var iterator = backlog.events.makeAsyncIterator()
        return await iterator.next()
    }

    /// Adds an event to its choice and gives what it shows.
    private func apply(_ event: ChoiceEvent) throws(APIError) -> OutputDelta {
        let index = event.choice
        guard choices[index].finish == nil else { return OutputDelta() }
        switch event.event {
        case .started(let cachedTokens):
            // A request that starts again on other workers was computed there once more.
            choices[index].cachedTokens = choices[index].cachedTokens ?? cachedTokens
            return OutputDelta()
        case .tokens(let outputs):
            record(outputs.count, index)
            return append(outputs, to: index)
        case .finished(let reason):
            let rest = choices[index].text.finish()
            choices[index].finish = rest.stoppedAfterTokens == nil ? reason : .stop
            gateway.metrics.finished.increment()
            return rest
        case .failed(let failure):
            throw APIError(failure)
        }
    }

    private func append(_ outputs: [TokenOutput], to index: Int) -> OutputDelta {
        var shown = OutputDelta()
        for output in outputs {
            choices[index].tokens += 1
            let delta = choices[index].text.append(
                tokenizer.bytes(of: output.token), logprob: logprob(of: output))
            shown.text += delta.text
            shown.logprobs += delta.logprobs
            guard let used = delta.stoppedAfterTokens else { continue }
            choices[index].tokens = used
            choices[index].finish = .stop
            gateway.cancel(plan.jobs[index].request)
            gateway.metrics.finished.increment()
            break
        }
        return shown
    }

    private var usage: TokenUsage {
        TokenUsage(
            promptTokens: plan.promptTokens,
            completionTokens: choices.reduce(0) { $0 + $1.tokens }, cachedTokens: cachedTokens)
    }

    /// Of each prompt, what its choices all found: what one computed, others find afterwards.
    private var cachedTokens: Int {
        let cached = zip(choices, plan.jobs).map {
            min($0.cachedTokens ?? 0, $1.promptTokens.count)
        }
        return stride(from: 0, to: cached.count, by: plan.choicesPerPrompt).reduce(0) {
            sum, first in
            sum + (cached[first..<min(first + plan.choicesPerPrompt, cached.count)].min() ?? 0)
        }
    }

    func cancelAll() {
        for job in plan.jobs { gateway.cancel(job.request) }
    }

    private func logprob(of output: TokenOutput) -> OutputLogprob? {
        guard plan.reportsLogprobs, let logprob = output.logprob,
            !tokenizer.isEndOfGeneration(output.token)
        else { return nil }
        return OutputLogprob(
            token: TokenText(bytes: tokenizer.bytes(of: output.token), logprob: logprob),
            alternatives: output.alternatives.map {
                TokenText(bytes: tokenizer.bytes(of: $0.token), logprob: $0.logprob)
            })
    }

    private func record(_ count: Int, _ index: Int) {
        let now = ProcessClock.now()
        let metrics = gateway.metrics
        let timer =
            choices[index].tokens == 0 ? metrics.timeToFirstToken : metrics.interTokenLatency
        timer.recordNanoseconds((now - choices[index].latest).nanoseconds)
        choices[index].latest = now
        metrics.outputTokens.increment(by: count)
    }
}

extension APIError {
    /// The end of a stream whose client left too much of it unread.
    fileprivate static let unread = APIError(
        status: 408, message: "The client read too slowly, so the request was ended.",
        type: "invalid_request_error", code: "client_too_slow")

    /// The answer for a request that the cluster could not finish.
    init(_ failure: GenerationFailure) {
        switch failure {
        case .tooManyRequests(let limit):
            self = APIError(
                status: 429, message: "The gateway holds \(limit) requests already; try again.",
                type: "rate_limit_error", code: "too_many_requests", retryAfterSeconds: 1)
        case .noWorker(let role):
            self = .overloaded(
                "No \(role.name) serves this model at the moment.", retryAfterSeconds: 5)
        case .overloaded(let waited):
            self = .overloaded(
                "All workers were busy for \(Int(waited.seconds)) s.", retryAfterSeconds: 5)
        case .tooLate:
            self = .overloaded(
                "All workers are busy, and the first token could not come in time; try again.",
                retryAfterSeconds: 1)
        case .tooLong(let contextTokens):
            self = .invalid(
                "Prompt and output exceed the context of \(contextTokens) tokens.",
                code: "context_length_exceeded")
        case .attemptsExhausted(let attempts, _):
            self = APIError(
                status: 502, message: "The request was lost with its workers \(attempts) times.",
                type: "server_error", code: "workers_lost", retryAfterSeconds: 1)
        case .deadline: self = .timedOut
        case .shuttingDown:
            self = .overloaded("The gateway is shutting down.", retryAfterSeconds: 5)
        }
    }
}
