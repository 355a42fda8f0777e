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
