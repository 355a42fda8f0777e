/// A model that clients may name.
package struct ServedModel: Hashable, Sendable {
    package var name: String
    /// Seconds since 1970.
    package var createdSeconds: Int
    package var owner: String

    package init(name: String, createdSeconds: Int, owner: String = "pdserve") {
        self.name = name
        self.createdSeconds = createdSeconds
        self.owner = owner
    }

    /// The answer to `GET /v1/models/<name>`.
    package var json: [UInt8] {
        var writer = JSONWriter()
        write(to: &writer)
        return writer.bytes
    }

    /// The answer to `GET /v1/models`.
    package static func listJSON(_ models: [ServedModel]) -> [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.member("object", "list")
            $0.key("data")
            $0.array { array in
                for model in models { model.write(to: &array) }
            }
        }
        return writer.bytes
    }

    private func write(to writer: inout JSONWriter) {
        writer.object {
            $0.member("id", name)
            $0.member("object", "model")
            $0.member("created", createdSeconds)
            $0.member("owned_by", owner)
        }
    }
}
