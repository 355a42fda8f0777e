extension ModelShape {
    /// Shapes for planning without a file: sizes as in each model's published `config.json`,
    /// weights in 16 bits.
    package static let known: [ModelShape] = [
        llama3_8B, llama3_70B, llama2_70B, bloom176B, qwen2_5_0_5B, qwen2_5_7B, qwen2_5_72B, tiny,
    ]

    /// The known shape of this name, small or capital letters alike.
    package static func known(_ name: String) -> ModelShape? {
        known.first { $0.name == name.lowercased() }
    }

    package static let llama3_8B = ModelShape(
        name: "llama-3.1-8b", layers: 32, embedding: 4096, feedForward: 14336, heads: 32,
        kvHeads: 8, headDimension: 128, vocabulary: 128_256, weightType: .bfloat16)
    package static let llama3_70B = ModelShape(
        name: "llama-3.1-70b", layers: 80, embedding: 8192, feedForward: 28672, heads: 64,
        kvHeads: 8, headDimension: 128, vocabulary: 128_256, weightType: .bfloat16)
    package static let llama2_70B = ModelShape(
        name: "llama-2-70b", layers: 80, embedding: 8192, feedForward: 28672, heads: 64,
        kvHeads: 8, headDimension: 128, vocabulary: 32_000)
    package static let bloom176B = ModelShape(
        name: "bloom-176b", layers: 70, embedding: 14336, feedForward: 57344, heads: 112,
        kvHeads: 112, headDimension: 128, vocabulary: 250_880, isGated: false, sharesTable: true,
        weightType: .bfloat16)
    package static let qwen2_5_0_5B = ModelShape(
        name: "qwen2.5-0.5b", layers: 24, embedding: 896, feedForward: 4864, heads: 14, kvHeads: 2,
        headDimension: 64, vocabulary: 151_936, sharesTable: true, weightType: .bfloat16)
    package static let qwen2_5_7B = ModelShape(
        name: "qwen2.5-7b", layers: 28, embedding: 3584, feedForward: 18944, heads: 28, kvHeads: 4,
        headDimension: 128, vocabulary: 152_064, weightType: .bfloat16)
    package static let qwen2_5_72B = ModelShape(
        name: "qwen2.5-72b", layers: 80, embedding: 8192, feedForward: 29568, heads: 64, kvHeads: 8,
        headDimension: 128, vocabulary: 152_064, weightType: .bfloat16)
    /// As small as the model of the tests.
    package static let tiny = ModelShape(
        name: "tiny", layers: 4, embedding: 256, feedForward: 688, heads: 4, kvHeads: 2,
        headDimension: 64, vocabulary: 2048)
}
