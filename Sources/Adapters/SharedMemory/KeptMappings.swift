import Synchronization

/// Which memory file this is among all of this host that somebody has open or mapped.
struct MemoryFileID: Hashable, Sendable {
    let device: UInt64
    let inode: UInt64
}

/// Mappings of one peer's memory files, kept for when a file comes again: to map one anew costs
/// a third of copying it.
///
/// Beyond the bounds the one that has not come for longest goes. Until then the pages of a file
/// stay even if the peer has freed it: what is kept is bounded, and nothing tells which files will
/// not come again. A mapping that a buffer uses is only no longer kept, and goes with the buffer.
///
/// A mapping keeps its file's number from being given to another file.
final class KeptMappings: Sendable {
    private struct Entry {
        let mapping: PeerMapping
        var lastUse: UInt64
    }

    private struct State {
        var entries: [MemoryFileID: Entry] = [:]
        var bytes = 0
        var uses: UInt64 = 0
        var isClosed = false

        mutating func remove(_ file: MemoryFileID) -> PeerMapping? {
            guard let entry = entries.removeValue(forKey: file) else { return nil }
            bytes -= entry.mapping.byteCount
            return entry.mapping
        }
    }

    let maximumFiles: Int
    let maximumBytes: Int
    private let state = Mutex(State())

    init(
        maximumFiles: Int = SharedMemoryLimits.keptMappings,
        maximumBytes: Int = SharedMemoryLimits.keptMappingBytes
    ) {
        self.maximumFiles = maximumFiles
        self.maximumBytes = maximumBytes
    }

    /// The mapping of the file if it is kept; counts as a use.
    func mapping(of file: MemoryFileID) -> PeerMapping? {
        state.withLock { state in
            state.uses += 1
            state.entries[file]?.lastUse = state.uses
            return state.entries[file]?.mapping
        }
    }

    /// Keeps a mapping of a whole file, unless it alone is too large or all is over.
    func keep(_ mapping: PeerMapping, of file: MemoryFileID) {
        guard mapping.byteCount <= maximumBytes, maximumFiles > 0 else { return }
        // Unmapped after the lock is let go: that takes a while.
        let evicted = state.withLock { state -> [PeerMapping?] in
            guard !state.isClosed else { return [] }
            var evicted = [state.remove(file)]
            while state.entries.count >= maximumFiles
                || state.bytes > maximumBytes - mapping.byteCount,
                let oldest = state.entries.min(by: { $0.value.lastUse < $1.value.lastUse })
            {
                evicted.append(state.remove(oldest.key))
            }
            state.uses += 1
            state.entries[file] = Entry(mapping: mapping, lastUse: state.uses)
            state.bytes += mapping.byteCount
            return evicted
        }
        withExtendedLifetime(evicted) {}
    }

    /// Keeps nothing from now on.
    func close() {
        let entries = state.withLock { state in
            state.isClosed = true
            state.bytes = 0
            defer { state.entries = [:] }
            return state.entries
        }
        withExtendedLifetime(entries) {}
    }
}
