import DeviceProfile
import Testing

struct ModelShapeTests {
    private let metadata: [String: MetadataValue] = [
        "general.architecture": .text("qwen3moe"), "qwen3moe.block_count": .integer(2),
        "qwen3moe.embedding_length": .integer(64), "qwen3moe.attention.head_count": .integer(4),
        "qwen3moe.attention.head_count_kv": .integers([2, 2]),
        "qwen3moe.attention.key_length": .integer(32),
        "qwen3moe.attention.value_length": .integer(32), "qwen3moe.expert_count": .integer(8),
        "qwen3moe.expert_used_count": .integer(2), "tokenizer.ggml.tokens": .list(count: 100),
    ]
    private let tensors = [
        TensorSize(name: "token_embd.weight", type: "f16", elements: 6400, bytes: 12_800),
        TensorSize(name: "blk.0.attn_q.weight", type: "q4_0", elements: 1000, bytes: 563),
        TensorSize(name: "blk.0.ffn_up_exps.weight", type: "q4_0", elements: 8000, bytes: 4500),
    ]

    @Test func readsAFileWithExperts() throws {
        let shape = try ModelShape(name: "m", metadata: metadata, tensors: tensors)
        #expect(shape.kvBytesPerToken(.float16) == 2 * 2 * 64 * 2)
        #expect(shape.parameters == 15_400)
        #expect(shape.activeParameters == 1000 + 2000)
        #expect(shape.output.count == 6400 && shape.table.count == 0)
        #expect(shape.weightType == .q4_0)
        // One token reads a quarter of the experts, many read nearly all.
        #expect(shape.weightBytesRead(tokens: 1) == 563 + 12_800 + 4500 / 4)
        #expect(shape.weightBytesRead(tokens: 200) > 563 + 12_800 + 4499)
    }

    @Test func namesWhatIsMissing() {
        #expect(throws: ModelShapeError.missing(key: "general.architecture")) {
            try ModelShape(name: "m", metadata: [:], tensors: tensors)
        }
        var damaged = metadata
        damaged["qwen3moe.block_count"] = .integer(0)
        #expect(throws: ModelShapeError.missing(key: "qwen3moe.block_count")) {
            try ModelShape(name: "m", metadata: damaged, tensors: tensors)
        }
        #expect(throws: ModelShapeError.noTensors) {
            try ModelShape(name: "m", metadata: metadata, tensors: [])
        }
    }
}
