import ArgumentParser
import Foundation
import RequestTraces
import ServingSimulation

/// The requests of a simulated cluster.
struct LoadOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Requests to replay: a CSV of Azure, a JSONL of Mooncake, a CSV of SplitwiseSim, or "
                + "lines of 'seconds,prompt tokens,output tokens'; .gz too.",
            valueName: "file"))
    var trace: String?

    @Option(help: "Requests per second at random, with the trace's lengths.")
    var rate: Double?

    @Option(help: "So many users instead, each of whom asks again after each answer.")
    var users: Int?

    @Option(help: "Without a trace: tokens of each prompt.")
    var promptTokens = 1024

    @Option(help: "Without a trace: tokens of each answer.")
    var outputTokens = 128

    @Option(help: "Seconds of traffic; default: the whole trace, or 120.")
    var seconds: Double?

    @Option(help: "Lengths of random requests: 'paired' as in the trace, or 'independent'.")
    var lengths = "paired"

    @Option(help: "Number that random requests are drawn by.")
    var seed: UInt64 = 1

    func validate() throws {
        guard (rate ?? 1) > 0, (rate ?? 1) <= 1e6 else {
            throw ValidationError("--rate is above 0 and at most 1000000.")
        }
        guard (seconds ?? 1) > 0, (seconds ?? 1) <= 1e6 else {
            throw ValidationError("--seconds is above 0 and at most 1000000.")
        }
        guard (1...1_000_000).contains(users ?? 1) else {
            throw ValidationError("--users is 1…1000000.")
        }
        guard rate == nil || users == nil else {
            throw ValidationError("Give --rate or --users, not both.")
        }
        guard (1...1_000_000).contains(promptTokens), (1...1_000_000).contains(outputTokens) else {
            throw ValidationError("--prompt-tokens and --output-tokens are 1…1000000.")
        }
        guard RequestTrace.LengthDraw(rawValue: lengths) != nil else {
            throw ValidationError("--lengths is 'paired' or 'independent'.")
        }
    }

    /// The load and how long it lasts.
    func load() throws -> (load: ServingPlan.Load, seconds: Double) {
        guard trace != nil || rate != nil || users != nil else {
            throw ValidationError("Give --trace, --rate or --users.")
        }
        let source = try requests()
        if let users { return (.users(users, source), seconds ?? 120) }
        if let rate {
            let seconds = seconds ?? 120
            return (.open(arrivals(of: source, perSecond: rate, seconds: seconds)), seconds)
        }
        let last = source.entries.last?.arrivalSeconds ?? 0
        return (.open(source), seconds ?? last.nextUp + 1)
    }

    /// The requests whose lengths and, without a rate, times are used.
    func requests() throws -> RequestTrace {
        guard let trace else {
            let entry = RequestTrace.Entry(
                arrivalSeconds: 0, promptTokens: promptTokens, outputTokens: outputTokens)
            return RequestTrace(entries: [entry])
        }
        do {
            return try RequestTrace(bytes: TraceFile.read(trace))
        } catch let failure as RequestTrace.Failure {
            throw ValidationError("\(trace): \(failure)")
        }
    }

    func arrivals(
        of source: RequestTrace, perSecond rate: Double, seconds: Double
    ) -> RequestTrace {
        source.poisson(
            perSecond: rate, seconds: seconds, seed: seed,
            lengths: RequestTrace.LengthDraw(rawValue: lengths) ?? .paired)
    }

    /// In one line, for people.
    var summary: String {
        let source = trace ?? "\(promptTokens) + \(outputTokens) tokens"
        if let users { return "\(users) users, \(source)" }
        return rate.map { "\($0) requests/s at random, \(source)" } ?? source
    }
}

/// Files of requests.
enum TraceFile {
    /// Most bytes of an unpacked trace.
    private static let maximumBytes = 1 << 31

    static func read(_ path: String) throws -> [UInt8] {
        guard FileManager.default.isReadableFile(atPath: path) else {
            throw ValidationError("\(path): there is no file that can be read.")
        }
        guard path.hasSuffix(".gz") else {
            return try Array(Data(contentsOf: URL(filePath: path)))
        }
        let unpacker = Process()
        unpacker.executableURL = URL(filePath: "/usr/bin/env")
        unpacker.arguments = ["gzip", "-dc", path]
        let pipe = Pipe()
        unpacker.standardOutput = pipe
        try unpacker.run()
        var bytes: [UInt8] = []
        while let part = try pipe.fileHandleForReading.read(upToCount: 1 << 20), !part.isEmpty {
            bytes += part
            guard bytes.count <= maximumBytes else {
                unpacker.terminate()
                throw ValidationError("\(path): unpacked, it has more than 2 GB.")
            }
        }
        unpacker.waitUntilExit()
        guard unpacker.terminationStatus == 0 else {
            throw ValidationError("\(path): gzip could not unpack it.")
        }
        return bytes
    }
}
