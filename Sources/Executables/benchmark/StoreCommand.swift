import ArgumentParser
import ClusterStore
import Foundation
import Logging

/// What it costs to keep the scheduler's state.
struct StoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "store",
        abstract: "Time writes of changed records to a scheduler's store.",
        discussion: """
            Each write is one transaction, on the disk when it counts as done. All records of a \
            write hold its number, so a torn one can be told. The scheduler's own records are \
            left alone, but nobody else may lead meanwhile.
            """)

    @Option(help: "sqlite:PATH or etcd:http://HOST:2379.")
    var store: String

    @Option(help: "Records changed by each write.")
    var records = 4

    @Option(help: "Bytes of a record.")
    var bytes = 300

    @Option(help: "Writes.")
    var writes = 200

    @Flag(help: "Write until killed; print the number of each write that is done.")
    var endless = false

    func validate() throws {
        guard (1...10_000).contains(records), (1...60_000).contains(bytes),
            (1...1_000_000).contains(writes)
        else {
            throw ValidationError("Records are 1…10000, bytes 1…60000, writes 1…1000000.")
        }
    }

    func run() async throws {
        guard let store = try StoreChoice(store).open(logger: Logger(label: "benchmark")) else {
            throw ValidationError("'none' keeps nothing; give sqlite:PATH or etcd:…")
        }
        let term = try await store.takeOffice(as: "benchmark") { leader in
            FileHandle.standardError.write(Data("waiting for \(leader)\n".utf8))
        }
        let keeping = Task { await term.ended() }
        defer { keeping.cancel() }
        if endless { return try await writeForEver(term) }
        var times: [Duration] = []
        for number in 0..<writes {
            let start = ContinuousClock.now
            try await term.save(batch(number))
            times.append(ContinuousClock.now - start)
        }
        let start = ContinuousClock.now
        _ = try await term.load()
        let loaded = ContinuousClock.now - start
        try await term.save(
            StoreBatch(records: batch(0).records.mapValues { _ in nil as [UInt8]? }))
        await term.resign()
        times.sort()
        print(
            """
            \(writes) writes of \(records) records, \(bytes) bytes each: \
            median \(milliseconds(times[writes / 2])), \
            99 % \(milliseconds(times[min(writes - 1, writes * 99 / 100)])), \
            longest \(milliseconds(times[writes - 1])); load \(milliseconds(loaded))
            """)
    }

    private func writeForEver(_ term: any ClusterTerm) async throws {
        var number = try await term.lastEvents(1).last.map { Int($0.number) } ?? 0
        say("begins \(number)")
        while true {
            number += 1
            var batch = batch(number)
            batch.events = [StoredEvent(number: UInt64(number), bytes: Array("\(number)".utf8))]
            try await term.save(batch)
            say("\(number)")
        }
    }

    /// At once, also into a pipe.
    private func say(_ line: String) {
        FileHandle.standardOutput.write(Data((line + "\n").utf8))
    }

    private func batch(_ number: Int) -> StoreBatch {
        let text = "\(number) "
        let value = Array((text + String(repeating: "x", count: max(0, bytes - text.count))).utf8)
        return StoreBatch(
            records: Dictionary(
                (0..<records).map { ("benchmark/\($0)", Optional(value)) },
                uniquingKeysWith: { $1 }))
    }

    private func milliseconds(_ time: Duration) -> String {
        let hundredths = Int(time / .microseconds(10))
        let fraction = hundredths % 100
        return "\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction) ms"
    }
}
