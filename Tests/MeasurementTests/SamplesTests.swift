import Testing

@testable import Measurement

@Suite struct SamplesTests {
    @Test(arguments: [([3.0, 1, 2], 2.0), ([4.0, 1, 2, 3], 2.5), ([7.0], 7.0)])
    func `the median lies in the middle`(values: [Double], median: Double) {
        #expect(Samples(values).median == median)
    }

    @Test func `without values there is no median`() { #expect(Samples().median == nil) }
}
