/// Every bound of this module.
package enum SharedMemoryLimits {
    /// Memory files, and so descriptors, of one source; one more region is ordinary memory.
    package static let memoryFiles = 128
    /// Mappings of a connection that wait for their files to come again; as many as a source has.
    package static let keptMappings = memoryFiles
    /// Bytes of those files; a larger file is mapped each time.
    package static let keptMappingBytes = 512 << 20
    /// Tokens of one listener: those it waits for and those whose connection waits to be taken.
    package static let expectedTokens = 256
    /// Open connections of one listener; more are closed at once.
    package static let connections = 64
    /// Connections of one listener that have not shown their token yet; the next ones wait in the
    /// kernel.
    static let unprovenConnections = 16
    /// Time for a connection to show its token.
    package static let tokenDeadline = Duration.seconds(2)
    /// Connections the kernel holds for a listener that has not accepted them yet.
    static let acceptBacklog: Int32 = 64
    /// Pause of a sender while the listener's queue is full.
    static let connectPause = Duration.milliseconds(5)
    /// Sockets of dead processes that a new listener removes from its folder.
    package static let sweptDoors = 256
    /// A socket younger than this may belong to a process that is just starting.
    package static let youngestSweptSeconds = 60.0
}
