package import Logging

/// Which store a scheduler uses, as its setting says.
package enum StoreChoice: Hashable, Sendable {
    case none
    case sqlite(path: String)
    case etcd(endpoints: [String])

    /// Reads `none`, `sqlite:PATH` or `etcd:https://host:2379,https://…`.
    package init(_ text: String) throws(StoreError) {
        let forms = "give none, sqlite:PATH or etcd:https://HOST:2379[,https://HOST:2379…]"
        if text == "none" {
            self = .none
        } else if text.hasPrefix("sqlite:") {
            let path = String(text.dropFirst("sqlite:".count))
            guard !path.isEmpty else {
                throw .wrongSetting("'\(text)' names no file; \(forms)")
            }
            self = .sqlite(path: path)
        } else if text.hasPrefix("etcd:") {
            let endpoints = text.dropFirst("etcd:".count).split(separator: ",").map { part in
                part.hasSuffix("/") ? String(part.dropLast()) : String(part)
            }
            let isRight = endpoints.allSatisfy { endpoint in
                ["http://", "https://"].contains { scheme in
                    endpoint.hasPrefix(scheme) && endpoint.count > scheme.count
                }
            }
            guard !endpoints.isEmpty, isRight else {
                throw .wrongSetting("'\(text)' has no address of etcd; \(forms)")
            }
            self = .etcd(endpoints: endpoints)
        } else {
            throw .wrongSetting("'\(text)' is no store; \(forms)")
        }
    }

    /// - Parameter options: how etcd is spoken with.
    package func open(
        _ options: EtcdStore.Options = EtcdStore.Options(), logger: Logger
    ) throws(StoreError) -> (any ClusterStore)? {
        switch self {
        case .none: nil
        case .sqlite(let path): SQLiteStore(path: path)
        case .etcd(let endpoints):
            try EtcdStore(endpoints: endpoints, options: options, logger: logger)
        }
    }
}
