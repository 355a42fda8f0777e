/// How a trace file is written.
package enum TraceFormat: String, Sendable, CaseIterable {
    /// Lines of `seconds,prompt tokens,output tokens`; lines that begin with `#` are remarks.
    case plain
    /// Azure's CSV of 2023 and 2024: `TIMESTAMP,ContextTokens,GeneratedTokens`, UTC.
    case azure
    /// SplitwiseSim's CSV, whose first line names the columns.
    case splitwise
    /// Mooncake's JSON lines: `timestamp` in ms, `input_length`, `output_length`, `hash_ids`.
    case mooncake

    /// The format that a file's first line with content is of; nil if of none.
    package init?(firstLine line: ArraySlice<UInt8>) {
        let text = String(decoding: line.prefix(200), as: UTF8.self)
        let columns = text.split(separator: ",", omittingEmptySubsequences: false)
        if text.hasPrefix("{") {
            self = .mooncake
        } else if columns.count == 3, columns[0] == "TIMESTAMP" {
            self = .azure
        } else if columns.contains("arrival_timestamp") {
            self = .splitwise
        } else if columns.count == 3, Double(columns[0]) != nil {
            self = .plain
        } else {
            return nil
        }
    }

    var explanation: String {
        switch self {
        case .plain: "seconds,prompt,output"
        case .azure: "TIMESTAMP,ContextTokens,GeneratedTokens"
        case .splitwise: "a row of SplitwiseSim's columns"
        case .mooncake: "an object with timestamp, input_length, output_length and hash_ids"
        }
    }
}

/// Where the requests of one recorded moment arrive, when a trace has coarse times.
///
/// Mooncake's traces know times to 3 s. Requests of one time keep their order and arrive before
/// the next recorded time, and within `RequestTrace.Limits.bucketSeconds`.
package enum BucketSpread: Sendable, Hashable {
    /// At the recorded time, all at once.
    case none
    /// At equal distances.
    case even
    /// At random.
    case random(seed: UInt64)
}

extension RequestTrace {
    /// What a reader takes at most.
    package enum Limits {
        package static let lineBytes = 1 << 20
        package static let tokensPerRequest = 1 << 30
        /// Longest time over which requests of one recorded time are spread.
        package static let bucketSeconds = 3.0
    }

    /// What is wrong with a trace file.
    package struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
        package enum Problem: Hashable, Sendable {
            /// No request at all; give a file with some.
            case noRequest
            /// The first line is of no known format; convert the file to one of `TraceFormat`.
            case unknownFormat
            /// The line isn't what its format wants.
            case malformed(TraceFormat, text: String)
            /// A column that is needed is not in the first line.
            case missingColumn(String)
            /// More than `Limits.lineBytes` without a line's end: not a trace.
            case lineTooLong
            /// The request arrives before the one above it; sort the file.
            case timeGoesBack
            /// Prompt and output have 1…`Limits.tokensPerRequest` tokens.
            case tokensOutOfRange(Int)
            /// One request a line, with a batch of 1 and of type 2 (generation).
            case notOneGeneration
        }

        package var problem: Problem
        /// Counted from 1; nil if it is about the whole file.
        package var line: Int?

        package init(problem: Problem, line: Int? = nil) {
            self.problem = problem
            self.line = line
        }

        package var description: String {
            line.map { "line \($0): \(words)" } ?? words
        }

        private var words: String {
            switch problem {
            case .noRequest: "no request in the trace"
            case .unknownFormat:
                "of no known format; known are "
                    + TraceFormat.allCases.map { "\($0.rawValue) (\($0.explanation))" }
                    .joined(separator: ", ") + "; .gz files are to be unpacked first"
            case .malformed(let format, let text): "'\(text)' is not \(format.explanation)"
            case .missingColumn(let name): "no column \(name)"
            case .lineTooLong: "longer than \(Limits.lineBytes) bytes"
            case .timeGoesBack: "arrives before the line above; sort the trace by time"
            case .tokensOutOfRange(let tokens):
                "\(tokens) tokens; prompt and output have 1…\(Limits.tokensPerRequest)"
            case .notOneGeneration: "only request_type 2 with batch_size 1 can be read"
            }
        }
    }
}
