import Transport

/// One way to bring KV from this process to where the receiver can read it.
protocol KVContender: Sendable {
    var name: String { get }
    /// What it can be at best; nil for what is a floor itself.
    var floor: KVFloorKind? { get }
    /// Whether this system has what it needs.
    var isSupported: Bool { get }

    /// Called in the receiver.
    func openReceiver(_ place: KVPlace) throws -> any KVReceivingEnd

    /// Called in the sender, once the receiver is there.
    func openSender(_ place: KVPlace, port: Int) throws -> any KVSendingEnd
}

extension KVContender {
    var isSupported: Bool { true }
}

/// The least that a way to move KV can cost.
enum KVFloorKind {
    /// Plain TCP, and AES-128-GCM on each side.
    case encryptedStream
    /// One copy.
    case copy
}

/// What the ends of all contenders share on one side.
struct KVPlace: Sendable {
    let region: TransferRegion
    let identities: KVIdentities
}

/// Waits for transfers on threads of its own.
protocol KVReceivingEnd: AnyObject {
    /// Of 127.0.0.1.
    var port: Int { get }

    /// Copies what arrived last into the memory if it lies elsewhere; while no time counts.
    func copyOut()
    func close()
}

extension KVReceivingEnd {
    func copyOut() {}
}

/// Used by one thread.
protocol KVSendingEnd: AnyObject {
    /// Makes ready, before time counts, for transfers of just these bytes.
    func prepare(_ ranges: [Range<Int>]) throws

    /// Sends the bytes to the same place at the receiver and waits until they have arrived.
    ///
    /// - Returns: bytes of KV on the wire, with what pieces add and without what TLS adds.
    func transfer(_ range: Range<Int>) throws -> Int
    func close()
}

extension KVSendingEnd {
    func prepare(_ ranges: [Range<Int>]) throws {}
}

/// The product's own ways.
package enum KVContenders {
    static let all: [any KVContender] = [
        PlainContender(),
        BulkContender(name: "tls", records: .tls),
        BulkContender(name: "tls x2", records: .tls, connections: 2),
        BulkContender(name: "sealed", records: .sealed),
        BulkContender(name: "sealed x2", records: .sealed, connections: 2),
        BulkContender(name: "codec", records: .sealed, compresses: true),
        MemoryContender(),
        MemoryContender(name: "memory+copy", receiverCopies: true),
    ]

    /// What all others are compared with.
    static let base = PlainContender.name

    package static var names: [String] { all.map(\.name) }

    static func named(_ name: String) -> (any KVContender)? { all.first { $0.name == name } }
}
