import HTTPTypes

/// A request as a handler sees it: head and whole body.
package struct HTTPCall: Sendable {
    /// In capitals; `HEAD` arrives as `GET`.
    package let method: String
    /// Percent-decoded, without the query.
    package let path: String
    /// As sent, without the question mark.
    package let query: String?
    package let body: [UInt8]
    /// What stands in the path in place of a route's final `*`.
    package internal(set) var rest = ""
    /// Address of the client without its port, or of the proxy in front; empty if unknown.
    package let remoteAddress: String
    let isHead: Bool
    private let fields: HTTPFields

    init(_ head: HTTPRequest, body: [UInt8], remoteAddress: String = "") {
        self.remoteAddress = remoteAddress
        isHead = head.method == .head
        method = isHead ? "GET" : head.method.rawValue
        let target = head.path ?? "/"
        let path = target.prefix { $0 != "?" }
        self.path = Self.percentDecoded(path)
        query =
            path.endIndex == target.endIndex
            ? nil : String(target[target.index(after: path.endIndex)...])
        fields = head.headerFields
        self.body = body
    }

    /// A field of the head; several of the same name are joined with commas.
    package func header(_ name: String) -> String? {
        HTTPField.Name(name).flatMap { fields[$0] }
    }

    /// All fields of the head, by their names in lower case; joined like those of `header`.
    package var headers: [String: String] {
        var headers: [String: String] = [:]
        for field in fields {
            let name = field.name.canonicalName
            headers[name] = headers[name].map { "\($0), \(field.value)" } ?? field.value
        }
        return headers
    }

    /// `+` stays, a broken escape stays as it is.
    static func percentDecoded(_ text: Substring) -> String {
        guard text.utf8.contains(UInt8(ascii: "%")) else { return String(text) }
        let bytes = Array(text.utf8)
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "%"), index + 2 < bytes.count,
                let high = Character(UnicodeScalar(bytes[index + 1])).hexDigitValue,
                let low = Character(UnicodeScalar(bytes[index + 2])).hexDigitValue
            {
                result.append(UInt8(high << 4 | low))
                index += 3
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}

/// What a handler answers.
package struct HTTPReply: Sendable {
    enum Body: Sendable {
        case bytes([UInt8])
        case stream(HTTPStream)
    }

    package var status: Int
    /// Without length, connection and date, which the endpoint adds.
    package var headers: [(name: String, value: String)]
    let body: Body

    package static func bytes(
        _ bytes: [UInt8], type: String, status: Int = 200,
        headers: [(name: String, value: String)] = []
    ) -> HTTPReply {
        HTTPReply(
            status: status, headers: [("content-type", type)] + headers, body: .bytes(bytes))
    }

    package static func json(_ bytes: [UInt8], status: Int = 200) -> HTTPReply {
        .bytes(bytes, type: "application/json", status: status)
    }

    /// Server-sent events: each element is written and flushed as it comes.
    ///
    /// When the client leaves or can't be written to, the task that reads the sequence is cancelled
    /// and the sequence is dropped; an `AsyncStream` then calls its `onTermination` at once.
    package static func events<Chunks: AsyncSequence & Sendable>(
        _ chunks: Chunks, headers: [(name: String, value: String)] = []
    ) -> HTTPReply where Chunks.Element == [UInt8] {
        // The third keeps nginx from collecting events.
        let own = [
            ("content-type", "text/event-stream"), ("cache-control", "no-cache"),
            ("x-accel-buffering", "no"),
        ]
        return HTTPReply(
            status: 200, headers: own + headers, body: .stream(HTTPStream(chunks)))
    }
}

/// A sequence of byte chunks of any type.
struct HTTPStream: Sendable {
    /// Calls `write` for each chunk.
    let forEach: @Sendable (_ write: ([UInt8]) async throws -> Void) async throws -> Void

    init<Chunks: AsyncSequence & Sendable>(_ chunks: Chunks) where Chunks.Element == [UInt8] {
        forEach = { write in
            var iterator = chunks.makeAsyncIterator()
            while let chunk = try await iterator.next(isolation: #isolation) {
                do {
                    try await write(chunk)
                } catch {
                    // A sequence that others hold too learns of the end only when it is asked for
                    // an element by a cancelled task.
                    unsafe withUnsafeCurrentTask { unsafe $0?.cancel() }
                    _ = try? await iterator.next(isolation: #isolation)
                    throw error
                }
            }
        }
    }
}
