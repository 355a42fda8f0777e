package import DeviceProfile
import EngineRuntime
package import InferenceEngine
import ServingTypes

/// An engine without a model: real threads, real KV bytes, modelled times.
///
/// Its tokens depend on all tokens before them and on the seed, its KV bytes on the tokens: a lost,
/// mixed-up or damaged block shows as a refused block or as other text.
package final class SimulatedEngine: InferenceEngine {
    package struct Settings: Sendable {
        package var modelName = "simulated"
        /// Stands for a model file; only the fingerprint depends on it.
        package var modelPath = ""
        package var contextTokens = ByteTokenizer.defaultContextTokens
        package var kvCapacityTokens = 65536
        /// At least `SimulatedKV.minimumBytesPerToken`.
        package var kvBytesPerToken = 2048
        package var maximumSequences = 32
        /// Most tokens in one iteration; at least `maximumSequences`.
        package var microBatchTokens = 256
        /// Most prompt tokens in an iteration in which a sequence decodes; nil is no limit.
        package var prefillBudgetTokens: Int?
        /// Most tokens in the last run of a prompt longer than a micro-batch; 0 is no limit.
        package var finalRunTokens = BatchPlanner.Limits.defaultFinalRunTokens
        /// Speed of reading prompts; infinite takes no time.
        package var prefillTokensPerSecond = 4000.0
        /// Time of an iteration in which a sequence decodes.
        package var decodeStep = Duration.milliseconds(8)
        /// Added for each decoding sequence.
        package var decodeStepPerSequence = Duration.microseconds(300)
        /// Added for each 1000 tokens of context of the decoding sequences.
        package var decodeStepPerThousandTokens = Duration.microseconds(200)
        /// Takes the place of these times: a device's, by its data sheet or as measured.
        package var model: (any PerformanceModel)?
        /// How many times as fast as the model says.
        package var modelSpeed = 1.0
        /// The device's name, for people.
        package var device = "simulated device"
        /// How likely a token ends the text; range 0…1.
        package var endProbability = 0.0
        /// Bytes of export buffers kept for reuse.
        package var keptBufferBytes = 64 << 20
        /// What exported KV is written into.
        package var kvMemory: any KVMemorySource = OrdinaryKVMemory()

        package init() {}

        /// Takes no time at all; for tests.
        package static var instant: Settings {
            var settings = Settings()
            settings.prefillTokensPerSecond = .infinity
            settings.decodeStep = .zero
            settings.decodeStepPerSequence = .zero
            settings.decodeStepPerThousandTokens = .zero
            return settings
        }

        /// The same device, so many times as fast.
        package func accelerated(by speed: Double) -> Settings {
            var settings = self
            settings.prefillTokensPerSecond *= speed
            settings.decodeStep /= speed
            settings.decodeStepPerSequence /= speed
            settings.decodeStepPerThousandTokens /= speed
            settings.modelSpeed *= speed
            return settings
        }
    }

    package let description: EngineDescription
    private let thread: EngineThread

    package init(
        settings: Settings, onEvent: @escaping EngineEventSink
    ) throws(EngineError) {
        thread = try EngineThread(name: "simulated", onEvent: onEvent) {
            (stop) throws(EngineError) in
            try SimulatedBackend(settings: settings, stop: stop)
        }
        description = thread.description
    }

    package func submit(_ command: EngineCommand) { thread.submit(command) }

    package var progress: EngineProgress { thread.progress }

    package func shutdown() async { await thread.shutdown() }
}
