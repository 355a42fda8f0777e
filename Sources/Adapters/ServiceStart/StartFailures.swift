package import InferenceEngine
package import ServiceRuntime
package import Transport

// What ends a process with one sentence for its operator instead of a report of a fault.

extension TransportError: ServiceFailure {
    package var exitCode: ExitCode { .unavailable }
}

extension EngineError: ServiceFailure {
    package var exitCode: ExitCode {
        switch self {
        case .modelNotLoaded, .modelNotSupported, .contextNotCreated: .unavailable
        default: .internalError
        }
    }

    package var description: String {
        switch self {
        case .modelNotLoaded(let path, let reason):
            "the model \(path) can't be loaded: \(reason); give a readable GGUF file with --model"
        case .modelNotSupported(let reason):
            "this model can't be served: \(reason); choose another one"
        case .contextNotCreated(let reason):
            "the engine can't start: \(reason); lower --kv-tokens, --micro-batch or --gpu-layers"
        case .noRoom(let neededTokens, let freeTokens):
            "\(neededTokens) tokens of KV are needed, \(freeTokens) are free"
        case .blockRefused(let reason): "KV was refused: \(reason)"
        case .invalidJob(let reason): "a job was refused: \(reason)"
        case .computeFailed(let code): "computing failed with code \(code)"
        case .shutDown: "the engine has shut down"
        }
    }
}
