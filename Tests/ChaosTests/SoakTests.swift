import ServingTypes
import Testing

@testable import Chaos

@Suite struct SoakTests {
    private let seconds = (0..<400).map(Double.init)

    @Test func `what rises after the warm-up grows, what swings is flat`() throws {
        var numbers = SeededGenerator(seed: 1)
        let noise = seconds.map { _ in Double.random(in: -10...10, using: &numbers) }
        let flat = try #require(Soak.Trend(seconds, noise.map { 100 + $0 }, .memory))
        #expect(!flat.isGrowing, "\(flat)")
        let rising = zip(seconds, noise).map { 100 + 0.1 * $0 + $1 }
        let grown = try #require(Soak.Trend(seconds, rising, .memory))
        #expect(grown.isGrowing && abs(grown.slope - 0.1) < 0.01, "\(grown)")
        #expect(grown.samples == 300)
        // A start that fills caches is no growth.
        let warm = seconds.map { min($0, 80) }
        #expect(try !#require(Soak.Trend(seconds, warm, .memory)).isGrowing)
        // One more file now and then is.
        let files = seconds.map { (40 + $0 / 25).rounded(.down) }
        #expect(try #require(Soak.Trend(seconds, files, .descriptors)).isGrowing)
    }

    @Test func `a few samples are no line`() {
        #expect(Soak.Trend([0, 1], [1, 2], .threads) == nil)
        #expect(Soak.Trend([], [], .threads) == nil)
    }
}
