/// What a host tells about its processors.
package struct ProcessorFacts: Hashable, Sendable {
    package var name: String
    /// That compute: threads of a core count once where that is known.
    package var cores: Int
    package var hertz: Double
    /// Instructions as `/proc/cpuinfo` names them.
    package var flags: Set<String>
    package var memoryBytes: Double

    package init(
        name: String, cores: Int, hertz: Double, flags: Set<String>, memoryBytes: Double
    ) {
        self.name = name
        self.cores = cores
        self.hertz = hertz
        self.flags = flags
        self.memoryBytes = memoryBytes
    }

    /// Reads `/proc/cpuinfo`; nil if it names no processor.
    package init?(cpuinfo: String, memoryBytes: Double) {
        var (names, megahertz, flags, processors): ([String], [Double], Set<String>, Int) =
            ([], [], [], 0)
        var places: Set<String> = []
        var package = ""
        for line in cpuinfo.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1).map {
                $0.trimmed
            }
            guard parts.count == 2 else { continue }
            switch parts[0] {
            case "processor": processors += 1
            case "model name": names.append(parts[1])
            case "cpu MHz": megahertz += Double(parts[1]).map { [$0] } ?? []
            case "physical id": package = parts[1]
            case "core id": places.insert("\(package)/\(parts[1])")
            case "flags", "Features": flags = Set(parts[1].split(separator: " ").map(String.init))
            default: break
            }
        }
        guard processors > 0 else { return nil }
        self.init(
            name: names.first ?? "processors", cores: places.isEmpty ? processors : places.count,
            hertz: (megahertz.max() ?? 2000) * 1e6, flags: flags, memoryBytes: memoryBytes)
    }
}

extension Substring {
    fileprivate var trimmed: String {
        let front = drop { $0 == " " || $0 == "\t" }
        return String(front.reversed().drop { $0 == " " || $0 == "\t" }.reversed())
    }
}

extension DeviceProfile {
    /// A device that nothing is known of; zeros where a figure must be given.
    package static func plain(name: String, kind: DeviceKind) -> DeviceProfile {
        let unknown = Figure.estimate(0, "unknown")
        return DeviceProfile(
            name: name, aliases: [], kind: kind, maker: "", compute: [:], memoryBytes: unknown,
            memoryBytesPerSecond: unknown,
            networkBytesPerSecond: .estimate(1.25 * giga, "10 Gbit/s Ethernet"),
            powerWatts: unknown, efficiency: kind == .cpu ? .processor : .accelerator)
    }

    /// Processors that the catalogue lacks, by their cores, clock and instructions.
    package static func derived(from facts: ProcessorFacts, threads: Int? = nil) -> DeviceProfile {
        let (width, instructions): (Double, String) =
            if facts.flags.contains("avx512f") {
                (64, "two 512-bit FMA")
            } else if facts.flags.contains("fma") {
                (32, "two 256-bit FMA")
            } else {
                (16, "two 128-bit FMA")
            }
        let cores = Double(max(1, min(facts.cores, threads ?? facts.cores)))
        let single = cores * facts.hertz * width
        let dots: Set<String> = ["avx512_vnni", "avx_vnni", "asimddp"]
        var profile = plain(name: facts.name, kind: .cpu)
        profile.compute = [
            .float32: .estimate(
                single, "\(Int(cores)) cores x \(Int(width)) FLOP (\(instructions)) x clock"),
            .int8: .estimate(
                single * (dots.isDisjoint(with: facts.flags) ? 1 : 4),
                dots.isDisjoint(with: facts.flags)
                    ? "as FP32: no dot products of bytes" : "four times FP32 (dot products)"),
        ]
        profile.memoryBytes = .estimate(facts.memoryBytes, "the host's memory")
        profile.memoryBytesPerSecond = .estimate(
            min(12 * giga * cores, 200 * giga), "12 GB/s per core, at most 200")
        profile.powerWatts = .estimate(5 * cores, "5 W per core")
        return profile
    }

    /// The same device with its efficiency as it was measured with one model.
    ///
    /// - Parameter chunk: tokens of a micro-batch.
    package func measured(by curves: MeasuredCurves, shape: ModelShape, chunk: Int)
        -> DeviceProfile
    {
        var profile = self
        let source = "measured with \(shape.name)"
        let fixed = min(curves.prefill.fixed, curves.decode.fixed)
        profile.efficiency.secondsPerStep = Figure(max(fixed, 0), source)
        let operations =
            Double(chunk) * shape.operationsPerToken(context: Double(chunk) / 2)
            + shape.outputOperations
        let seconds = curves.prefillSeconds([0..<chunk]) - fixed
        if let (type, peak) = compute(for: shape.weightType), seconds > 0 {
            let share = operations / seconds / peak
            profile.efficiency.computeShare = Figure(min(share, 1), source)
            if share > 1 { profile.compute[type] = Figure(peak * share, source) }
        }
        let step = curves.decodeSeconds(sequences: 1, contextTokens: 1) - fixed
        if step > 0, memoryBytesPerSecond.value > 0 {
            let share = shape.weightBytesRead(tokens: 1) / step / memoryBytesPerSecond.value
            profile.efficiency.bandwidthShare = Figure(min(share, 1), source)
            if share > 1 {
                profile.memoryBytesPerSecond = Figure(
                    memoryBytesPerSecond.value * share, source)
            }
        }
        profile.kvExportBytesPerSecond = Figure(curves.kvExportBytesPerSecond, source)
        profile.kvImportBytesPerSecond = Figure(curves.kvImportBytesPerSecond, source)
        return profile
    }
}
