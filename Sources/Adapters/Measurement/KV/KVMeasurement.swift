import Foundation
package import Reports
import ServingTypes
import Synchronization

/// Moves KV to a second process in all ways in turn, round by round.
///
/// Within a round the contenders come in random order, so that what else happens on the host hits
/// all alike. Each turn begins with one transfer that does not count, of all the memory.
package final class KVMeasurement: Sendable {
    private let settings: KVMeasurementSettings
    private let progress: @Sendable (String) -> Void
    private let results: Mutex<KVResults>
    private let isInterrupted = Atomic(false)

    /// - Parameter progress: takes sentences for people.
    package init(
        settings: KVMeasurementSettings, progress: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.progress = progress
        let names = KVContenders.names.filter {
            settings.contenders.contains($0) || $0 == KVContenders.base
        }
        results = Mutex(
            KVResults(
                contenders: names, peers: settings.peers.map(\.name), sizes: settings.sizes))
    }

    /// What was measured so far.
    package var report: Report { results.withLock { $0.report } }

    /// Measures; ends soon after its task is cancelled.
    package func run() async throws {
        progress("preparing the bytes to send")
        var exported: KVSource?
        if case .model(let path, let tokens) = settings.source {
            exported = try await KVSource.exported(modelPath: path, promptTokens: tokens)
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let thread = Thread { [exported] in
                    let source = exported ?? .synthetic(regionBytes: self.settings.regionBytes)
                    continuation.resume(with: Result { try self.measure(source) })
                }
                thread.name = "kv sender"
                thread.start()
            }
        } onCancel: {
            isInterrupted.store(true, ordering: .releasing)
        }
    }

    /// What takes part in a run, used by one thread.
    private struct Bench {
        let place: KVPlace
        let checksum: UInt32
        let receiver: KVReceiverProcess
        let folder: URL
        let scratch: TransferRegion
        var senders: [String: any KVSendingEnd] = [:]
        /// Peers that gave figures each time.
        var peers: [KVPeer]
    }

    private func measure(_ source: KVSource) throws {
        results.withLock { $0.source = source.description }
        let folder = FileManager.default.temporaryDirectory.appending(
            path: "pdserve-kv-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let identities = KVIdentities(folder: folder.appending(path: "certificates").path)
        try identities.create()
        let region = TransferRegion(byteCount: settings.regionBytes)
        region.fill(repeating: source.bytes)
        let receiver = try KVReceiverProcess(
            settings, certificates: identities.folder,
            errors: folder.appending(path: "receiver.log")
        ) { [self] in isInterrupted.load(ordering: .acquiring) }
        defer { receiver.end() }
        var bench = Bench(
            place: KVPlace(region: region, identities: identities), checksum: region.checksum,
            receiver: receiver, folder: folder, scratch: KVFloors.makeScratch(for: region),
            peers: settings.peers)
        for name in results.withLock({ $0.contenders }) { try open(name, &bench) }
        for number in 1...max(1, settings.rounds) { try runRound(number, &bench) }
        for sender in bench.senders.values { sender.close() }
        results.withLock { $0.isComplete = true }
    }

    /// Connects, sends all the memory once and compares what arrived.
    private func open(_ name: String, _ bench: inout Bench) throws {
        progress("\(name): connecting and verifying")
        try checkInterruption()
        guard let contender = KVContenders.named(name) else { return }
        guard contender.isSupported else {
            results.withLock { $0.problems.append("\(name): not on this system") }
            return
        }
        let port = try bench.receiver.open(name)
        let sender = try contender.openSender(bench.place, port: port)
        _ = try bench.receiver.ask(.clear)
        try sendAll(sender, bench)
        guard try bench.receiver.checksum() == bench.checksum else {
            throw MeasurementError.transferFailed("\(name): other bytes arrived than were sent")
        }
        bench.senders[name] = sender
    }

    private func runRound(_ number: Int, _ bench: inout Bench) throws {
        let load = ProcessReadings.loadAverage
        progress("round \(number) of \(settings.rounds), load average \(load)")
        results.withLock { $0.begin(load: load) }
        let floors = try KVFloors.measure(bench.place.region, scratch: bench.scratch)
        results.withLock { $0.add(floors) }
        let turns = bench.senders.keys.sorted() + bench.peers.map(\.name)
        for name in turns.shuffled() {
            try checkInterruption()
            if let peer = bench.peers.first(where: { $0.name == name }) {
                try run(peer, &bench)
            } else if let sender = bench.senders[name] {
                try run(name, sender, bench)
            }
        }
    }

    private func run(_ name: String, _ sender: any KVSendingEnd, _ bench: Bench) throws {
        try sendAll(sender, bench)
        var speeds: [String] = []
        for size in settings.sizes {
            try checkInterruption()
            let observation = try measure(sender, mebibytes: size, bench)
            results.withLock { $0.add(observation, of: name, size: size) }
            speeds.append(
                "\(size) MiB \(String(format: "%.2f", observation.gigabytesPerSecond))")
        }
        try sender.prepare([])
        progress("  \(name): \(speeds.joined(separator: ", ")) GB/s")
    }

    /// One transfer that does not count, of all the memory.
    private func sendAll(_ sender: any KVSendingEnd, _ bench: Bench) throws {
        let all = 0..<bench.place.region.byteCount
        try sender.prepare([all])
        _ = try sender.transfer(all)
    }

    private func measure(
        _ sender: any KVSendingEnd, mebibytes size: Int, _ bench: Bench
    ) throws -> KVObservation {
        let bytes = size << 20
        let count = KVMeasurementSettings.count(ofMebibytes: size)
        let ranges = (0..<count).map {
            bench.place.region.range(ofTransfer: $0, bytes: bytes)
        }
        try sender.prepare(ranges)
        var wireBytes = 0
        let receiverBefore = try bench.receiver.processorSeconds()
        let senderBefore = ProcessorClock.process.seconds
        let start = ContinuousClock.now
        for range in ranges { wireBytes += try sender.transfer(range) }
        let wall = ContinuousClock.now - start
        let senderAfter = ProcessorClock.process.seconds
        let receiverAfter = try bench.receiver.processorSeconds()
        let gigabytes = Double(count * bytes) / 1e9
        return KVObservation(
            gigabytesPerSecond: gigabytes / max(wall.seconds, 1e-9),
            senderSecondsPerGigabyte: (senderAfter - senderBefore) / gigabytes,
            receiverSecondsPerGigabyte: (receiverAfter - receiverBefore) / gigabytes,
            wireBytes: wireBytes / count)
    }

    /// A peer that fails once is left out from then on: its next run would cost as much.
    private func run(_ peer: KVPeer, _ bench: inout Bench) throws {
        let run = try KVPeerRun(peer, settings: settings, folder: bench.folder) { [self] in
            isInterrupted.load(ordering: .acquiring)
        }
        results.withLock { results in
            for (size, observation) in run.observations {
                results.add(observation, of: peer.name, size: size)
            }
            if let problem = run.problem { results.problems.append("\(peer.name): \(problem)") }
        }
        if let problem = run.problem {
            progress("  \(peer.name) is left out from now on: \(problem)")
            bench.peers.removeAll { $0.name == peer.name }
        } else {
            let speeds = settings.sizes.compactMap { size in
                run.observations[size].map {
                    "\(size) MiB \(String(format: "%.2f", $0.gigabytesPerSecond))"
                }
            }
            progress("  \(peer.name): \(speeds.joined(separator: ", ")) GB/s")
        }
    }

    private func checkInterruption() throws {
        if isInterrupted.load(ordering: .acquiring) { throw CancellationError() }
    }
}
