import ClusterStore
import Foundation
import ServingTypes
import Synchronization
import WireProtocol

/// The cluster's latest events; they go into the store, if there is one.
final class EventLog: Sendable {
    private struct State {
        /// Oldest first.
        var events: [ClusterEvent] = []
        var last: UInt64 = 0
        /// The last event before this term.
        var before: UInt64 = 0
        var writer: StoreWriter?
    }

    /// Events in one answer, at most, if nobody says how many.
    static let usualAnswer = 100
    /// Longer words are cut.
    static let wordsBytes = 2 << 10

    private let state = Mutex(State())

    init() {}

    var count: Int { state.withLock { $0.events.count } }

    func add(_ kind: ClusterEvent.Kind, _ subject: String, _ words: String) {
        let time = UInt64(max(0, Date().timeIntervalSince1970 * 1000))
        state.withLock { state in
            state.last += 1
            let event = ClusterEvent(
                number: state.last, unixMilliseconds: time, kind: kind, subject: subject,
                words: words.utf8.count <= Self.wordsBytes
                    ? words : String(words.prefix(Self.wordsBytes / 4)) + " …")
            state.events.append(event)
            // Now and then, so that an event costs no move of all the others.
            if state.events.count >= StoreLimits.keptEvents * 5 / 4 {
                state.events.removeFirst(state.events.count - StoreLimits.keptEvents)
            }
            state.writer?.put(StoreBatch(events: [event.stored]))
        }
    }

    /// A term begins: the events of the store are followed by those of this process that are in no
    /// store yet.
    func begin(_ stored: [StoredEvent], _ writer: StoreWriter?) {
        let decoder = JSONDecoder()
        let known = stored.compactMap {
            try? decoder.decode(ClusterEvent.self, from: Data($0.bytes))
        }
        state.withLock { state in
            let last = max(stored.last?.number ?? 0, known.last?.number ?? 0)
            let isFirst = state.writer == nil && stored.isEmpty
            let own = isFirst ? state.events : []
            state.events = known + own
            state.last = max(last, isFirst ? state.last : 0)
            state.before = isFirst ? 0 : state.last
            state.writer = writer
            writer?.put(StoreBatch(events: own.map(\.stored)))
        }
    }

    /// The term is over: what happens from now on is no matter of the store.
    func end() { state.withLock { $0.writer = nil } }

    /// - Parameter number: only later ones.
    func list(last count: Int, after number: UInt64 = 0) -> [ClusterEvent] {
        state.withLock { $0.events.filter { $0.number > number }.suffix(max(0, count)) }
    }

    /// One event a line, as JSON; as many as an answer holds: the first ones after a number, or the
    /// last ones.
    func answer(_ request: AdminRequest) -> AdminReply {
        var after: UInt64?
        if let text = request["after"] {
            guard let number = UInt64(text) else {
                return AdminReply(
                    isAccepted: false, text: "after is '\(text)'; give an event's number")
            }
            // Who knows later ones has them of a scheduler that could not save them: all that is
            // new to it is of this term.
            after = state.withLock { number > $0.last ? $0.before : number }
        }
        var count = Self.usualAnswer
        if let text = request["last"] {
            guard let number = Int(text), (0...StoreLimits.keptEvents).contains(number) else {
                return AdminReply(
                    isAccepted: false,
                    text: "last is '\(text)'; give a number up to \(StoreLimits.keptEvents)")
            }
            count = number
        }
        let events = list(last: after == nil ? count : .max, after: after ?? 0)
        var text = ""
        for event in events {
            let line = String(decoding: event.stored.bytes, as: UTF8.self) + "\n"
            guard text.utf8.count + line.utf8.count <= WireLimits.answerBytes else { break }
            text += line
        }
        return AdminReply(isAccepted: true, text: text)
    }
}

extension ClusterEvent {
    var stored: StoredEvent {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let bytes = (try? encoder.encode(self)).map(Array.init) ?? []
        return StoredEvent(number: number, bytes: bytes)
    }
}
