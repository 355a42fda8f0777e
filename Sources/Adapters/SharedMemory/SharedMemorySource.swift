import CSharedMemory
import FileBudget
package import InferenceEngine
import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Memory that another process of this host can map for reading.
///
/// Each region is a sealed memory file: its size is fixed, and only this process's own mapping can
/// write. Where the system has none to give, or too many files are open, it is ordinary memory.
package final class SharedMemorySource: KVMemorySource {
    private let maximumFiles: Int
    private let openFiles = Atomic<Int>(0)
    private let ordinary = OrdinaryKVMemory()

    /// Whether this system makes, seals and gives memory files.
    package static let isSupported: Bool = {
        let source = SharedMemorySource(maximumFiles: 1)
        let memory = source.allocate(capacityBytes: 1)
        defer { source.free(memory) }
        return memory.file != nil
    }()

    /// - Parameter maximumFiles: descriptors open at once; beyond them memory is ordinary.
    package init(maximumFiles: Int = SharedMemoryLimits.memoryFiles) {
        self.maximumFiles = maximumFiles
    }

    package func allocate(capacityBytes: Int) -> KVMemory {
        shared(capacityBytes) ?? ordinary.allocate(capacityBytes: capacityBytes)
    }

    private func shared(_ bytes: Int) -> KVMemory? {
        let count = openFiles.add(1, ordering: .relaxed).newValue
        if count <= maximumFiles, !OpenFiles.areScarce {
            var start: UnsafeMutableRawPointer?
            let file = unsafe shared_memory_create(max(bytes, 1), &start)
            if file >= 0 {
                return unsafe KVMemory(
                    UnsafeMutableRawBufferPointer(start: start, count: max(bytes, 1)), file: file)
            }
        }
        openFiles.subtract(1, ordering: .relaxed)
        return nil
    }

    package func free(_ memory: KVMemory) {
        guard let file = memory.file else { return ordinary.free(memory) }
        unsafe unmap(memory.bytes)
        close(file)
        openFiles.subtract(1, ordering: .relaxed)
    }
}

private func unmap(_ bytes: UnsafeRawBufferPointer) {
    if let start = bytes.baseAddress { unsafe shared_memory_unmap(start, bytes.count) }
}
