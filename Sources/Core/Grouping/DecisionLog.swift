import ServingTypes

/// The latest decisions, and those that nobody has fetched yet; both bounded.
struct DecisionLog: Sendable {
    private(set) var decisions: [Decision] = []
    private var fresh: [Decision] = []
    private let capacity: Int

    init(capacity: Int) { self.capacity = max(1, capacity) }

    mutating func add(_ decision: Decision) {
        decisions.append(decision)
        fresh.append(decision)
        if decisions.count > capacity { decisions.removeFirst(decisions.count - capacity) }
        if fresh.count > capacity { fresh.removeFirst(fresh.count - capacity) }
    }

    mutating func takeNew() -> [Decision] {
        defer { fresh = [] }
        return fresh
    }
}

extension Double {
    /// With so many digits after the point, for people.
    func figure(_ digits: Int = 2) -> String {
        guard isFinite, abs(self) < 1e15 else { return "\(self)" }
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        let whole = Int((abs(self) * scale).rounded())
        let sign = self < 0 && whole > 0 ? "-" : ""
        guard digits > 0 else { return "\(sign)\(whole)" }
        let parts = whole.quotientAndRemainder(dividingBy: Int(scale))
        let fraction = String(parts.remainder)
        let zeros = String(repeating: "0", count: digits - fraction.count)
        return "\(sign)\(parts.quotient).\(zeros)\(fraction)"
    }

    /// The same with its sign, for differences.
    func signedFigure(_ digits: Int = 2) -> String { (self < 0 ? "" : "+") + figure(digits) }
}
