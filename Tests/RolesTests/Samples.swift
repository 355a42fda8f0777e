import InferenceEngine
import Roles
import ServingTypes

let model = ModelFingerprint([UInt8](repeating: 7, count: ModelFingerprint.byteCount))
let otherModel = ModelFingerprint([UInt8](repeating: 8, count: ModelFingerprint.byteCount))
let prefill1 = InstanceID("prefill-1")
let prefill2 = InstanceID("prefill-2")
let decode1 = InstanceID("decode-1")
let decode2 = InstanceID("decode-2")

func seconds(_ seconds: Double) -> MonotonicTime {
    .start + .milliseconds(Int64(seconds * 1000))
}

func request(_ number: UInt64) -> RequestID { RequestID(high: 0, low: number) }

func attempt(_ number: UInt64, _ attempt: UInt32 = 1) -> AttemptID {
    AttemptID(request: request(number), number: attempt)
}

func outputs(_ tokens: TokenID...) -> [TokenOutput] { tokens.map { TokenOutput(token: $0) } }

func secret(_ number: UInt64) -> ReservationSecret { ReservationSecret(high: 0, low: number) }

/// One KV token takes 10 bytes; a decode-worker holds 100 tokens.
func worker(
    _ instance: InstanceID, _ role: Role, incarnation: UInt64 = 1, host: String = "host",
    context: Int = 100, slots: Int = 2, sequences: Int = 4, capacity: Int = 100,
    modelName: String = "small", fingerprint: ModelFingerprint = model
) -> InstanceDescription {
    InstanceDescription(
        instance: instance, role: role, incarnation: incarnation, host: host,
        controlAddress: NetworkAddress(host: host, port: 1),
        bulkAddress: NetworkAddress(host: instance.name, port: 2), modelName: modelName,
        fingerprint: fingerprint, contextTokens: context, kvBytesPerToken: 10,
        kvCapacityBytes: capacity * 10, prefillSlots: role == .prefillWorker ? slots : 0,
        decodeSequences: role == .decodeWorker ? sequences : 0, device: "CPU")
}

func serving(
    _ description: InstanceDescription, state: InstanceState = .serving,
    role: ServingRole? = nil, group: GroupID? = nil
) -> GroupMember {
    var status = InstanceStatus()
    status.freePrefillSlots = description.prefillSlots
    status.freeKVBytes = description.role == .decodeWorker ? description.kvCapacityBytes : 0
    return GroupMember(
        description: description, state: state, status: status,
        reason: state == .serving ? "" : state.name, role: role, group: group)
}

func terms(
    _ attempt: AttemptID, outputTokens: Int = 0, maximumNewTokens: Int = 5,
    deadline: Duration = .seconds(60)
) -> AttemptTerms {
    AttemptTerms(
        attempt: attempt, outputTokens: outputTokens, maximumNewTokens: maximumNewTokens,
        sampling: SamplingParameters(), deadline: deadline)
}

extension Array {
    /// The only element; nil if there are none or several.
    var only: Element? { count == 1 ? first : nil }
}
