/// A number about a device, with where it comes from.
///
/// Its unit is that of the field it stands in.
package struct Figure: Hashable, Sendable, Codable {
    package var value: Double
    /// An address or a document and what it says; for an estimate, how it was derived.
    package var source: String
    /// Derived, not found in a source.
    package var isEstimate: Bool

    package init(_ value: Double, _ source: String, isEstimate: Bool = false) {
        self.value = value
        self.source = source
        self.isEstimate = isEstimate
    }

    package static func estimate(_ value: Double, _ derivation: String) -> Figure {
        Figure(value, derivation, isEstimate: true)
    }
}

/// What a device is, seen from the host.
package enum DeviceKind: String, Hashable, Sendable, Codable, CaseIterable {
    case cpu, gpu, npu
}

/// Number types that devices multiply matrices in.
package enum NumberType: String, Hashable, Sendable, Codable, CaseIterable {
    case float32, tensorFloat32, float16, bfloat16, float8, float4, int8, int4
}

/// How a model's weights are stored.
package enum WeightType: String, Hashable, Sendable, Codable, CaseIterable {
    case float32, float16, bfloat16, float8
    case q8_0, q6_K, q5_K, q4_K, q4_0
    /// Any other quantised format.
    case quantised

    /// Bytes per weight, scales included; nil if the format leaves it open.
    package var bytesPerWeight: Double? {
        switch self {
        case .float32: 4
        case .float16, .bfloat16: 2
        case .float8: 1
        // Block sizes of ggml: 34 bytes per 32 weights, 210 per 256, and so on.
        case .q8_0: 34.0 / 32
        case .q6_K: 210.0 / 256
        case .q5_K: 176.0 / 256
        case .q4_K: 144.0 / 256
        case .q4_0: 18.0 / 32
        case .quantised: nil
        }
    }
}

/// How the KV cache is stored.
package enum KVType: String, Hashable, Sendable, Codable, CaseIterable {
    case float32, float16, bfloat16, float8, q8_0, q4_0

    package var bytesPerValue: Double {
        switch self {
        case .float32: 4
        case .float16, .bfloat16: 2
        case .float8: 1
        case .q8_0: 34.0 / 32
        case .q4_0: 18.0 / 32
        }
    }
}
