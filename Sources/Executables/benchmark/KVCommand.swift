import ArgumentParser
import Foundation
import Measurement
import ServiceRuntime

/// KV between two processes, in all ways of the product and of other programs.
struct KVCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kv",
        abstract: "Compare ways to move KV between two processes with plain TCP.",
        discussion: """
            Starts a second process and sends KV to it over 127.0.0.1. In each round all \
            contenders come in random order, each after one transfer that does not count; a \
            transfer is done when the receiver has acknowledged it. What arrives is compared once \
            per contender. Sizes are MiB (2^20 bytes), rates are GB/s (10^9 bytes).

            Contenders: \(KVContenders.names.joined(separator: ", ")). 'tcp' is plain TCP, which \
            takes part always; 'sealed' and 'tls' are bulk connections as between workers, with \
            sealed records and with those of TLS, 'x2' two of them at once; 'codec' compresses \
            as a prefill-worker does over a slow link; 'memory' copies into memory and passes it \
            to the receiver, which reads it in place; of 'memory+copy' the receiver's copy counts \
            instead.

            --peer adds another program, as in
              --peer 'other=cd /opt/other && MODE=tcp ./bench'
            It is run by 'sh -c' in each round with one more argument, such as \
            shapes=1x64,16x8: 64 transfers of 1 MiB, 8 of 16 MiB. For each it prints one line
              {"mb": 1, "GBps": 1.1, "snd_cpu": 0.6, "rcv_cpu": 0.3}
            with MiB, 10^9 bytes a second, and processor seconds per 10^9 bytes of both sides. A \
            program that fails is left out from then on.

            Ratios are those within one round and so comparable between runs; 'bneck' (what one \
            core on each side could carry) is what busy neighbours change least. Ctrl-C ends the \
            run and prints what there is. Use a release build.
            """)

    @Option(
        help: ArgumentHelp(
            "Sizes of a transfer in MiB (default: 1,16,64,256).", valueName: "a,b,…"),
        transform: parseNumbers)
    var sizes = [1, 16, 64, 256]

    @Option(help: "Rounds of all contenders.")
    var rounds = 7

    @Option(
        help: ArgumentHelp("Contenders besides tcp (default: all).", valueName: "a,b,…"),
        transform: parseNames)
    var contenders = KVContenders.names

    @Option(help: "Memory on each side that transfers go through in turn, in MiB.")
    var region = 256

    @Option(
        help: ArgumentHelp(
            "Another program to compare with; repeatable.", valueName: "name=command"),
        transform: KVPeer.init(argument:))
    var peer: [KVPeer] = []

    @Option(help: "Seconds that a run of another program may take.")
    var peerSeconds = 240

    @Option(help: "Send KV of a prompt, computed by this GGUF file, instead of synthetic KV.")
    var model: String?

    @Option(help: "Length of that prompt in tokens.")
    var promptTokens = 1024

    @OptionGroup var common: CommonOptions

    func validate() throws {
        let range = KVMeasurementLimits.mebibytes
        guard range.contains(region) else {
            throw ValidationError("The region has \(range.lowerBound)…\(range.upperBound) MiB.")
        }
        guard !sizes.isEmpty, Set(sizes).count == sizes.count,
            sizes.allSatisfy({ (1...region).contains($0) })
        else {
            throw ValidationError("Sizes are different numbers in 1…\(region), the region's MiB.")
        }
        guard (1...KVMeasurementLimits.rounds).contains(rounds), peerSeconds >= 1,
            promptTokens >= 1
        else {
            throw ValidationError(
                "Rounds are 1…\(KVMeasurementLimits.rounds), seconds and tokens at least 1.")
        }
        if let unknown = contenders.first(where: { !KVContenders.names.contains($0) }) {
            throw ValidationError(
                "There is no contender '\(unknown)', only "
                    + KVContenders.names.joined(separator: ", ") + ".")
        }
        guard Set(peer.map(\.name)).count == peer.count else {
            throw ValidationError("Two peers have the same name.")
        }
        if let model, !FileManager.default.isReadableFile(atPath: model) {
            throw ValidationError("The model file \(model) can't be read; give a GGUF file.")
        }
    }

    func run() async throws {
        let source: KVMeasurementSettings.Source =
            if let model { .model(path: model, promptTokens: promptTokens) } else { .synthetic }
        let measurement = KVMeasurement(
            settings: KVMeasurementSettings(
                sizes: sizes.sorted(), rounds: rounds, regionMebibytes: region,
                contenders: contenders, peers: peer, peerDeadline: .seconds(peerSeconds),
                source: source,
                receiver: (BenchmarkRun.executable.path, [KVReceiverCommand.name])),
            progress: showProgress)
        let outcome = await withStopSignals { try await measurement.run() }
        try BenchmarkRun.conclude(outcome, report: measurement.report, json: common.json)
    }
}

/// The second process of `benchmark kv`.
struct KVReceiverCommand: ParsableCommand {
    static let name = "kv-receiver"
    static let configuration = CommandConfiguration(commandName: name, shouldDisplay: false)

    @Option var folder: String
    @Option var mebibytes: Int

    func validate() throws {
        guard KVMeasurementLimits.mebibytes.contains(mebibytes) else {
            throw ValidationError("So many MiB are not supported.")
        }
    }

    func run() throws {
        try runKVReceiver(folder: folder, mebibytes: mebibytes, answers: .standardOutput)
    }
}

func parseNumbers(_ text: String) throws -> [Int] {
    try parseNames(text).map { part in
        guard let number = Int(part) else {
            throw ValidationError("'\(part)' is no whole number; write numbers as in 1,16,64.")
        }
        return number
    }
}

private func parseNames(_ text: String) throws -> [String] {
    text.split(separator: ",", omittingEmptySubsequences: false).map {
        $0.trimmingCharacters(in: .whitespaces)
    }
}
