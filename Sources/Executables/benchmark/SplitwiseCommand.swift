import ArgumentParser
import Foundation
import Measurement
import Reports
import Provisioning
import RequestTraces
import ServiceRuntime
import SplitwiseSimulation
import Synchronization

/// SplitwiseSim's results, this simulation's speed, and Splitwise's designs.
struct SplitwiseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "splitwise",
        abstract: "Compare the simulation with SplitwiseSim, and Splitwise's designs with it.",
        discussion: """
            --table runs what SplitwiseSim (github.com/Mutinifni/splitwise-sim, 8f99e7d) ran and \
            shows both. --speed tells how many requests are simulated per second and core. \
            --designs searches numbers of machines for each design of Splitwise (arXiv \
            2311.18677), with requests at random: 'iso-power' and 'iso-cost' look for the highest \
            rate that keeps all nine goals with the power or cost of some H100 machines, \
            'iso-throughput' for the machines that take least power and cost at a rate; \
            'other-workload' gives each workload the authors' clusters for the other. Ctrl-C shows \
            what there is. Use a release build.
            """)

    enum Study: String, ExpressibleByArgument, CaseIterable {
        case isoPower = "iso-power"
        case isoCost = "iso-cost"
        case isoThroughput = "iso-throughput"
        case otherWorkload = "other-workload"
    }

    enum Workload: String, ExpressibleByArgument, CaseIterable {
        case conversation, code

        var file: String {
            self == .code ? "AzureLLMInferenceTrace_code" : "AzureLLMInferenceTrace_conv"
        }
    }

    enum Model: String, ExpressibleByArgument, CaseIterable {
        case bloom = "bloom-176b"
        case llama = "llama2-70b"

        var served: ServedModel { self == .bloom ? .bloom176B : .llama2With70B }
    }

    @Flag(help: "Compare with SplitwiseSim's results; done if nothing else is asked for.")
    var table = false

    @Flag(help: "Measure the simulation's speed.")
    var speed = false

    @Option(parsing: .upToNextOption, help: "Constraints under which machines are searched.")
    var designs: [Study] = []

    @Option(help: "Folder with SplitwiseSim's files; .gz is unpacked by gzip.")
    var reference = "Tests/SplitwiseSimulationTests/Reference"

    @Option(parsing: .upToNextOption, help: "Whose lengths the designs serve.")
    var workloads = Workload.allCases

    @Option(help: "Model that the designs serve.")
    var model = Model.bloom

    @Option(help: "H100 machines whose power or cost is given.")
    var machines = 40

    @Option(help: "Requests per second of iso-throughput.")
    var rate = 70.0

    @Option(help: "Seconds of requests in each run of a search.")
    var seconds = 120.0

    @Option(help: "Steps in which rates are searched, in requests per second.")
    var rateStep = 1.0

    @Option(help: "Highest rate that is tried.")
    var highestRate = 250.0

    @Option(help: "Seed of the requests.")
    var seed: UInt64 = 0

    @Option(help: "Runs at once; default: one per core.")
    var threads: Int?

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard (1...1000).contains(machines), (1...10_000).contains(rate),
            (1...10_000).contains(highestRate), (1...36_000).contains(seconds),
            (0.1...100).contains(rateStep), (1...256).contains(threads ?? 1)
        else {
            throw ValidationError(
                "Machines are 1…1000, rates 1…10000, seconds 1…36000, steps 0.1…100, "
                    + "threads 1…256.")
        }
    }

    func run() async throws {
        let files = ReferenceFiles(folder: reference)
        let times = try PerformanceTable(text: files.text("splitwise_perf_model.csv"))
        let results = SplitwiseResults()
        let outcome = await withStopSignals {
            if table || (!speed && designs.isEmpty) {
                try SplitwiseTable(files: files, times: times).run(into: results)
            }
            if speed { try SplitwiseSpeed(files: files, times: times).run(into: results) }
            for study in designs {
                for workload in workloads where !Task.isCancelled {
                    try await search(study, workload, files, times).run(into: results)
                }
            }
        }
        var report = Report(
            name: "splitwise",
            facts: [("devices", "\(model.rawValue) on machines with 8 GPUs, simulated")])
        report.tables = results.tables
        report.findings = results.findings
        if case .interrupted = outcome { report.isComplete = false }
        try BenchmarkRun.conclude(outcome, report: report, json: common.json)
    }

    private func search(
        _ study: Study, _ workload: Workload, _ files: ReferenceFiles, _ times: PerformanceTable
    ) throws -> SplitwiseDesigns {
        var limits = ProvisioningLimits()
        limits.threads = threads ?? ProcessInfo.processInfo.activeProcessorCount
        limits.rateStep = rateStep
        limits.highestRate = highestRate
        let lengths = try RequestTrace(text: files.text("\(workload.file).csv"))
        let h100 = SplitwiseMachine.h100.price
        let evaluators = try SplitwiseDesign.allCases.map { design in
            var evaluator = try SplitwiseEvaluator(
                design, model: model.served, table: times, lengths: lengths)
            evaluator.seconds = seconds
            evaluator.seed = seed
            return evaluator
        }
        let published = SplitwisePublished(
            study, workload, isUsual: machines == 40 && rate == 70 && model == .bloom)
        let questions: [SplitwiseDesigns.Question] =
            switch study {
            case .otherWorkload: [.theirs, .theirsForOther]
            case .isoPower: [.mostThroughput(Budget(.power, h100.power * Double(machines)))]
            case .isoCost: [.mostThroughput(Budget(.cost, h100.cost * Double(machines)))]
            case .isoThroughput: [.least(.power, rate), .least(.cost, rate)]
            }
        return SplitwiseDesigns(
            name: "\(study.rawValue), \(workload.rawValue)", questions: questions,
            evaluators: evaluators, limits: limits,
            published: published)
    }
}

/// Tables as they grow, so that there is something to show at any time.
final class SplitwiseResults: Sendable {
    private let state = Mutex<(tables: [ReportTable], findings: [String])>(([], []))

    var tables: [ReportTable] { state.withLock { $0.tables } }
    var findings: [String] { state.withLock { $0.findings } }

    /// Adds the table or what it has become.
    func show(_ table: ReportTable) {
        state.withLock { state in
            state.tables.removeAll { $0.key == table.key }
            state.tables.append(table)
        }
    }

    func find(_ sentence: String) { state.withLock { $0.findings.append(sentence) } }
}

/// Files of a folder, plain or packed.
struct ReferenceFiles: Sendable {
    enum Failure: Error, CustomStringConvertible {
        /// Give another folder or fetch the file.
        case missing(String)
        /// Unpack the file by hand.
        case unpack(String)

        var description: String {
            switch self {
            case .missing(let path): "neither \(path) nor \(path).gz is there"
            case .unpack(let path): "gzip could not unpack \(path)"
            }
        }
    }

    let folder: String

    func text(_ name: String) throws -> String {
        let path = "\(folder)/\(name)"
        if FileManager.default.fileExists(atPath: path) {
            return try String(contentsOfFile: path, encoding: .utf8)
        }
        guard FileManager.default.fileExists(atPath: path + ".gz") else {
            throw Failure.missing(path)
        }
        let gzip = Process()
        gzip.executableURL = URL(filePath: "/usr/bin/env")
        gzip.arguments = ["gzip", "-dc", path + ".gz"]
        let pipe = Pipe()
        gzip.standardOutput = pipe
        try gzip.run()
        let data = try pipe.fileHandleForReading.readToEnd() ?? Data()
        gzip.waitUntilExit()
        guard gzip.terminationStatus == 0 else { throw Failure.unpack(path + ".gz") }
        return String(decoding: data, as: UTF8.self)
    }
}
