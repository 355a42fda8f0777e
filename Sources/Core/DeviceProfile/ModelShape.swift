/// The sizes of a model that decide how long it computes and how much KV it keeps.
package struct ModelShape: Hashable, Sendable, Codable {
    package var name: String
    package var layers: Int
    package var embedding: Int
    package var feedForward: Int
    package var heads: Int
    package var kvHeads: Int
    /// Values per head of a key, and of a value.
    package var keyDimension: Int
    package var valueDimension: Int
    package var vocabulary: Int
    /// Experts per layer, and how many of them a token uses; 0 in dense models.
    package var experts: Int
    package var usedExperts: Int
    package var weightType: WeightType
    /// Weights of all layers, experts left out.
    package var dense: Weights
    /// Weights of all experts of all layers.
    package var expert: Weights
    /// The matrix that turns a state into scores of all tokens.
    package var output: Weights
    /// The table of input embeddings; empty if the output matrix serves as such.
    package var table: Weights

    package struct Weights: Hashable, Sendable, Codable {
        package var count: Int
        package var bytes: Int

        package init(count: Int, bytes: Int) {
            self.count = count
            self.bytes = bytes
        }

        package static let none = Weights(count: 0, bytes: 0)
    }

    package var parameters: Int { dense.count + expert.count + output.count + table.count }
    package var weightBytes: Int { dense.bytes + expert.bytes + output.bytes + table.bytes }

    /// Weights that one token is multiplied with, without the output matrix.
    package var activeParameters: Double {
        Double(dense.count) + Double(expert.count) * usedExpertShare
    }

    private var usedExpertShare: Double {
        experts > 0 ? min(1, Double(usedExperts) / Double(experts)) : 0
    }

    package func kvBytesPerToken(_ type: KVType) -> Int {
        let values = layers * kvHeads * (keyDimension + valueDimension)
        return Int((Double(values) * type.bytesPerValue).rounded(.up))
    }

    /// Operations of one token that attends to `context` tokens: two per weight, and the attention.
    package func operationsPerToken(context: Double) -> Double {
        2 * activeParameters + attentionOperations * context
    }

    /// Operations of attention per pair of a token and one that it attends to.
    package var attentionOperations: Double {
        2 * Double(layers * heads * (keyDimension + valueDimension))
    }

    /// Operations of the output matrix for one token.
    package var outputOperations: Double { 2 * Double(output.count) }

    /// Bytes of weights that an iteration over `tokens` tokens reads.
    ///
    /// Each token uses some of the experts; many tokens together use nearly all.
    package func weightBytesRead(tokens: Int) -> Double {
        guard tokens > 0 else { return 0 }
        var untouched = 1.0
        for _ in 0..<min(tokens, 4096) { untouched *= 1 - usedExpertShare }
        return Double(dense.bytes + output.bytes) + Double(expert.bytes) * (1 - untouched)
    }

    /// The sizes of a transformer of the common build: attention and a feed-forward block with
    /// (`isGated`) or without a gate in each layer.
    package init(
        name: String, layers: Int, embedding: Int, feedForward: Int, heads: Int, kvHeads: Int,
        headDimension: Int, vocabulary: Int, isGated: Bool = true, sharesTable: Bool = false,
        weightType: WeightType = .float16
    ) {
        let attention = embedding * headDimension * 2 * (heads + kvHeads)
        let block = embedding * feedForward * (isGated ? 3 : 2)
        let dense = layers * (attention + block + 2 * embedding) + embedding
        let bytes = weightType.bytesPerWeight ?? 1
        func weights(_ count: Int) -> Weights {
            Weights(count: count, bytes: Int(Double(count) * bytes))
        }
        self.name = name
        self.layers = layers
        self.embedding = embedding
        self.feedForward = feedForward
        self.heads = heads
        self.kvHeads = kvHeads
        self.keyDimension = headDimension
        self.valueDimension = headDimension
        self.vocabulary = vocabulary
        self.experts = 0
        self.usedExperts = 0
        self.weightType = weightType
        self.dense = weights(dense)
        self.expert = .none
        self.output = weights(vocabulary * embedding)
        self.table = sharesTable ? .none : weights(vocabulary * embedding)
    }

    /// The same model with its weights in another format.
    package func stored(as type: WeightType) -> ModelShape {
        guard let bytes = type.bytesPerWeight else { return self }
        var shape = self
        func changed(_ weights: Weights) -> Weights {
            Weights(count: weights.count, bytes: Int(Double(weights.count) * bytes))
        }
        shape.weightType = type
        (shape.dense, shape.expert) = (changed(dense), changed(expert))
        (shape.output, shape.table) = (changed(output), changed(table))
        return shape
    }
}
