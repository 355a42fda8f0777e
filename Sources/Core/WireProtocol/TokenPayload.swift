package import ServingTypes

/// Tokens as a frame's payload: Int32, little-endian, one after the other.
package enum TokenPayload {
    package static func encode(_ tokens: [TokenID]) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: tokens.count * 4) { bytes, count in
            for (index, token) in tokens.enumerated() {
                unsafe UnsafeMutableRawBufferPointer(bytes).storeBytes(
                    of: token.littleEndian, toByteOffset: index * 4, as: TokenID.self)
            }
            count = tokens.count * 4
        }
    }

    package static func decode(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> [TokenID] {
        guard bytes.count.isMultiple(of: 4), bytes.count / 4 <= WireLimits.tokens else {
            throw .wrongLength(
                field: "tokens", bytes: bytes.count, limitBytes: WireLimits.tokens * 4)
        }
        var all: TokenID = 0
        let tokens = unsafe [TokenID](unsafeUninitializedCapacity: bytes.count / 4) {
            tokens, count in
            count = bytes.count / 4
            for index in 0..<count {
                let token = unsafe TokenID(
                    littleEndian: bytes.loadUnaligned(fromByteOffset: index * 4, as: TokenID.self))
                all |= token
                unsafe tokens.initializeElement(at: index, to: token)
            }
        }
        guard all >= 0 else { throw .outOfRange(field: "tokens") }
        return tokens
    }

    package static func decode(_ bytes: [UInt8]) throws(WireError) -> [TokenID] {
        try unsafe bytes.withUnsafeBufferPointer { (bytes) throws(WireError) in
            try unsafe decode(UnsafeRawBufferPointer(bytes))
        }
    }
}
