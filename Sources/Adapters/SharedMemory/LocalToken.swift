/// What a sender shows to be let in; both sides know it from their TLS connection.
package struct LocalToken: Hashable, Sendable, CustomStringConvertible, CustomReflectable {
    package static let byteCount = 32

    package let bytes: [UInt8]

    /// Nil unless there are `byteCount` bytes.
    package init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        self.bytes = bytes
    }

    /// A new one that nobody can guess.
    package static func random() -> LocalToken {
        var generator = SystemRandomNumberGenerator()
        return LocalToken(
            unchecked: (0..<byteCount).map { _ in UInt8.random(in: 0...255, using: &generator) })
    }

    private init(unchecked bytes: [UInt8]) { self.bytes = bytes }

    /// Says nothing of the bytes.
    package var description: String { "token" }
    package var customMirror: Mirror { Mirror(self, children: []) }

    /// Compares in a time that tells nothing of where they differ.
    func matches(_ shown: [UInt8]) -> Bool {
        guard shown.count == bytes.count else { return false }
        var difference: UInt8 = 0
        for index in bytes.indices { difference |= bytes[index] ^ shown[index] }
        return difference == 0
    }
}
