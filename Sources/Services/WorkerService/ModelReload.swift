/// How a worker takes up another model: in a new life of its process.
package struct ModelReload: Sendable {
    /// Says cheaply whether the file can be loaded at all.
    package var check: @Sendable (String) throws -> Void
    /// Ends this life in order and begins the next one with the file.
    package var begin: @Sendable (String) -> Void

    package init(
        check: @escaping @Sendable (String) throws -> Void,
        begin: @escaping @Sendable (String) -> Void
    ) {
        self.check = check
        self.begin = begin
    }
}
