import CLlama
import CLlamaCommon
import Foundation
import Synchronization

/// Where libllama's log goes; the library has one log for the whole process.
///
/// Only warnings and errors are passed on. Without a sink they are dropped; the lines of a failing
/// load are part of its error anyway.
package enum LlamaLog {
    package enum Level: Sendable { case warning, error }

    /// Takes one line without its line break; called on any thread, must return quickly.
    package typealias Sink = @Sendable (Level, String) -> Void

    package static func setSink(_ sink: Sink?) {
        state.withLock { $0.sink = sink }
        // Now, so that the sink hears of backends that can't be loaded.
        prepareLibrary()
    }

    /// Collects the error lines that `body` causes on this thread.
    static func collectingErrors<Result>(_ body: () -> Result) -> (result: Result, errors: [String])
    {
        let thread = ObjectIdentifier(Thread.current)
        state.withLock { $0.collected[thread] = [] }
        let result = body()
        return (result, state.withLock { $0.collected.removeValue(forKey: thread) } ?? [])
    }

    fileprivate struct State {
        var sink: Sink?
        var collected: [ObjectIdentifier: [String]] = [:]
        /// Pieces of an unfinished line, and its level.
        var level: Level?
        var line = ""
    }

    private static let state = Mutex(State())
    /// libllama prints whole tables; a line longer than this is cut.
    fileprivate static let maximumLineBytes = 1024
    fileprivate static let maximumCollectedLines = 16

    fileprivate static func receive(level: ggml_log_level, text: String) {
        let (sink, lines) = state.withLock { state -> (Sink?, [(Level, String)]) in
            switch level {
            case GGML_LOG_LEVEL_CONT: break
            case GGML_LOG_LEVEL_ERROR: state.start(.error)
            case GGML_LOG_LEVEL_WARN: state.start(.warning)
            default: state.start(nil)
            }
            return (state.sink, state.add(text))
        }
        guard let sink else { return }
        for (level, line) in lines { sink(level, line) }
    }

    /// What an aborted step logs: status 1 is `GGML_STATUS_ABORTED`, and 2 what it returns.
    fileprivate static func isNoise(_ line: String) -> Bool {
        ["failed with error 1", "compute status: 1", "failed to decode, ret = 2"]
            .contains { line.hasSuffix($0) }
    }

    /// Makes libllama ready once per process: its log, its backends.
    static func prepareLibrary() { prepared }

    private static let prepared: Void = {
        unsafe llama_log_set(receiveLine, nil)
        cllama_common_silence()
        ggml_backend_load_all()
        llama_backend_init()
    }()
}

extension LlamaLog.State {
    fileprivate mutating func start(_ level: LlamaLog.Level?) {
        self.level = level
        line = ""
    }

    /// Adds text to the line; returns the lines that are whole now.
    fileprivate mutating func add(_ text: String) -> [(LlamaLog.Level, String)] {
        guard let level else { return [] }
        var whole: [(LlamaLog.Level, String)] = []
        for piece in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
            line += piece
            if !line.isEmpty, !LlamaLog.isNoise(line) { whole.append((level, line)) }
            line = ""
        }
        line += text.split(separator: "\n", omittingEmptySubsequences: false).last ?? ""
        if line.utf8.count > LlamaLog.maximumLineBytes { line = "" }
        let thread = ObjectIdentifier(Thread.current)
        if level == .error, let count = collected[thread]?.count {
            let room = max(0, LlamaLog.maximumCollectedLines - count)
            collected[thread]?.append(contentsOf: whole.prefix(room).map(\.1))
        }
        return whole
    }
}

private func receiveLine(
    level: ggml_log_level, text: UnsafePointer<CChar>?, _: UnsafeMutableRawPointer?
) {
    guard let text = unsafe text else { return }
    LlamaLog.receive(level: level, text: unsafe String(cString: text))
}
