import CLlama
import Foundation
import InferenceEngine
import ServingTypes

/// Memory for sampling one row of logits, shared by all sequences of an engine.
@safe final class SamplingScratch {
    let candidates: UnsafeMutableBufferPointer<llama_token_data>
    /// Probability weights by token.
    let weights: UnsafeMutableBufferPointer<Double>

    init(vocabularySize: Int) {
        unsafe candidates = .allocate(capacity: vocabularySize)
        unsafe weights = .allocate(capacity: vocabularySize)
    }

    deinit {
        unsafe candidates.deallocate()
        unsafe weights.deallocate()
    }
}

/// Chooses the tokens of one job.
///
/// libllama's samplers weigh and narrow down the candidates, in llama.cpp's usual order: bias,
/// penalties, top-k, top-p, min-p, temperature. The draw is ours, because its random number
/// depends on seed and output position alone.
@safe final class LlamaSampler {
    /// Nil if the most likely token is taken as it is.
    private let chain: UnsafeMutablePointer<llama_sampler>?
    private let parameters: SamplingParameters
    private let scratch: SamplingScratch
    /// Position of the next token in the whole output.
    private var outputIndex: Int

    init(job: SequenceJob, model: LlamaModel, contextTokens: Int, scratch: SamplingScratch) {
        parameters = job.sampling
        outputIndex = job.outputTokens
        self.scratch = scratch
        let window =
            parameters.penaltyWindowTokens < 0
            ? contextTokens : min(Int(parameters.penaltyWindowTokens), contextTokens)
        unsafe chain = Self.chain(
            parameters, window: window, suppressed: model.suppressedTokens,
            vocabularySize: model.vocabularySize)
        guard let chain = unsafe chain, parameters.hasPenalties else { return }
        for token in job.tokens.suffix(window) { unsafe llama_sampler_accept(chain, token) }
    }

    deinit { if let chain = unsafe chain { unsafe llama_sampler_free(chain) } }

    private static func chain(
        _ parameters: SamplingParameters, window: Int, suppressed: [TokenID], vocabularySize: Int
    ) -> UnsafeMutablePointer<llama_sampler>? {
        let biases =
            parameters.logitBias.map { llama_logit_bias(token: $0.token, bias: $0.bias) }
            + suppressed.map { llama_logit_bias(token: $0, bias: -.infinity) }
        if parameters.isGreedy && biases.isEmpty && !parameters.hasPenalties { return nil }
        var chainParameters = llama_sampler_chain_default_params()
        chainParameters.no_perf = true
        let chain = unsafe llama_sampler_chain_init(chainParameters)
        func add(_ sampler: UnsafeMutablePointer<llama_sampler>?) {
            unsafe llama_sampler_chain_add(chain, sampler)
        }
        let size = Int32(vocabularySize)
        if !biases.isEmpty {
            unsafe add(llama_sampler_init_logit_bias(size, Int32(biases.count), biases))
        }
        if parameters.hasPenalties {
            unsafe add(
                llama_sampler_init_penalties(
                    size, Int32(window), parameters.repeatPenalty, parameters.frequencyPenalty,
                    parameters.presencePenalty))
        }
        guard !parameters.isGreedy else { return unsafe chain }
        if parameters.topK > 0 { unsafe add(llama_sampler_init_top_k(parameters.topK)) }
        if parameters.topP < 1 { unsafe add(llama_sampler_init_top_p(max(0, parameters.topP), 1)) }
        if parameters.minP > 0 { unsafe add(llama_sampler_init_min_p(min(1, parameters.minP), 1)) }
        unsafe add(llama_sampler_init_temp(parameters.temperature))
        return unsafe chain
    }

    /// Chooses a token from a row of logits.
    func sample(_ logits: UnsafeBufferPointer<Float>) -> Result<TokenOutput, EngineError> {
        guard let best = unsafe Self.mostLikely(in: logits) else {
            return .failure(.computeFailed(code: FailureCodes.logitsNotNumbers))
        }
        var token = best
        if let chain = unsafe chain {
            guard let chosen = unsafe choose(logits, chain) else {
                return .failure(.invalidJob(reason: "the logit bias allows no token"))
            }
            token = chosen
            if parameters.hasPenalties { unsafe llama_sampler_accept(chain, token) }
        }
        outputIndex += 1
        guard let count = parameters.topLogprobs else {
            return .success(TokenOutput(token: token))
        }
        return .success(
            unsafe Self.withLogprobs(token, logits: logits, best: best, alternatives: count))
    }

    /// The most likely token, the lowest of equals; nil if a logit is not a number.
    private static func mostLikely(in logits: UnsafeBufferPointer<Float>) -> TokenID? {
        var best = 0
        var bestLogit = -Float.infinity
        var sum: Float = 0
        for index in logits.indices {
            let logit = unsafe logits[index]
            // Stays zero, unless a logit is infinite or not a number.
            sum += logit * 0
            if logit > bestLogit { (best, bestLogit) = (index, logit) }
        }
        return sum == 0 ? TokenID(best) : nil
    }

    private func choose(
        _ logits: UnsafeBufferPointer<Float>, _ chain: UnsafeMutablePointer<llama_sampler>
    ) -> TokenID? {
        for index in logits.indices {
            unsafe scratch.candidates[index] = llama_token_data(
                id: TokenID(index), logit: logits[index], p: 0)
        }
        var array = unsafe llama_token_data_array(
            data: scratch.candidates.baseAddress, size: logits.count, selected: -1, sorted: false)
        unsafe llama_sampler_apply(chain, &array)
        let left = unsafe UnsafeBufferPointer(start: array.data, count: array.size)
        return parameters.isGreedy ? unsafe mostLikely(of: left) : unsafe draw(from: left)
    }

    private func mostLikely(of candidates: UnsafeBufferPointer<llama_token_data>) -> TokenID? {
        var best: llama_token_data?
        for index in candidates.indices {
            let candidate = unsafe candidates[index]
            if candidate.logit == -.infinity { continue }
            if let held = best, (held.logit, -held.id) >= (candidate.logit, -candidate.id) {
                continue
            }
            best = candidate
        }
        return best?.id
    }

    /// Draws a token by its probability.
    ///
    /// The candidates are laid out by token id, not by rank: where two are nearly equally likely,
    /// their ranks may differ between two machines, which would exchange them.
    private func draw(from candidates: UnsafeBufferPointer<llama_token_data>) -> TokenID? {
        var highest = -Float.infinity
        for index in candidates.indices { highest = max(highest, unsafe candidates[index].logit) }
        guard highest > -.infinity else { return nil }
        unsafe scratch.weights.initialize(repeating: 0)
        var total = 0.0
        for index in candidates.indices {
            let candidate = unsafe candidates[index]
            unsafe scratch.weights[Int(candidate.id)] = exp(Double(candidate.logit - highest))
        }
        for index in unsafe scratch.weights.indices { unsafe total += scratch.weights[index] }
        let target = uniformNumber(seed: parameters.seed, outputIndex: outputIndex) * total
        var sum = 0.0
        var last: TokenID?
        for index in unsafe scratch.weights.indices where unsafe scratch.weights[index] > 0 {
            unsafe sum += scratch.weights[index]
            last = TokenID(index)
            if sum > target { break }
        }
        return last
    }

    /// Adds log-probabilities of the unchanged logits.
    private static func withLogprobs(
        _ token: TokenID, logits: UnsafeBufferPointer<Float>, best: TokenID, alternatives: Int
    ) -> TokenOutput {
        let highest = Double(unsafe logits[Int(best)])
        var total = 0.0
        for index in logits.indices { total += exp(Double(unsafe logits[index]) - highest) }
        let normaliser = highest + log(total)
        func logprob(_ token: Int) -> Float {
            let value = Float(Double(unsafe logits[token]) - normaliser)
            // A model may rule a token out altogether; others only take finite numbers.
            return value.isFinite ? value : -.greatestFiniteMagnitude
        }
        var top: [Int] = []
        for index in logits.indices where alternatives > 0 {
            let isFull = top.count == min(alternatives, logits.count)
            if isFull, let last = top.last, unsafe logits[index] <= logits[last] { continue }
            let place = top.firstIndex { unsafe logits[$0] < logits[index] } ?? top.count
            if isFull { top.removeLast() }
            top.insert(index, at: place)
        }
        return TokenOutput(
            token: token, logprob: logprob(Int(token)),
            alternatives: top.map { TokenLogprob(token: TokenID($0), logprob: logprob($0)) })
    }
}

/// Codes of `EngineError.computeFailed` beside libllama's own (-3…2).
enum FailureCodes {
    static let logitsNotNumbers: Int32 = -100
    static let exportFailed: Int32 = -101
}
