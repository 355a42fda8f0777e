/// What one device can do, what it costs and how it is called.
package struct DeviceProfile: Hashable, Sendable, Codable {
    /// Its name in the catalogue, for example `H100 SXM`.
    package var name: String
    /// Other names: of drivers, of ggml, of people.
    package var aliases: [String]
    package var kind: DeviceKind
    package var maker: String
    /// Operations per second of dense matrices, without sparsity, by number type.
    package var compute: [NumberType: Figure]
    /// Memory for weights and KV in bytes.
    package var memoryBytes: Figure
    package var memoryBytesPerSecond: Figure
    /// Network of one device, one direction.
    package var networkBytesPerSecond: Figure
    /// Link between devices of one host, one direction; nil if there is none but the host's.
    package var peerBytesPerSecond: Figure?
    /// Link to the host's memory, one direction; nil if host and device share the memory.
    package var hostBytesPerSecond: Figure?
    package var powerWatts: Figure
    /// US dollars per hour for one device; nil if nobody rents it out.
    package var pricePerHour: Figure?
    /// KV out of the device's memory into the host's; nil: the slower of copying and host link.
    package var kvExportBytesPerSecond: Figure?
    package var kvImportBytesPerSecond: Figure?
    package var efficiency: DeviceEfficiency

    package init(
        name: String, aliases: [String], kind: DeviceKind, maker: String,
        compute: [NumberType: Figure], memoryBytes: Figure, memoryBytesPerSecond: Figure,
        networkBytesPerSecond: Figure, peerBytesPerSecond: Figure? = nil,
        hostBytesPerSecond: Figure? = nil, powerWatts: Figure, pricePerHour: Figure? = nil,
        kvExportBytesPerSecond: Figure? = nil, kvImportBytesPerSecond: Figure? = nil,
        efficiency: DeviceEfficiency
    ) {
        self.name = name
        self.aliases = aliases
        self.kind = kind
        self.maker = maker
        self.compute = compute
        self.memoryBytes = memoryBytes
        self.memoryBytesPerSecond = memoryBytesPerSecond
        self.networkBytesPerSecond = networkBytesPerSecond
        self.peerBytesPerSecond = peerBytesPerSecond
        self.hostBytesPerSecond = hostBytesPerSecond
        self.powerWatts = powerWatts
        self.pricePerHour = pricePerHour
        self.kvExportBytesPerSecond = kvExportBytesPerSecond
        self.kvImportBytesPerSecond = kvImportBytesPerSecond
        self.efficiency = efficiency
    }

    /// The number type that weights of this format are multiplied in, and its operations per
    /// second.
    ///
    /// Quantised weights: CPUs multiply 8-bit integers, accelerators widen to 16 bits first.
    package func compute(for weights: WeightType) -> (type: NumberType, perSecond: Double)? {
        let order: [NumberType] =
            switch weights {
            case .float32: [.tensorFloat32, .float32]
            case .float16: [.float16, .bfloat16, .float32]
            case .bfloat16: [.bfloat16, .float16, .float32]
            case .float8: [.float8, .float16, .bfloat16, .float32]
            default:
                kind == .cpu
                    ? [.int8, .bfloat16, .float16, .float32] : [.float16, .bfloat16, .float32]
            }
        return order.lazy.compactMap { type in
            self.compute[type].map { (type, $0.value) }
        }.first
    }

    /// All its figures by name, for people.
    package var figures: [(name: String, unit: String, figure: Figure)] {
        var figures: [(String, String, Figure)] = []
        for type in NumberType.allCases {
            if let figure = compute[type] { figures.append((type.rawValue, "op/s", figure)) }
        }
        let rest: [(String, String, Figure?)] = [
            ("memory", "B", memoryBytes), ("memory bandwidth", "B/s", memoryBytesPerSecond),
            ("network", "B/s", networkBytesPerSecond), ("peer link", "B/s", peerBytesPerSecond),
            ("host link", "B/s", hostBytesPerSecond), ("power", "W", powerWatts),
            ("price", "$/h", pricePerHour), ("KV export", "B/s", kvExportBytesPerSecond),
            ("KV import", "B/s", kvImportBytesPerSecond),
            ("prefill efficiency", "", efficiency.computeShare),
            ("decode efficiency", "", efficiency.bandwidthShare),
            ("step overhead", "s", efficiency.secondsPerStep),
        ]
        return figures
            + rest.compactMap { name, unit, figure in figure.map { (name, unit, $0) } }
    }
}

/// What a device reaches in practice.
package struct DeviceEfficiency: Hashable, Sendable, Codable {
    /// Part of its compute that prefill reaches, 0 to 1.
    package var computeShare: Figure
    /// Part of its memory bandwidth that decode reaches, 0 to 1.
    package var bandwidthShare: Figure
    /// Seconds each iteration takes on top, whatever its size.
    package var secondsPerStep: Figure

    package init(computeShare: Figure, bandwidthShare: Figure, secondsPerStep: Figure) {
        self.computeShare = computeShare
        self.bandwidthShare = bandwidthShare
        self.secondsPerStep = secondsPerStep
    }
}
