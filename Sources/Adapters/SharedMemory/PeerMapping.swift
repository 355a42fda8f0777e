import CSharedMemory
import InferenceEngine
import Synchronization

/// A peer's memory file, mapped for reading; unmapped when no buffer uses it and nobody keeps it.
@safe final class PeerMapping: KVMemoryOwner {
    let byteCount: Int
    private let address: UInt
    /// Bytes from the start on whose pages are there.
    private let providedBytes = Atomic<Int>(0)

    /// Maps the first bytes of a file that was checked.
    init(_ file: Int32, byteCount: Int) throws(LocalTransferError) {
        var start: UnsafeRawPointer?
        let code = unsafe shared_memory_map(file, byteCount, &start)
        guard code == 0 else { throw .notMapped(LocalSocket.text(-code)) }
        self.byteCount = byteCount
        address = UInt(bitPattern: start)
    }

    deinit {
        if let start = unsafe UnsafeRawPointer(bitPattern: address) {
            unsafe shared_memory_unmap(start, byteCount)
        }
    }

    /// The first bytes, full of KV; used by one thread at a time.
    func buffer(usedBytes: Int) throws(LocalTransferError) -> KVBuffer {
        let memory = unsafe UnsafeRawBufferPointer(
            start: UnsafeRawPointer(bitPattern: address), count: byteCount)
        let provided = providedBytes.load(ordering: .acquiring)
        if usedBytes > provided {
            // Pages that are there stay: the seals forbid to take any out of the file.
            let rest = unsafe UnsafeRawBufferPointer(rebasing: memory[provided..<usedBytes])
            let code = unsafe rest.baseAddress.map { unsafe shared_memory_provide($0, rest.count) }
            if let code, code != 0 { throw .notMapped(LocalSocket.text(-code)) }
            providedBytes.store(usedBytes, ordering: .releasing)
        }
        return KVBuffer(
            memory: unsafe KVMemory(
                readOnly: UnsafeRawBufferPointer(rebasing: memory[..<usedBytes])),
            usedBytes: usedBytes, owner: self)
    }

    /// Nothing: the buffer's reference was what kept the memory.
    func free(_ memory: KVMemory) {}
}
