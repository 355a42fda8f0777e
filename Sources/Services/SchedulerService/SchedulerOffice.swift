import ClusterRules
import ClusterStore
import Foundation
import Grouping
import HTTPServer
import Logging
import Metrics
import ServiceLifecycle
import ServiceRuntime
import ServiceStart
import ServingTypes
import Synchronization
import Transport

/// Leads when it is this scheduler's turn, and stands by otherwise.
///
///     standby ──the store lets it──▶ leads ──the term is over──▶ standby
///                                      └──shutdown──▶ resigns, ends
///
/// A standby listens for nobody: who connects hears at once that it has to go elsewhere. Without a
/// store it leads from its start to its end.
final class SchedulerOffice: Service {
    /// Time that is left for what has not been saved when the process ends.
    private static let farewell: Duration = .seconds(2)

    private let settings: SchedulerSettings
    private let identity: ProcessIdentity
    private let connections: Int
    private let store: (any ClusterStore)?
    private let file: ClusterRulesFile?
    private let content: Mutex<ClusterRulesFile.Content?>
    /// Listens already; without a store a port that is taken ends the start.
    private let listener: Mutex<ControlListener?>
    private let logger: Logger
    let events = EventLog()
    private let admin = Mutex<HTTPEndpoint?>(nil)
    private let current = Mutex<SchedulerService?>(nil)

    init(
        _ settings: SchedulerSettings, identity: ProcessIdentity, connections: Int,
        store: (any ClusterStore)?, file: ClusterRulesFile?, content: ClusterRulesFile.Content?,
        logger: Logger
    ) async throws {
        self.settings = settings
        self.identity = identity
        self.connections = connections
        self.store = store
        self.file = file
        self.content = Mutex(content)
        self.logger = logger
        listener = Mutex(nil)
        guard store == nil else { return }
        let first = try makeListener()
        try await first.start()
        listener.withLock { $0 = first }
    }

    /// Nil while it stands by.
    var scheduler: SchedulerService? { current.withLock { $0 } }

    var health: ServiceHealth { scheduler == nil && store != nil ? .standby : .ready }

    func run() async throws {
        try await untilShutdown { try await self.serve() }
    }

    /// Writes the addresses to the endpoint's, too.
    func announce(with endpoint: HTTPEndpoint) { admin.withLock { $0 = endpoint } }

    private func makeListener() throws(TransportError) -> ControlListener {
        try ControlListener(
            address: settings.listen, context: identity.context, hello: identity.hello,
            allowedRoles: [
                .gateway, .prefillWorker, .decodeWorker, .healthAgent, .administrator,
            ], connectionLimit: connections, logger: logger)
    }

    private func announce(control: NetworkAddress?) async throws {
        let address = try await admin.withLock { $0 }?.boundAddress()
        if try !settings.common.write(Announcement(control: control, admin: address)) {
            logger.error(
                "the disk is full: the addresses are not written",
                metadata: ["file": "\(settings.common.announce ?? "")"])
        }
    }

    // MARK: Terms

    private func serve() async throws {
        Gauge(label: "scheduler_leads").record(0)
        guard let store else { return try await lead(nil) }
        try await announce(control: nil)
        let name = identity.hello.instance.name
        while true {
            let term = try await store.takeOffice(as: name) { leader in
                self.logger.notice("standing by", metadata: ["leader": "\(leader)"])
            }
            try await lead(StoreLink(term: term, logger: logger))
        }
    }

    private func lead(_ link: StoreLink?) async throws {
        let writing = link.map { link in Task { await link.writer.run() } }
        defer { writing?.cancel() }
        do {
            try await govern(link)
        } catch {
            await leave(link)
            throw error
        }
        await leave(link)
    }

    /// Runs to its end even if this task is cancelled.
    private func leave(_ link: StoreLink?) async {
        current.withLock { $0 = nil }
        Gauge(label: "scheduler_leads").record(0)
        guard let link else { return }
        let name = identity.hello.instance.name
        let events = events
        if link.term.isCurrent { events.add(.leadership, name, "resigns") }
        events.end()
        await Task {
            if link.term.isCurrent { _ = await link.writer.flush(within: Self.farewell) }
            await link.term.resign()
        }.value
    }

    /// Returns when the term is over.
    private func govern(_ link: StoreLink?) async throws {
        let started = ContinuousClock.now
        // Rises with each start, as long as the host's clock does not go back; those who follow
        // one scheduler alone bear that, too.
        let epoch = link?.term.epoch ?? UInt64(max(1, Date().timeIntervalSince1970 * 1000))
        let records = try await recall(link)
        let content = readRules()
        try link.map { link in
            link.writer.put(
                StoreBatch(records: try SavedRecordCoding.header(rules: content?.text)))
        }
        let listener = try self.listener.withLock { $0.take() } ?? makeListener()
        let control = try await listener.start()
        let scheduler = SchedulerService(
            listener: listener, limits: settings.limits, epoch: epoch, rules: file,
            events: events, store: link, logger: logger)
        scheduler.restore(records)
        if let content { scheduler.apply(content) }
        current.withLock { $0 = scheduler }
        Gauge(label: "scheduler_leads").record(1)
        Counter(label: "scheduler_terms_total").increment()
        let name = identity.hello.instance.name
        events.add(
            .leadership, name, "leads with epoch \(epoch) and \(records.count) saved records")
        logger.notice(
            "the scheduler is ready",
            metadata: [
                "control": "\(control)", "scenarios": "\(content?.spec.scenarios.count ?? 1)",
                "epoch": "\(epoch)", "records": "\(records.count)",
                "milliseconds": "\((ContinuousClock.now - started).milliseconds)",
            ])
        try await announce(control: control)
        try await withThrowingTaskGroup(of: String.self) { group in
            group.addTask {
                try await scheduler.serve()
                return "it has ended"
            }
            if let link { group.addTask { await link.term.ended() } }
            defer { group.cancelAll() }
            guard let reason = try await group.next(), link != nil else { return }
            try Task.checkCancellation()
            logger.error("this scheduler leads no more", metadata: ["reason": "\(reason)"])
            events.end()
            events.add(.leadership, name, "leads no more: \(reason)")
            current.withLock { $0 = nil }
        }
    }

    private func recall(_ link: StoreLink?) async throws -> [SavedKey: SavedRecord] {
        guard let link else { return [:] }
        let records = try await link.term.load()
        let decoded = try SavedRecordCoding.decode(records, of: settings.store.text) { key in
            logger.warning("a record can't be read", metadata: ["record": "\(key)"])
        }
        events.begin(try await link.term.lastEvents(StoreLimits.keptEvents), link.writer)
        return decoded
    }

    /// The cluster file as it is now, or as it was when it was right.
    private func readRules() -> ClusterRulesFile.Content? {
        guard var file else { return nil }
        do throws(ClusterRulesError) {
            let new = try file.read()
            content.withLock { $0 = new }
        } catch {
            logger.error(
                "the cluster file can't be used, the rules before it stay",
                metadata: ["reason": "\(error)"])
        }
        return content.withLock { $0 }
    }
}
