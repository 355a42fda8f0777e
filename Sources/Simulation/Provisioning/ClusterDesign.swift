/// How many machines there are of each use.
package struct MachineCounts: Sendable, Hashable, Codable, CustomStringConvertible {
    /// Machines for prompts, for decode, and for both at once.
    package var prefill: Int
    package var decode: Int
    package var mixed: Int

    package init(prefill: Int = 0, decode: Int = 0, mixed: Int = 0) {
        self.prefill = prefill
        self.decode = decode
        self.mixed = mixed
    }

    package var total: Int { prefill + decode + mixed }

    package var description: String {
        mixed == total ? "\(mixed)" : "\(prefill)P+\(decode)D" + (mixed > 0 ? "+\(mixed)M" : "")
    }
}

/// What one machine takes, in any units that all machines share.
package struct MachinePrice: Sendable, Hashable, Codable {
    package var cost: Double
    package var power: Double

    package init(cost: Double, power: Double) {
        self.cost = cost
        self.power = power
    }
}

/// Which machines a cluster is made of; how many is searched.
package struct ClusterDesign: Sendable, Hashable {
    package enum Machines: Sendable, Hashable {
        /// Every machine serves prompts and decode.
        case mixed(MachinePrice)
        case split(prefill: MachinePrice, decode: MachinePrice)
    }

    package var name: String
    package var machines: Machines

    package init(name: String, machines: Machines) {
        self.name = name
        self.machines = machines
    }

    /// What so many machines take, by a measure.
    package func amount(_ measure: Measure, of counts: MachineCounts) -> Double {
        switch machines {
        case .mixed(let price): measure(price) * Double(counts.mixed)
        case .split(let prefill, let decode):
            measure(prefill) * Double(counts.prefill) + measure(decode) * Double(counts.decode)
        }
    }

    /// Numbers of machines within a budget to which no machine can be added.
    func largest(within budget: Budget, limits: ProvisioningLimits) -> [MachineCounts] {
        func most(_ price: MachinePrice, _ left: Double) -> Int {
            min(limits.machinesPerUse, Int(left / budget.measure(price) + 1e-9))
        }
        switch machines {
        case .mixed(let price):
            let count = most(price, budget.amount)
            return count > 0 ? [MachineCounts(mixed: count)] : []
        case .split(let prefill, let decode):
            return stride(from: 1, through: most(prefill, budget.amount), by: 1).compactMap {
                let left = budget.amount - budget.measure(prefill) * Double($0)
                let count = most(decode, left)
                return count > 0 ? MachineCounts(prefill: $0, decode: count) : nil
            }
        }
    }
}

/// What is to be small.
package enum Measure: String, Sendable, Hashable, Codable, CaseIterable {
    case cost, power, machines

    package func callAsFunction(_ price: MachinePrice) -> Double {
        switch self {
        case .cost: price.cost
        case .power: price.power
        case .machines: 1
        }
    }
}

/// What a cluster may take.
package struct Budget: Sendable, Hashable {
    package var measure: Measure
    package var amount: Double

    package init(_ measure: Measure, _ amount: Double) {
        self.measure = measure
        self.amount = amount
    }
}

/// Where a search ends.
package struct ProvisioningLimits: Sendable, Hashable {
    /// Requests per second that are tried: from the first to the last in equal steps.
    package var lowestRate = 1.0
    package var highestRate = 250.0
    package var rateStep = 1.0
    package var machinesPerUse = 128
    /// Evaluations at once.
    package var threads = 1

    package init() {}

    /// The rates from low to high.
    func rate(_ index: Int) -> Double { lowestRate + Double(index) * rateStep }
    var rates: Int { Int((highestRate - lowestRate) / rateStep + 1e-9) + 1 }
}
