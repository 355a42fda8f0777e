import Roles
import ServingTypes

/// One request as its client sees it.
struct SimulatedRequest {
    let job: GenerationJob
    let submitted: Int64
    var restarted: Int64
    let answer: (tokens: [TokenID], finish: FinishReason)
    var received: [TokenID] = []
    var hasEnded = false
    /// Its client was told that its prompt is being computed.
    var hasStarted = false

    init(job: GenerationJob, submitted: Int64) {
        self.job = job
        self.submitted = submitted
        restarted = submitted
        answer = ModelFunction.answer(
            to: job.promptTokens, maximumNewTokens: job.maximumNewTokens, seed: job.sampling.seed)
    }

    var neededTokens: Int { job.promptTokens.count + job.maximumNewTokens }
}
