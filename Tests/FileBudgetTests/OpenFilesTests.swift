import FileBudget
import Testing

@Suite struct OpenFilesTests {
    @Test func `a quarter of a small limit is kept free, and no more than the reserve`() {
        #expect(OpenFiles.reserve(ofLimit: 60) == 15)
        #expect(OpenFiles.reserve(ofLimit: 1024) == 256)
        #expect(OpenFiles.reserve(ofLimit: 1_000_000) == OpenFiles.reserve)
    }

    @Test func `open files are counted`() throws {
        let limit = try #require(OpenFiles.limit)
        let count = try #require(OpenFiles.count)
        #expect((3..<limit).contains(count))
        #expect(!OpenFiles.areVeryScarce)
        #expect(OpenFiles.forConnections < limit)
    }
}
