/// Which kinds of machine do what; how many is still open.
package enum Design: Hashable, Sendable {
    /// Every machine does both.
    case together(Int)
    case split(prefill: Int, decode: Int)

    /// All designs of one kind per role.
    static func all(_ kinds: Int) -> [Design] {
        (0..<kinds).map { .together($0) }
            + (0..<kinds).flatMap { prefill in
                (0..<kinds).map { .split(prefill: prefill, decode: $0) }
            }
    }

    package var isSplit: Bool { if case .split = self { true } else { false } }

    func fleet(prefill: Int, decode: Int) -> Fleet {
        switch self {
        case .together(let kind): Fleet(mixed: [kind: decode])
        case .split(let first, let second):
            Fleet(prefill: [first: prefill], decode: [second: decode])
        }
    }

    /// Most that its estimates promise for these numbers.
    func rate(prefill: Int, decode: Int, _ estimates: [CapacityEstimate]) -> Double {
        switch self {
        case .together(let kind): Double(decode) * estimates[kind].mixed
        case .split(let first, let second):
            min(
                Double(prefill) * estimates[first].prefill,
                Double(decode) * estimates[second].decode)
        }
    }

    /// The numbers that its estimates need for a rate; nil if no number is enough.
    func numbers(for rate: Double, _ estimates: [CapacityEstimate]) -> (prefill: Int, decode: Int)?
    {
        func count(_ each: Double) -> Int? {
            guard each > 0, rate / each < 1e6 else { return nil }
            return max(1, Int((rate / each).rounded(.up)))
        }
        switch self {
        case .together(let kind): return count(estimates[kind].mixed).map { (0, $0) }
        case .split(let first, let second):
            guard let prefill = count(estimates[first].prefill),
                let decode = count(estimates[second].decode)
            else { return nil }
            return (prefill, decode)
        }
    }
}
