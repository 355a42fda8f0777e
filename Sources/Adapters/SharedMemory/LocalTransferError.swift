/// Why memory did not reach another process of this host; the caller sends the bytes over TLS.
package enum LocalTransferError: Error, Equatable {
    /// The system has no memory files, or none that can be sealed.
    case notSupported
    /// Listener: the folder is not there and can't be made, or others may change it.
    case folderUnusable(path: String, problem: String)
    /// Listener: not the name of a file in a folder.
    case badName(String)
    case pathTooLong(path: String, limitBytes: Int)
    /// Listener: another one, of this or another process, has the path.
    case nameTaken(path: String)
    case listenFailed(path: String, problem: String)
    /// Listener: forget some tokens first.
    case tooManyTokens(limit: Int)

    /// Sender: nobody listens there.
    case connectFailed(path: String, problem: String)
    /// The other process belongs to another user.
    case foreignUser(UInt32)
    /// Sender: the listener does not expect the token, or no more connections.
    case tokenRefused
    /// Sender: the buffer is ordinary memory; the connection stays usable.
    case notShared

    case deadline
    case closedByPeer
    /// This side closed it.
    case shutDown
    case connectionLost(String)

    // Receiver: the peer does not keep to the rules.

    /// Not one descriptor came with the message, but none or more.
    case descriptors(count: Int)
    /// Descriptors were lost on the way: too many, or this process has no room for more.
    case descriptorsLost
    case wrongNumber(expected: UInt64, received: UInt64)
    /// The descriptor is none of a memory file.
    case notMemoryFile
    /// The memory could shrink while it is read, or be written to.
    case notSealed
    case wrongSize(announcedBytes: UInt64, actualBytes: UInt64)
    case tooSmall(actualBytes: UInt64, neededBytes: Int)
    case notMapped(String)
}
