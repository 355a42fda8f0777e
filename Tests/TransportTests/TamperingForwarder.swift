import Foundation
import ServingTypes
import Synchronization

@testable import Transport

/// Stands between a client and a server and changes what the client sends.
final class TamperingForwarder: Sendable {
    /// Changes bytes on their way; false cuts the connection instead.
    ///
    /// - Parameter position: of the first of the bytes in the stream.
    typealias Tamper = @Sendable (_ bytes: inout [UInt8], _ position: Int) -> Bool

    let address: NetworkAddress
    private let listener: Int32
    private let count = Mutex(0)

    /// Forwards one connection.
    init(to server: NetworkAddress, tamper: @escaping Tamper) throws {
        listener = try Sockets.listen(on: loopback)
        guard let address = Sockets.address(of: listener, isPeer: false) else {
            throw SystemError()
        }
        self.address = address
        Thread { [self] in
            let deadline = Deadline(after: .seconds(20))
            guard Sockets.wait(listener, Int16(POLLIN), deadline),
                let file = try? Sockets.accept(listener),
                let onward = try? Sockets.connect(to: server, deadline: deadline)
            else { return }
            let (client, server) = (StreamSocket(file: file), StreamSocket(file: onward))
            Thread { Self.copy(from: server, to: client) { _, _ in true } }.start()
            Self.copy(from: client, to: server) { bytes, position in
                self.count.withLock { $0 = position + bytes.count }
                return tamper(&bytes, position)
            }
        }.start()
    }

    deinit { close(listener) }

    /// What the client has sent so far.
    var forwardedBytes: Int { count.withLock(\.self) }

    private static func copy(
        from source: StreamSocket, to target: StreamSocket, _ tamper: Tamper
    ) {
        let deadline = Deadline(after: .seconds(20))
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        var position = 0
        while Sockets.wait(source.file, Int16(POLLIN), deadline) {
            let count = unsafe buffer.withUnsafeMutableBytes {
                unsafe Platform.read(source.file, $0)
            }
            if count < 0, errno == EAGAIN { continue }
            guard count > 0 else {
                Platform.shutdown(target.file, .sending)
                return
            }
            var bytes = Array(buffer.prefix(count))
            guard tamper(&bytes, position) else {
                source.shutdown()
                target.shutdown()
                return
            }
            position += count
            let isWritten: Void? = unsafe try? bytes.withUnsafeBytes {
                try unsafe target.write($0, deadline)
            }
            if isWritten == nil { return source.shutdown() }
        }
    }
}
