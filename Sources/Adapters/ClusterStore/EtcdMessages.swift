import Foundation

// The JSON of etcd's gateway: 64-bit numbers are strings, keys and values base64.

struct EtcdHeader: Decodable {
    var revision: String?
}

struct EtcdKeyValue: Decodable {
    var key: String
    var value: String?
    var createRevision: String?
    var modRevision: String?

    enum CodingKeys: String, CodingKey {
        case key, value
        case createRevision = "create_revision"
        case modRevision = "mod_revision"
    }

    var keyText: String { String(decoding: Base64.bytes(key), as: UTF8.self) }
    var bytes: [UInt8] { value.map { Base64.bytes($0) } ?? [] }
}

struct EtcdRangeRequest: Encodable {
    var key: String
    var range_end: String?
    var limit: Int?
    var sort_order: String?
    var sort_target: String?
}

struct EtcdRangeAnswer: Decodable {
    var header: EtcdHeader?
    var kvs: [EtcdKeyValue]?
    var more: Bool?
}

struct EtcdCompare: Encodable {
    var key: String
    var target: String
    var result = "EQUAL"
    var create_revision: String?
    var mod_revision: String?

    static func created(_ key: String, at revision: Int64) -> EtcdCompare {
        EtcdCompare(key: Base64.text(key), target: "CREATE", create_revision: "\(revision)")
    }

    static func modified(_ key: String, at revision: Int64) -> EtcdCompare {
        EtcdCompare(key: Base64.text(key), target: "MOD", mod_revision: "\(revision)")
    }
}

struct EtcdOperation: Encodable {
    struct Put: Encodable {
        var key: String
        var value: String
        var lease: String?
    }

    struct Delete: Encodable {
        var key: String
        var range_end: String?
    }

    var request_put: Put?
    var request_delete_range: Delete?
    /// Of key and value, before base64.
    var bytes = 0

    enum CodingKeys: String, CodingKey {
        case request_put, request_delete_range
    }

    static func put(_ key: String, _ value: [UInt8], lease: String? = nil) -> EtcdOperation {
        EtcdOperation(
            request_put: Put(key: Base64.text(key), value: Base64.text(value), lease: lease),
            bytes: key.utf8.count + value.count)
    }

    static func delete(_ key: String, to end: String? = nil) -> EtcdOperation {
        EtcdOperation(
            request_delete_range: Delete(
                key: Base64.text(key), range_end: end.map { Base64.text($0) }),
            bytes: key.utf8.count)
    }
}

struct EtcdTransaction: Encodable {
    var compare: [EtcdCompare]
    var success: [EtcdOperation]
}

struct EtcdTransactionAnswer: Decodable {
    var header: EtcdHeader?
    /// Left out when false.
    var succeeded: Bool?
}

struct EtcdLeaseGrant: Encodable {
    var TTL: String
}

struct EtcdLease: Codable {
    var ID: String
    /// Left out, or zero, when the lease is gone.
    var TTL: String?
}

struct EtcdKeepAliveAnswer: Decodable {
    var result: EtcdLease?
}

struct EtcdWatchRequest: Encodable {
    struct Create: Encodable {
        var key: String
        var start_revision: String
    }

    var create_request: Create
}

struct EtcdWatchAnswer: Decodable {
    struct Result: Decodable {
        var events: [Event]?
        var canceled: Bool?
    }

    struct Event: Decodable {
        var type: String?
    }

    var result: Result?
}

/// What the gateway says when something is wrong.
struct EtcdProblem: Decodable {
    var error: String?
    var message: String?
}

struct EtcdNothing: Decodable {}

enum Base64 {
    static func text(_ text: String) -> String { Data(text.utf8).base64EncodedString() }

    static func text(_ bytes: [UInt8]) -> String { Data(bytes).base64EncodedString() }

    static func bytes(_ text: String) -> [UInt8] { Data(base64Encoded: text).map(Array.init) ?? [] }
}
