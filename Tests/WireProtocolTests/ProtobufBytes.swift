/// Protobuf bytes put together by hand, valid or not.
struct ProtobufBytes {
    var bytes: [UInt8] = []

    func varint(_ field: Int, _ value: UInt64) -> Self {
        adding(Self.varint(UInt64(field) << 3) + Self.varint(value))
    }

    func text(_ field: Int, _ text: String) -> Self { data(field, Array(text.utf8)) }

    func message(_ field: Int, _ message: ProtobufBytes) -> Self { data(field, message.bytes) }

    func data(_ field: Int, _ data: [UInt8]) -> Self {
        adding(Self.varint(UInt64(field) << 3 | 2) + Self.varint(UInt64(data.count)) + data)
    }

    func float(_ field: Int, _ value: Float) -> Self {
        adding(Self.varint(UInt64(field) << 3 | 5) + Self.littleEndian(value.bitPattern))
    }

    func double(_ field: Int, _ value: Double) -> Self {
        adding(Self.varint(UInt64(field) << 3 | 1) + Self.littleEndian(value.bitPattern))
    }

    func adding(_ more: [UInt8]) -> Self { ProtobufBytes(bytes: bytes + more) }

    private static func varint(_ value: UInt64) -> [UInt8] {
        var rest = value
        var bytes: [UInt8] = []
        while rest >= 128 {
            bytes.append(UInt8(rest & 127) | 128)
            rest >>= 7
        }
        return bytes + [UInt8(rest)]
    }

    private static func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] {
        (0..<(value.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }
}
