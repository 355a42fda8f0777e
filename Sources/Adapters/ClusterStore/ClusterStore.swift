/// What outlives a scheduler: its records and its events, for one leader at a time.
package protocol ClusterStore: Sendable {
    /// Waits while another leads; the task's cancellation ends the waiting.
    ///
    /// - Parameters:
    ///   - name: what others are told of this process.
    ///   - waiting: called with the leader's name, again if it changes.
    /// - Throws: `StoreError`, or `CancellationError`.
    func takeOffice(
        as name: String, waiting: @escaping @Sendable (String) -> Void
    ) async throws -> any ClusterTerm
}

/// The time for which one process leads.
package protocol ClusterTerm: Sendable {
    /// Greater than that of every earlier term, and no less than the milliseconds since 1970 at its
    /// beginning.
    var epoch: UInt64 { get }

    /// False as soon as another may lead, by this process's own clock; asked before every act.
    var isCurrent: Bool { get }

    /// All records, by key.
    func load() async throws(StoreError) -> [String: [UInt8]]

    /// Saves what changed: nothing of it, or all. A batch beyond one request's bounds is saved in
    /// parts, each whole.
    ///
    /// - Throws: `StoreError.fenced` if the term is over.
    func save(_ batch: StoreBatch) async throws(StoreError)

    /// The latest events, oldest first.
    func lastEvents(_ count: Int) async throws(StoreError) -> [StoredEvent]

    /// Returns, with the reason, when the term is over, however it came to its end.
    func ended() async -> String

    /// Lets another lead at once.
    func resign() async
}

/// An event as it is stored.
package struct StoredEvent: Hashable, Sendable {
    /// Rises by time; an event with a number that is there already takes its place.
    package var number: UInt64
    package var bytes: [UInt8]

    package init(number: UInt64, bytes: [UInt8]) {
        self.number = number
        self.bytes = bytes
    }
}

/// What is to be saved.
package struct StoreBatch: Hashable, Sendable {
    /// By key; nil removes the record.
    package var records: [String: [UInt8]?]
    /// In order of their numbers.
    package var events: [StoredEvent]

    package init(records: [String: [UInt8]?] = [:], events: [StoredEvent] = []) {
        self.records = records
        self.events = events
    }

    package var isEmpty: Bool { records.isEmpty && events.isEmpty }

    package var bytes: Int {
        records.reduce(0) { $0 + $1.key.utf8.count + ($1.value?.count ?? 0) }
            + events.reduce(0) { $0 + $1.bytes.count }
    }

    /// Takes over what is newer.
    ///
    /// - Returns: how many of the oldest events were dropped, beyond the bound.
    @discardableResult
    mutating func add(_ newer: StoreBatch) -> Int {
        records.merge(newer.records) { $1 }
        events += newer.events
        let surplus = max(0, events.count - StoreLimits.waitingEvents)
        events.removeFirst(surplus)
        return surplus
    }

    func check() throws(StoreError) {
        for (key, value) in records {
            let bytes = key.utf8.count + (value?.count ?? 0)
            guard bytes <= StoreLimits.recordBytes else {
                throw .tooLarge(key: key, bytes: bytes, limit: StoreLimits.recordBytes)
            }
        }
        for event in events where event.bytes.count > StoreLimits.recordBytes {
            throw .tooLarge(
                key: "event \(event.number)", bytes: event.bytes.count,
                limit: StoreLimits.recordBytes)
        }
    }
}

/// Every bound of this module.
package enum StoreLimits {
    /// Events kept; older ones are removed.
    package static let keptEvents = 10_000
    /// Events that wait to be written; of more the oldest are dropped.
    static let waitingEvents = 10_000
    /// Longest record or event, with its key.
    static let recordBytes = 64 << 10
    /// Records that are loaded, at most.
    static let records = 200_000
    /// Pauses after a failed write.
    static let firstPause = Duration.milliseconds(250)
    static let longestPause = Duration.seconds(10)

    // SQLite.

    /// Largest database.
    static let databaseBytes = 512 << 20
    static let pageBytes = 4096
    /// Between two tries to lock the file: so long a standby stays behind.
    static let lockPoll = Duration.milliseconds(50)
    /// Between two looks whether the lock file is still there.
    static let lockCheck = Duration.seconds(1)
    /// Time for which a reader, such as the sqlite3 tool, may hold a write up.
    static let busySeconds = 2.0
    /// Copies of damaged files that are kept; with more of them a person has to choose.
    static let damagedCopies = 100

    // etcd.

    /// A lease's time to live, unless a setting says otherwise.
    package static let lease = Duration.seconds(5)
    /// What a lease may be set to.
    package static let leases = Duration.seconds(2) ... .seconds(60)
    /// Part of a lease that counts as over already: for clocks of different speed, and for what was
    /// checked before and is done after.
    static let leaseMargin = 0.1
    /// Operations in one transaction; etcd allows 128.
    static let operations = 100
    /// Bytes in one transaction before base64; etcd allows 1.5 MiB of a request.
    static let transactionBytes = 512 << 10
    /// Records in one page of an answer.
    static let page = 500
    /// Longest answer.
    static let answerBytes = 64 << 20
    /// Longest line of a watch that is looked at.
    static let watchLineBytes = 1 << 20
}
