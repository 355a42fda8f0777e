/// One connection that brings KV, numbered by the shell; a reconnection has another number.
package struct KVLinkID: Hashable, Sendable {
    package var value: UInt64
    package init(_ value: UInt64) { self.value = value }
}
