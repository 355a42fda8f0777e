package import ServingTypes

/// Shares a bounded area for KV that has landed, or may land, and is not imported.
///
/// Senders send only what they have credit for, so the area never overflows and a connection never
/// has to wait inside a payload for room. Older transfers are served first, and younger ones always
/// leave an older one room for a chunk: so one of them can go on, whatever the others wait for.
package struct LandingArea: Hashable, Sendable {
    private struct Share: Hashable {
        let attempt: AttemptID
        /// Raw bytes that may come and have no credit.
        var uncredited: Int
        /// Largest chunk; credit below one is of no use to the sender.
        var chunkBytes: Int
        /// Credit that has not been used.
        var credited = 0
        /// Landed and not imported.
        var landed: Int
        /// A chunk has come.
        var hasBegun = false

        var used: Int { credited + landed }
        /// Credit with which it can go on, whatever chunk comes next.
        var neededCredit: Int { min(chunkBytes, credited + uncredited) }
    }

    package let capacityBytes: Int
    /// Most bytes credited and landed of one transfer, if its chunks are not larger.
    package let windowBytes: Int
    /// Credited and landed bytes of all transfers.
    package private(set) var usedBytes = 0
    /// The oldest first.
    private var shares: [Share] = []

    package init(capacityBytes: Int, windowBytes: Int) {
        precondition(capacityBytes > 0 && windowBytes > 0, "an area without room")
        self.capacityBytes = capacityBytes
        self.windowBytes = windowBytes
    }

    package var transfers: Int { shares.count }
    package var landedBytes: Int { shares.reduce(0) { $0 + $1.landed } }

    /// Whether chunks of this size can ever land.
    package func canHold(chunkBytes: Int) -> Bool { chunkBytes <= capacityBytes }

    /// Begins a transfer, or begins it anew; gives its first credit, possibly 0, and what others
    /// get.
    ///
    /// The first credit is for one chunk: the sender may have to compute for long before it needs
    /// it. The window opens when that chunk has come. What was credited before is void.
    ///
    /// - Parameters:
    ///   - totalBytes: most raw bytes that will come.
    ///   - chunkBytes: most raw bytes of one chunk; the area must be able to hold one.
    ///   - importingBytes: how much of what has landed before is still being imported; the rest is
    ///     thrown away.
    package mutating func open(
        _ attempt: AttemptID, totalBytes: Int, chunkBytes: Int, importingBytes: Int = 0
    ) -> (creditBytes: Int, others: [KVCredit]) {
        precondition(canHold(chunkBytes: chunkBytes), "a chunk larger than the landing area")
        let present = index(of: attempt)
        let share = Share(
            attempt: attempt, uncredited: totalBytes,
            chunkBytes: max(1, min(chunkBytes, totalBytes)),
            landed: min(importingBytes, present.map { shares[$0].landed } ?? 0))
        usedBytes += share.used - (present.map { shares[$0].used } ?? 0)
        if let present { shares[present] = share } else { shares.append(share) }
        let bytes = credit(present ?? shares.count - 1)
        return (bytes, credits())
    }

    /// A chunk comes; says whether there was credit for it.
    ///
    /// `widen` follows if it is wanted.
    package mutating func land(_ attempt: AttemptID, bytes: Int) -> Bool {
        guard let index = index(of: attempt), bytes <= shares[index].credited else { return false }
        shares[index].credited -= bytes
        shares[index].landed += bytes
        shares[index].hasBegun = true
        return true
    }

    /// Opens the window of a transfer whose chunks come; gives what credit there is.
    package mutating func widen(_ attempt: AttemptID) -> [KVCredit] {
        guard let index = index(of: attempt) else { return [] }
        let bytes = credit(index)
        return bytes > 0 ? [KVCredit(attempt: attempt, bytes: bytes)] : []
    }

    /// Landed bytes are imported or thrown away; gives the credit that others, or it, get now.
    package mutating func leave(_ attempt: AttemptID, bytes: Int) -> [KVCredit] {
        if let index = index(of: attempt) {
            let leaving = min(bytes, shares[index].landed)
            shares[index].landed -= leaving
            usedBytes -= leaving
        }
        return credits()
    }

    /// The transfer has ended; what has landed of it is imported or thrown away.
    package mutating func close(_ attempt: AttemptID) -> [KVCredit] {
        if let index = index(of: attempt) { usedBytes -= shares.remove(at: index).used }
        return credits()
    }

    private func index(of attempt: AttemptID) -> Int? {
        shares.firstIndex { $0.attempt == attempt }
    }

    private mutating func credits() -> [KVCredit] {
        shares.indices.compactMap { index in
            let bytes = credit(index)
            return bytes > 0 ? KVCredit(attempt: shares[index].attempt, bytes: bytes) : nil
        }
    }

    /// Gives the transfer what fits into its window and the area; nothing if it could not send a
    /// chunk with it.
    private mutating func credit(_ index: Int) -> Int {
        guard usedBytes < capacityBytes, shares[index].uncredited > 0 else { return 0 }
        let share = shares[index]
        let window =
            share.hasBegun
            ? max(windowBytes, share.chunkBytes) - share.used
            : share.chunkBytes - share.credited
        let bytes = min(share.uncredited, window, room(for: index))
        guard bytes > 0, share.credited + bytes >= share.neededCredit else { return 0 }
        shares[index].uncredited -= bytes
        shares[index].credited += bytes
        usedBytes += bytes
        return bytes
    }

    /// Bytes that this transfer may take so that each older one, when those before it are gone,
    /// still finds room for its chunk.
    private func room(for index: Int) -> Int {
        var room = capacityBytes - usedBytes
        var younger = usedBytes
        for older in shares[..<index] {
            younger -= older.used
            room = min(room, capacityBytes - older.neededCredit - younger)
        }
        return room
    }
}
