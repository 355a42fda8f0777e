package import ServingTypes

/// Why bytes are not a frame or a message, or a message can't be sent.
///
/// While reading, each case means that the peer broke the protocol: the reader sends `Refusal` with
/// `FailureCode.protocol` (`version` for `unsupportedVersion`), closes the connection and counts
/// it.
/// While writing, the caller gave a value that no peer would take: a defect to log, or, for text
/// and numbers that came from a client, an answer to that client.
package enum WireError: Error, Hashable, Sendable {
    /// The bytes don't begin with the magic; the peer speaks another protocol.
    case notAFrame
    /// The header's checksum is wrong.
    case headerDamaged
    /// The peer's frames have another layout; the operator upgrades the older side.
    case unsupportedVersion(UInt8)
    /// No message kind of this version has the number.
    case unknownKind(UInt8)
    /// Flag bits that this version does not know.
    case unknownFlags(UInt16)
    /// A kind that is not expected on this connection.
    case kindNotAllowed(MessageKind)
    /// The control message is longer than its kind allows.
    case controlTooLong(MessageKind, bytes: Int, limitBytes: Int)
    /// The control message's checksum or length is not the one in the header.
    case controlDamaged(MessageKind)
    /// Payload flag and payload length disagree, or the kind must have a payload or must not.
    case payloadDisagrees(MessageKind)
    /// The payload is longer than its kind, or this connection, allows.
    case payloadTooLong(MessageKind, bytes: UInt64, limitBytes: Int)
    /// The control bytes are not a protobuf message of their kind.
    case malformed(MessageKind)
    /// The message needs more memory than its kind may take.
    case needsTooMuchMemory(limitBytes: Int)

    /// A message inside the message, or a text that must not be empty, is absent.
    case missing(field: String)
    /// A number is outside the field's range, or not finite.
    case outOfRange(field: String)
    /// An enumeration has no such value.
    case unknownValue(field: String, value: UInt32)
    /// The text is not UTF-8 or has a NUL inside.
    case invalidText(field: String)
    /// Bytes or text of a wrong length; `limitBytes` is the longest, or the only one.
    case wrongLength(field: String, bytes: Int, limitBytes: Int)
    /// More repetitions than the field may have.
    case tooMany(field: String, count: Int, limit: Int)

    /// The code of the `Refusal` that a reader answers with.
    package var failureCode: FailureCode {
        if case .unsupportedVersion = self { return .version }
        return .protocol
    }
}
