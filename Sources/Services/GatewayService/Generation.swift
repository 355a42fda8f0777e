import ChatAPI
import InferenceEngine
import Metrics
import Roles
import ServiceRuntime
import ServingTypes

/// What one HTTP request asks of the cluster.
struct GenerationPlan: Sendable {
    /// One per choice, in the order of the choices' indices.
    var jobs: [GenerationJob]
    var stops: [String]
    var promptTokens: Int
    var reportsLogprobs: Bool
}

/// The answer to one HTTP request while it is being generated, all choices together.
///
/// It is pulled: the next event is taken when the client's side asks for it.
actor Generation {
    private struct Choice {
        var text: OutputText
        var tokens = 0
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
    private let stream: AsyncStream<ChoiceEvent>
    private let started: MonotonicTime
    private var choices: [Choice]
    private var first: ChoiceEvent?
    private var isOver = false

    /// Starts the requests.
    init(
        gateway: GatewayService, tokenizer: any Tokenizer, plan: GenerationPlan,
        writer: CompletionWriter
    ) {
        self.gateway = gateway
        self.tokenizer = tokenizer
        self.plan = plan
        self.writer = writer
        started = ProcessClock.now()
        let choice = Choice(text: OutputText(stops: plan.stops), latest: started)
        choices = Array(repeating: choice, count: plan.jobs.count)
        stream = gateway.generate(plan.jobs)
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
        let event = await nextEvent()
        if case .failed(let failure) = event?.event {
            cancelAll()
            throw APIError(failure)
        }
        first = event
    }

    /// The next piece of the event stream; nil at its end.
    func nextPiece() async -> [UInt8]? {
        while !isOver {
            guard let event = await nextEvent() else {
                isOver = true
                guard choices.allSatisfy({ $0.finish != nil }) else { return nil }
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
        var iterator = stream.makeAsyncIterator()
        return await iterator.next()
    }

    /// Adds an event to its choice and gives what it shows.
    private func apply(_ event: ChoiceEvent) throws(APIError) -> OutputDelta {
        let index = event.choice
        guard choices[index].finish == nil else { return OutputDelta() }
        switch event.event {
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
            completionTokens: choices.reduce(0) { $0 + $1.tokens })
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
