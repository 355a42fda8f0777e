import Testing

import ServingTypes

/// Vectors of FIPS 180-4 and NIST's examples.
@Suite struct SHA256Tests {
    private func hexadecimal(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    @Test(arguments: [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
        (
            String(repeating: "a", count: 1000),
            "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3"
        ),
    ])
    func `known texts have their known hash`(text: String, expected: String) {
        var hash = SHA256()
        hash.update(Array(text.utf8))
        #expect(hexadecimal(hash.finalize()) == expected)
    }

    @Test func `pieces give the hash of the whole`() {
        let bytes = (0..<300).map { UInt8(truncatingIfNeeded: $0) }
        var whole = SHA256()
        whole.update(bytes)
        var pieces = SHA256()
        for start in stride(from: 0, to: 300, by: 7) {
            pieces.update(Array(bytes[start..<min(start + 7, 300)]))
        }
        #expect(whole.finalize() == pieces.finalize())
    }
}
