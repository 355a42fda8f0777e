/// One value of a model file's metadata.
package enum MetadataValue: Hashable, Sendable {
    case integer(Int)
    case number(Double)
    case text(String)
    case truth(Bool)
    case integers([Int])
    /// An array of anything else: only its length is kept.
    case list(count: Int)
}

/// One tensor of a model file.
package struct TensorSize: Hashable, Sendable {
    package var name: String
    /// The format's name as ggml spells it, for example `q4_0`.
    package var type: String
    package var elements: Int
    package var bytes: Int

    package init(name: String, type: String, elements: Int, bytes: Int) {
        self.name = name
        self.type = type
        self.elements = elements
        self.bytes = bytes
    }
}

/// Why a file's sizes can't be told.
package enum ModelShapeError: Error, Hashable, Sendable {
    /// The key is missing, or isn't a positive number: the file is damaged, or of something else.
    case missing(key: String)
    case noTensors
}

extension ModelShape {
    /// The shape of a model by its file's metadata and tensors (GGUF's names).
    package init(
        name: String, metadata: [String: MetadataValue], tensors: [TensorSize]
    ) throws(ModelShapeError) {
        guard case .text(let family)? = metadata["general.architecture"] else {
            throw .missing(key: "general.architecture")
        }
        let reader = MetadataReader(family: family, metadata: metadata)
        let layers = try reader.integer("block_count")
        let embedding = try reader.integer("embedding_length")
        let heads = try reader.integer("attention.head_count")
        let kvHeads = reader.optional("attention.head_count_kv") ?? heads
        let vocabulary =
            reader.length("tokenizer.ggml.tokens") ?? reader.optional("vocab_size")
        guard let vocabulary else { throw .missing(key: "tokenizer.ggml.tokens") }
        guard !tensors.isEmpty else { throw .noTensors }
        self.init(
            name: name, layers: layers, embedding: embedding,
            feedForward: reader.optional("feed_forward_length") ?? 0, heads: heads,
            kvHeads: kvHeads, headDimension: embedding / heads, vocabulary: vocabulary)
        keyDimension = reader.optional("attention.key_length") ?? embedding / heads
        valueDimension = reader.optional("attention.value_length") ?? embedding / heads
        experts = reader.optional("expert_count") ?? 0
        usedExperts = reader.optional("expert_used_count") ?? 0
        count(tensors)
    }

    /// Sorts the tensors into layers, experts, output and table.
    private mutating func count(_ tensors: [TensorSize]) {
        (dense, expert, output, table) = (.none, .none, .none, .none)
        var types: [String: Int] = [:]
        for tensor in tensors {
            if tensor.name == "token_embd.weight" {
                table.add(tensor)
            } else if tensor.name == "output.weight" {
                output.add(tensor)
            } else if tensor.name.contains("_exps.") {
                expert.add(tensor)
                types[tensor.type, default: 0] += tensor.elements
            } else {
                dense.add(tensor)
                types[tensor.type, default: 0] += tensor.elements
            }
        }
        // Without an output matrix the table serves as one.
        if output.count == 0 { swap(&output, &table) }
        let most = types.max { ($0.value, $1.key) < ($1.value, $0.key) }?.key ?? ""
        weightType = WeightType(ggmlName: most)
    }
}

extension ModelShape.Weights {
    fileprivate mutating func add(_ tensor: TensorSize) {
        count += tensor.elements
        bytes += tensor.bytes
    }
}

extension WeightType {
    /// The format of ggml's name for it; `quantised` for those that aren't listed.
    package init(ggmlName: String) {
        let names: [String: WeightType] = [
            "f32": .float32, "f16": .float16, "bf16": .bfloat16, "q8_0": .q8_0, "q6_k": .q6_K,
            "q5_k": .q5_K, "q4_k": .q4_K, "q4_0": .q4_0,
        ]
        self = names[ggmlName.lowercased()] ?? .quantised
    }
}

/// Reads a model family's keys.
private struct MetadataReader {
    let family: String
    let metadata: [String: MetadataValue]

    func integer(_ key: String) throws(ModelShapeError) -> Int {
        guard let value = optional(key), value > 0 else {
            throw .missing(key: "\(family).\(key)")
        }
        return value
    }

    /// The number itself, or the largest of a list with one per layer.
    func optional(_ key: String) -> Int? {
        switch metadata["\(family).\(key)"] {
        case .integer(let value): value
        case .integers(let values): values.max()
        default: nil
        }
    }

    func length(_ key: String) -> Int? {
        if case .list(let count)? = metadata[key] { count } else { nil }
    }
}
