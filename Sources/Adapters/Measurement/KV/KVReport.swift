import Foundation
import Reports
import ServingTypes
import Transport

extension KVResults {
    /// The tables of what was measured so far.
    var report: Report {
        let loads = rounds.map(\.load).joined(separator: " ")
        var report = Report(
            name: "kv",
            facts: [
                ("processor", ProcessReadings.processorName),
                ("cores", "\(ProcessInfo.processInfo.activeProcessorCount)"),
                ("load average by round", loads), ("rounds", "\(rounds.count)"),
                ("bytes sent", source),
            ] + (problems.isEmpty ? [] : [("left out", problems.joined(separator: " · "))]))
        report.isComplete = isComplete
        report.tables = [transfers, compression, floors, distances, ratioTable]
        report.findings = findings
        return report
    }

    private var everybody: [String] { contenders + peers }

    private var transfers: ReportTable {
        var table = ReportTable(
            "transfers", "Transfers between two processes, each acknowledged before the next",
            columns: [
                "contender", "mib", "rounds", "gb_per_s", "best_gb_per_s", "to_tcp",
                "sender_s_per_gb", "receiver_s_per_gb", "bneck_gb_per_s",
            ])
        table.note = """
            mib: 2^20 bytes, gb: 10^9 bytes. Medians of rounds; to tcp: median of the ratios \
            within one round. sender, receiver: processor seconds; bneck: 1 / the larger of them, \
            what one core on each side could carry. memory: counts one copy, by the sender into \
            memory that the receiver then reads in place; memory+copy: counts one, by the receiver \
            out of memory that was filled before.
            """
        for size in sizes {
            for name in everybody {
                let speed = samples(name, size: size, \.gigabytesPerSecond)
                guard speed.count > 0 else { continue }
                table.add([
                    .text(name), .whole(size), .whole(speed.count), .number(speed.median, 3),
                    .number(speed.values.max(), 3),
                    .number(
                        ratios(
                            name, to: KVContenders.base, size: size, \.gigabytesPerSecond
                        ).median, 3),
                    .number(samples(name, size: size, \.senderSecondsPerGigabyte).median, 3),
                    .number(samples(name, size: size, \.receiverSecondsPerGigabyte).median, 3),
                    .number(samples(name, size: size, \.bottleneckGigabytesPerSecond).median, 3),
                ])
            }
        }
        return table
    }

    /// Only of contenders that change the number of bytes.
    private var compression: ReportTable {
        var table = ReportTable(
            "compression", "Bytes of one transfer",
            columns: ["contender", "mib", "raw_bytes", "wire_bytes", "raw_to_wire"])
        for size in sizes {
            for name in contenders {
                let wire = samples(name, size: size) { $0.wireBytes.map(Double.init) }.median
                let raw = Double(size << 20)
                guard let wire, wire != raw else { continue }
                table.add([
                    .text(name), .whole(size), .number(raw, 0), .number(wire, 0),
                    .ratio(raw, to: wire),
                ])
            }
        }
        return table
    }

    private var floors: ReportTable {
        var table = ReportTable(
            "floors", "What one core does at best",
            columns: ["operation", "gb_per_s", "s_per_gb"])
        func add(_ name: String, _ cost: (KVFloors) -> Double?) {
            let costs = Samples(rounds.compactMap { $0.floors.flatMap(cost) })
            guard let median = costs.median, median > 0 else { return }
            table.add([.text(name), .number(1e-9 / median, 2), .number(median * 1e9, 3)])
        }
        for length in KVFloors.copyLengths {
            add("memcpy, \(length >> 20) MiB") { $0.copies[length] }
        }
        for block in KVFloors.cipherBlocks {
            add("AES-128-GCM encrypt, \(block >> 10) KiB") {
                $0.ciphers[block].map { 1 / $0.sealBytesPerSecond }
            }
            add("AES-128-GCM decrypt, \(block >> 10) KiB") {
                $0.ciphers[block].map { 1 / $0.openBytesPerSecond }
            }
        }
        return table
    }

    private var distances: ReportTable {
        var table = ReportTable(
            "distance", "Distance to the floor",
            columns: ["contender", "mib", "bneck_gb_per_s", "floor_gb_per_s", "of_floor"])
        table.note = """
            floor of encrypted streams: bneck of plain TCP with the least cost of AES-128-GCM (256 \
            KiB) added on each side; of memory: the fastest memcpy. Both of the same round.
            """
        for size in sizes {
            for name in contenders {
                guard let kind = KVContenders.named(name)?.floor else { continue }
                let (floor, share) = floorShares(name, kind, size: size)
                guard share.count > 0 else { continue }
                table.add([
                    .text(name), .whole(size),
                    .number(samples(name, size: size, \.bottleneckGigabytesPerSecond).median, 3),
                    .number(floor.median, 3), .number(share.median, 3),
                ])
            }
        }
        return table
    }

    /// Own contenders to plain TCP and to other programs.
    private var pairs: [(own: String, other: String)] {
        contenders.flatMap { own in
            ([KVContenders.base] + peers).filter { $0 != own }.map { (own, $0) }
        }
    }

    private func pairRatios(
        _ pair: (own: String, other: String), size: Int
    ) -> (wall: Samples, bottleneck: Samples) {
        (
            ratios(pair.own, to: pair.other, size: size, \.gigabytesPerSecond),
            ratios(pair.own, to: pair.other, size: size, \.bottleneckGigabytesPerSecond)
        )
    }

    private var ratioTable: ReportTable {
        var table = ReportTable(
            "ratios", "Ratios within the same rounds",
            columns: ["pair", "mib", "rounds", "wall", "bneck"])
        for size in sizes {
            for pair in pairs {
                let (wall, bottleneck) = pairRatios(pair, size: size)
                guard wall.count > 0 else { continue }
                table.add([
                    .text("\(pair.own) / \(pair.other)"), .whole(size), .whole(wall.count),
                    .number(wall.median, 3), .number(bottleneck.median, 3),
                ])
            }
        }
        return table
    }

    /// The same for the largest size, in words.
    private var findings: [String] {
        guard let size = sizes.max() else { return [] }
        return pairs.compactMap { pair in
            let (wall, bottleneck) = pairRatios(pair, size: size)
            guard let wall = wall.median else { return nil }
            let bneck = bottleneck.median.map { String(format: ", %.2f bneck", $0) } ?? ""
            return "\(pair.own) / \(pair.other), \(size) MiB: "
                + String(format: "%.2f wall", wall) + bneck
        }
    }
}
