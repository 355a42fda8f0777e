package import DeviceProfile

/// A kind of machine that a plan may use.
package struct MachineKind: Sendable {
    /// How people call it, for example `8 × H100`.
    package var name: String
    package var model: any PerformanceModel
    /// Machines there are at most; nil: as many as wanted.
    package var available: Int?
    /// US dollars per hour for one machine; nil if nobody knows.
    package var pricePerHour: Double?
    /// Watts of one machine under load.
    package var powerWatts: Double

    package init(
        name: String, model: any PerformanceModel, available: Int? = nil, pricePerHour: Double?,
        powerWatts: Double
    ) {
        self.name = name
        self.model = model
        self.available = available
        self.pricePerHour = pricePerHour
        self.powerWatts = powerWatts
    }
}

/// How many machines of each kind do what; kinds by their place in the planner's list.
package struct Fleet: Sendable, Hashable {
    package var prefill: [Int: Int] = [:]
    package var decode: [Int: Int] = [:]
    package var mixed: [Int: Int] = [:]

    package init() {}

    package init(prefill: [Int: Int] = [:], decode: [Int: Int] = [:], mixed: [Int: Int] = [:]) {
        self.prefill = prefill.filter { $0.value > 0 }
        self.decode = decode.filter { $0.value > 0 }
        self.mixed = mixed.filter { $0.value > 0 }
    }

    package var isSplit: Bool { !prefill.isEmpty }
    package var prefillCount: Int { prefill.values.reduce(0, +) }
    package var decodeCount: Int { decode.values.reduce(0, +) }
    package var mixedCount: Int { mixed.values.reduce(0, +) }
    package var machines: Int { prefillCount + decodeCount + mixedCount }

    /// A sum over all machines.
    func sum(_ kinds: [MachineKind], _ value: (MachineKind) -> Double) -> Double {
        // In one order, for sums of fractions depend on it.
        [prefill, decode, mixed].reduce(0) { sum, part in
            part.sorted { $0.key < $1.key }
                .reduce(sum) { $0 + value(kinds[$1.key]) * Double($1.value) }
        }
    }
}

extension [MachineKind] {
    /// Dollars per hour; nil if a price is unknown.
    package func price(of fleet: Fleet) -> Double? {
        let used = Set(fleet.prefill.keys).union(fleet.decode.keys).union(fleet.mixed.keys)
        guard used.allSatisfy({ self[$0].pricePerHour != nil }) else { return nil }
        return fleet.sum(self) { $0.pricePerHour ?? 0 }
    }

    /// Watts.
    package func power(of fleet: Fleet) -> Double { fleet.sum(self, \.powerWatts) }

    /// Whether so many machines of each kind exist.
    package func allow(_ fleet: Fleet) -> Bool {
        indices.allSatisfy { kind in
            guard let available = self[kind].available else { return true }
            let used =
                fleet.prefill[kind, default: 0] + fleet.decode[kind, default: 0]
                + fleet.mixed[kind, default: 0]
            return used <= available
        }
    }
}
