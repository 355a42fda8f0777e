/// Shape of the KV cache one model keeps per sequence.
package struct KVShape: Hashable, Sendable {
    package var layers: Int
    package var kvHeads: Int
    package var headDimension: Int
    package var bytesPerElement: Int

    package init(layers: Int, kvHeads: Int, headDimension: Int, bytesPerElement: Int) {
        self.layers = layers
        self.kvHeads = kvHeads
        self.headDimension = headDimension
        self.bytesPerElement = bytesPerElement
    }

    /// KV bytes one more token adds to a sequence.
    package var bytesPerToken: Int { 2 * layers * kvHeads * headDimension * bytesPerElement }
}
