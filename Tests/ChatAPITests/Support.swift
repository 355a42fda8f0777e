import ChatAPI
import ServingTypes
import Testing

func chat(_ fields: String, messages: String = #"[{"role":"user","content":"hi"}]"#)
    throws(APIError) -> GenerationRequest
{
    let body = #"{"messages":"# + messages + (fields.isEmpty ? "" : ",\(fields)") + "}"
    return try GenerationRequest(parsing: Array(body.utf8), endpoint: .chat)
}

func completion(_ fields: String) throws(APIError) -> GenerationRequest {
    try GenerationRequest(parsing: Array("{\(fields)}".utf8), endpoint: .completion)
}

/// The error that reading gives.
func failure(_ read: () throws(APIError) -> GenerationRequest) -> APIError? {
    do throws(APIError) {
        _ = try read()
        return nil
    } catch {
        return error
    }
}

func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

/// SplitMix64, so that a failing case can be repeated from its seed.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
