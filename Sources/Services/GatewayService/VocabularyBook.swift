import Foundation
package import InferenceEngine
package import Logging
import Metrics
package import Roles
import ServingTypes
import Synchronization

/// A model's vocabulary and what recognises it.
package struct Speaker: Sendable {
    package var tokenizer: any Tokenizer
    package var vocabulary: VocabularyID

    package init(tokenizer: any Tokenizer, vocabulary: VocabularyID) {
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
    }
}

/// The vocabularies of the model files that groups have, loaded when a view names them.
///
/// A group whose vocabulary is not here gets no requests from this gateway.
package final class VocabularyBook: Sendable {
    /// Most vocabularies at once, besides the gateway's own.
    private static let maximumLoaded = 4

    private enum Entry: Sendable {
        case loading
        case loaded(Speaker)
        case refused
    }

    private struct State {
        var entries: [String: Entry] = [:]
        /// Has seen groups of its model.
        var hasSeen = false
    }

    /// That of the gateway's own model file.
    package let own: Speaker
    private let ownPath: String?
    private let load: @Sendable (String) throws -> Speaker
    private let logger: Logger
    private let state = Mutex(State())
    /// Files to load, one after the other.
    let wanted: AsyncStream<String>
    private let wants: AsyncStream<String>.Continuation

    /// - Parameters:
    ///   - ownPath: the gateway's own model file.
    ///   - load: blocks until the vocabulary of a file is there.
    package init(
        own: Speaker, ownPath: String?, logger: Logger,
        load: @escaping @Sendable (String) throws -> Speaker
    ) {
        self.own = own
        self.ownPath = ownPath
        self.logger = logger
        self.load = load
        // Bounded by the entries, each of which is wanted once.
        (wanted, wants) = AsyncStream.makeStream(of: String.self)
    }

    /// Wants what the groups need, forgets what none has any more.
    ///
    /// Says whether the known vocabularies are others now.
    func follow(_ groups: [ServingGroup]) -> Bool {
        let paths = Set(
            groups.filter { $0.modelName == own.tokenizer.modelName && !$0.modelPath.isEmpty }
                .map(\.modelPath))
        return state.withLock { state in
            let before = state.entries.count
            state.entries = state.entries.filter { paths.contains($0.key) }
            var hasChanged = state.entries.count != before
            // The gateway was started for what the workers have then, under whatever name.
            let isFirst = !state.hasSeen && paths.count == 1
            state.hasSeen = state.hasSeen || !paths.isEmpty
            for path in paths.sorted() where state.entries[path] == nil {
                hasChanged = true
                if path == ownPath || isFirst && file(for: path) == nil {
                    state.entries[path] = .loaded(own)
                } else if state.entries.count >= Self.maximumLoaded {
                    refuse(path, "\(Self.maximumLoaded) vocabularies are loaded already", &state)
                } else {
                    state.entries[path] = .loading
                    wants.yield(path)
                }
            }
            return hasChanged
        }
    }

    /// Loads one that was wanted, on a thread where it may block.
    func fetch(_ path: String) async {
        let result = await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                continuation.resume(returning: Result { try self.speaker(of: path) })
            }
        }
        state.withLock { state in
            // Nobody may need it any more.
            guard state.entries[path] != nil else { return }
            switch result {
            case .success(let speaker):
                state.entries[path] = .loaded(speaker)
                logger.notice("a vocabulary is loaded", metadata: ["model": "\(path)"])
            case .failure(let error): refuse(path, "\(error)", &state)
            }
        }
    }

    private func speaker(of path: String) throws -> Speaker {
        let speaker = try load(file(for: path) ?? path)
        // Most revisions change weights only.
        return speaker.vocabulary == own.vocabulary ? own : speaker
    }

    /// The file on this host: the path itself, or what lies by that name beside the own model.
    private func file(for path: String) -> String? {
        let manager = FileManager.default
        if manager.fileExists(atPath: path) { return path }
        guard let ownPath else { return nil }
        let beside = URL(fileURLWithPath: ownPath).deletingLastPathComponent()
            .appending(path: URL(fileURLWithPath: path).lastPathComponent).path
        return manager.fileExists(atPath: beside) ? beside : nil
    }

    private func refuse(_ path: String, _ reason: String, _ state: inout State) {
        state.entries[path] = .refused
        Counter(label: "gateway_vocabulary_errors_total").increment()
        logger.error(
            "a vocabulary can't be loaded; this gateway sends that group no requests",
            metadata: ["model": "\(path)", "reason": "\(reason)"])
    }

    /// By model file; the empty path stands for groups that name none.
    var known: [String: VocabularyID] {
        state.withLock { state in
            var known = ["": own.vocabulary]
            for (path, entry) in state.entries {
                if case .loaded(let speaker) = entry { known[path] = speaker.vocabulary }
            }
            return known
        }
    }

    /// Who reads and writes a group's tokens; the gateway's own if nobody can.
    func speaker(for path: String?) -> Speaker {
        guard let path, case .loaded(let speaker) = state.withLock({ $0.entries[path] }) else {
            return own
        }
        return speaker
    }
}
