/// One request of one client, unique in the cluster: 128 random bits, written as 32 hexadecimal
/// digits.
package struct RequestID: Hashable, Sendable, CustomStringConvertible {
    package static let byteCount = 16

    package let high: UInt64
    package let low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    package init(using generator: inout some RandomNumberGenerator) {
        self.init(high: generator.next(), low: generator.next())
    }

    package var description: String { hexadecimal(high) + hexadecimal(low) }
}

/// One try at a request: the number rises when a request starts again on other workers.
///
/// Messages of an older attempt are ignored, so a late answer can't reach the wrong place.
package struct AttemptID: Hashable, Sendable, CustomStringConvertible {
    package var request: RequestID
    package var number: UInt32

    package init(request: RequestID, number: UInt32) {
        self.request = request
        self.number = number
    }

    package var description: String { "\(request)#\(number)" }
}

/// Name of one process in its cluster, for example `prefill-worker-1`.
///
/// It is the last part of the certificate's URI name, so it can't be borrowed by another process.
package struct InstanceID: Hashable, Sendable, Comparable, CustomStringConvertible {
    package static let maximumBytes = 128

    package let name: String

    package init(_ name: String) { self.name = name }

    package var description: String { name }

    package static func < (left: InstanceID, right: InstanceID) -> Bool { left.name < right.name }
}

/// A secret that a decode worker hands out with a reservation; the sender of the KV shows it.
package struct ReservationSecret: Hashable, Sendable, CustomStringConvertible, CustomReflectable {
    package static let byteCount = 16

    package let high: UInt64
    package let low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    package init(using generator: inout some RandomNumberGenerator) {
        self.init(high: generator.next(), low: generator.next())
    }

    /// Never shows the secret, so that it can't reach a log.
    package var description: String { "reservation secret" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

/// Says which model's KV this is: SHA-256 over GGUF metadata, tensor table and KV layout settings.
package struct ModelFingerprint: Hashable, Sendable, CustomStringConvertible {
    package static let byteCount = 32

    package let bytes: [UInt8]

    /// - Parameter bytes: exactly 32 bytes.
    package init(_ bytes: [UInt8]) {
        precondition(bytes.count == Self.byteCount, "a fingerprint is 32 bytes")
        self.bytes = bytes
    }

    package var description: String {
        bytes.prefix(6).map { hexadecimal(UInt64($0)).suffix(2) }.joined()
    }
}

/// Sixteen lower-case hexadecimal digits of a number.
private func hexadecimal(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
