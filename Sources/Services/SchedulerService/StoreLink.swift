import ClusterStore
import Grouping
import Logging
import Metrics
import ServiceRuntime
import ServingTypes

/// What goes from a scheduler into its store, and what is heard of it.
final class StoreLink: Sendable {
    let term: any ClusterTerm
    let writer: StoreWriter
    private let logger: Logger

    static func describe(in registry: MetricsRegistry) {
        for (name, help) in [
            ("scheduler_leads", "1 while this scheduler leads, 0 while it stands by."),
            ("scheduler_terms", "Times this scheduler began to lead."),
            ("scheduler_store_failures", "Writes to the store that failed."),
            ("scheduler_store_write_seconds", "Time of a write to the store."),
            ("scheduler_store_records", "Records written to the store."),
            ("scheduler_store_bytes", "Bytes of records and events written to the store."),
            ("scheduler_events_dropped", "Events that were not stored, for too many waited."),
        ] { registry.describe(name, help) }
    }

    init(term: any ClusterTerm, logger: Logger) {
        self.term = term
        self.logger = logger
        writer = StoreWriter(term: term) { Self.note($0, logger) }
    }

    func save(_ changes: [SavedKey: SavedRecord?]) {
        var batch = StoreBatch()
        for (key, record) in changes {
            guard let record else {
                batch.records[key.text] = .some(nil)
                continue
            }
            do {
                batch.records[key.text] = try SavedRecordCoding.encode(record)
            } catch {
                logger.error(
                    "a record can't be written",
                    metadata: ["record": "\(key.text)", "reason": "\(error)"])
            }
        }
        writer.put(batch)
    }

    /// For people: which cluster file applies.
    func noteRules(_ text: String) {
        do {
            writer.put(StoreBatch(records: try SavedRecordCoding.header(rules: text)))
        } catch {
            logger.error("a record can't be written", metadata: ["reason": "\(error)"])
        }
    }

    private static func note(_ report: StoreWriter.Report, _ logger: Logger) {
        switch report {
        case .saved(let records, let bytes, let duration):
            Timer(label: "scheduler_store_write_seconds").record(duration: duration)
            Counter(label: "scheduler_store_records_total").increment(by: records)
            Counter(label: "scheduler_store_bytes_total").increment(by: bytes)
        case .failed(let error, let isNew):
            Counter(label: "scheduler_store_failures_total").increment()
            guard isNew else { return }
            logger.error(
                "the store takes nothing; serving goes on, and it is tried again",
                metadata: ["reason": "\(error)"])
        case .dropped(let events):
            Counter(label: "scheduler_events_dropped_total").increment(by: events)
        }
    }
}
