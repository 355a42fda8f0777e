import ServingTypes

/// Reads a trace piece by piece, so that its length needs no memory.
package struct TraceReader: Sendable {
    private typealias Entry = RequestTrace.Entry
    private typealias Failure = RequestTrace.Failure

    /// Known after the first line with content.
    package private(set) var format: TraceFormat?

    private var line = 0
    private var partial: [UInt8] = []
    private var hasRequests = false
    /// Position of each column of SplitwiseSim that is read.
    private var columns: [Int] = []
    private var columnCount = 0
    /// The first time of a trace with dates, in ns since 1970.
    private var origin: Int?
    private var lastTime = -Double.infinity
    /// Entries of one recorded time, which wait for the next.
    private var bucket: [RequestTrace.Entry] = []
    private let spread: BucketSpread
    private var generator: SeededGenerator

    package init(spread: BucketSpread = .even) {
        self.spread = spread
        if case .random(let seed) = spread {
            generator = SeededGenerator(seed: seed)
        } else {
            generator = SeededGenerator(seed: 0)
        }
    }

    /// Takes the next bytes of the file and returns the requests that are known with them.
    package mutating func read(
        _ bytes: ArraySlice<UInt8>
    ) throws(RequestTrace.Failure) -> [RequestTrace.Entry] {
        var made: [RequestTrace.Entry] = []
        var rest = bytes
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            if partial.isEmpty {
                try take(rest[..<end], into: &made)
            } else {
                partial += rest[..<end]
                let whole = partial
                partial.removeAll(keepingCapacity: true)
                try take(whole[...], into: &made)
            }
            rest = rest[(end + 1)...]
        }
        partial += rest
        guard partial.count <= RequestTrace.Limits.lineBytes else {
            throw Failure(problem: .lineTooLong, line: line + 1)
        }
        return made
    }

    /// The requests that were not known before the file's end.
    package mutating func finish() throws(RequestTrace.Failure) -> [RequestTrace.Entry] {
        var made: [RequestTrace.Entry] = []
        let last = partial
        partial = []
        if !last.isEmpty { try take(last[...], into: &made) }
        emptyBucket(before: .infinity, into: &made)
        guard hasRequests else { throw Failure(problem: .noRequest) }
        return made
    }

    // MARK: Lines

    private mutating func take(
        _ bytes: ArraySlice<UInt8>, into made: inout [RequestTrace.Entry]
    ) throws(RequestTrace.Failure) {
        line += 1
        guard bytes.count <= RequestTrace.Limits.lineBytes else {
            throw Failure(problem: .lineTooLong, line: line)
        }
        let text = bytes.last == UInt8(ascii: "\r") ? bytes.dropLast() : bytes
        guard !text.isEmpty, text.first != UInt8(ascii: "#") else { return }
        guard let format else {
            guard let found = TraceFormat(firstLine: text) else {
                throw Failure(problem: .unknownFormat, line: line)
            }
            format = found
            if found == .splitwise { try readColumns(text) }
            if found == .plain || found == .mooncake { try take(found, text, into: &made) }
            return
        }
        try take(format, text, into: &made)
    }

    private mutating func take(
        _ format: TraceFormat, _ text: ArraySlice<UInt8>, into made: inout [RequestTrace.Entry]
    ) throws(RequestTrace.Failure) {
        guard let entry = try entry(format, text), entry.arrivalSeconds.isFinite else {
            let shown = String(decoding: text.prefix(80), as: UTF8.self)
            throw Failure(problem: .malformed(format, text: shown), line: line)
        }
        for tokens in [entry.promptTokens, entry.outputTokens]
        where !(1...RequestTrace.Limits.tokensPerRequest).contains(tokens) {
            throw Failure(problem: .tokensOutOfRange(tokens), line: line)
        }
        guard entry.arrivalSeconds >= max(lastTime, 0) else {
            throw Failure(problem: .timeGoesBack, line: line)
        }
        hasRequests = true
        lastTime = entry.arrivalSeconds
        guard format == .mooncake, spread != .none else { return made.append(entry) }
        if let first = bucket.first, first.arrivalSeconds < entry.arrivalSeconds {
            emptyBucket(before: entry.arrivalSeconds, into: &made)
        }
        bucket.append(entry)
    }

    private mutating func entry(
        _ format: TraceFormat, _ text: ArraySlice<UInt8>
    ) throws(RequestTrace.Failure) -> RequestTrace.Entry? {
        if format == .mooncake { return MooncakeLine(text)?.entry }
        let fields = text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
        let columns = format == .splitwise ? self.columns : [0, 1, 2]
        guard fields.count == (format == .splitwise ? columnCount : 3) else { return nil }
        let time = fields[columns[0]]
        guard let seconds = format == .azure ? secondsSinceFirst(time) : time.decimal,
            let prompt = fields[columns[1]].wholeNumber,
            let output = fields[columns[2]].wholeNumber
        else { return nil }
        for (column, wanted) in zip(columns.dropFirst(3), [1, 2])
        where fields[column].wholeNumber != wanted {
            throw Failure(problem: .notOneGeneration, line: line)
        }
        return RequestTrace.Entry(
            arrivalSeconds: seconds, promptTokens: prompt, outputTokens: output)
    }

    private mutating func secondsSinceFirst(_ date: ArraySlice<UInt8>) -> Double? {
        guard let time = date.nanosecondsOfDate else { return nil }
        let first = origin ?? time
        origin = first
        return Double(time - first) / 1e9
    }

    private mutating func readColumns(
        _ text: ArraySlice<UInt8>
    ) throws(RequestTrace.Failure) {
        let names = String(decoding: text, as: UTF8.self).split(separator: ",").map(String.init)
        columnCount = names.count
        for name in [
            "arrival_timestamp", "prompt_size", "token_size", "batch_size", "request_type",
        ] {
            guard let position = names.firstIndex(of: name) else {
                throw Failure(problem: .missingColumn(name), line: line)
            }
            columns.append(position)
        }
    }

    // MARK: Coarse times

    private mutating func emptyBucket(
        before next: Double, into made: inout [RequestTrace.Entry]
    ) {
        guard let time = bucket.first?.arrivalSeconds else { return }
        let width = min(RequestTrace.Limits.bucketSeconds, next - time)
        var shares = bucket.indices.map { Double($0) / Double(bucket.count) }
        if case .random = spread, bucket.count > 1 {
            shares = shares.map { _ in Double.random(in: 0..<1, using: &generator) }.sorted()
        }
        for (share, entry) in zip(shares, bucket) {
            var entry = entry
            entry.arrivalSeconds = time + share * width
            made.append(entry)
        }
        bucket.removeAll(keepingCapacity: true)
    }
}
