package import Provisioning
package import RequestTraces

/// A machine of Splitwise's designs, with 8 GPUs.
///
/// Costs and powers are those of SplitwiseSim: dollars per GPU and hour, and units in which all
/// machines are given.
package struct SplitwiseMachine: Sendable, Hashable {
    package var hardware: String
    package var price: MachinePrice

    package static let a100 = SplitwiseMachine(
        hardware: "a100-80gb", price: MachinePrice(cost: 2.21, power: 24.8))
    package static let h100 = SplitwiseMachine(
        hardware: "h100-80gb", price: MachinePrice(cost: 4.76, power: 44))
    /// An H100 whose GPUs are capped, so that the machine takes 70 % of its power.
    package static let cappedH100 = SplitwiseMachine(
        hardware: "h100-80gb-pcap", price: MachinePrice(cost: 4.76, power: 44 * 0.7))
}

/// The designs that Splitwise compares.
package enum SplitwiseDesign: String, Sendable, CaseIterable {
    case baselineA100 = "Baseline-A100"
    case baselineH100 = "Baseline-H100"
    case aa = "Splitwise-AA"
    case hh = "Splitwise-HH"
    case ha = "Splitwise-HA"
    case hhCapped = "Splitwise-HHcap"

    package var promptMachine: SplitwiseMachine {
        switch self {
        case .baselineA100, .aa: .a100
        case .baselineH100, .hh, .ha, .hhCapped: .h100
        }
    }

    package var tokenMachine: SplitwiseMachine {
        switch self {
        case .baselineA100, .aa, .ha: .a100
        case .baselineH100, .hh: .h100
        case .hhCapped: .cappedH100
        }
    }

    package var isBaseline: Bool { self == .baselineA100 || self == .baselineH100 }

    /// The design with the prices of its machines.
    package var priced: ClusterDesign {
        ClusterDesign(
            name: rawValue,
            machines: isBaseline
                ? .mixed(promptMachine.price)
                : .split(prefill: promptMachine.price, decode: tokenMachine.price))
    }

    /// Times of its machines: for prompts, and of split designs for decode.
    package func kinds(
        model: ServedModel, table: PerformanceTable
    ) throws(PerformanceTable.Failure) -> [PhaseCurves] {
        var kinds: [PhaseCurves] = []
        for machine in isBaseline ? [promptMachine] : [promptMachine, tokenMachine] {
            kinds.append(
                try table.curves(
                    .init(model: model.name, hardware: machine.hardware, tensorParallel: 8)))
        }
        return kinds
    }

    /// So many machines of this design, scheduled as SplitwiseSim does.
    package func cluster(
        _ counts: MachineCounts, kinds: [PhaseCurves], model: ServedModel
    ) -> SplitwiseCluster {
        let machines: [SplitwiseCluster.Machine] =
            isBaseline
            ? Array(repeating: .init(kind: 0, tag: .any), count: counts.mixed)
            : Array(repeating: .init(kind: 0, tag: .prompt), count: counts.prefill)
                + Array(repeating: .init(kind: 1, tag: .token), count: counts.decode)
        return SplitwiseCluster(
            kinds: kinds, machines: machines, model: model,
            policy: isBaseline ? .fewestTokens : .mixedPool)
    }
}

/// Judges numbers of machines of one design by simulation, on requests drawn at random.
package struct SplitwiseEvaluator: Sendable {
    package let design: SplitwiseDesign
    package let model: ServedModel
    /// What lengths are drawn from.
    package var lengths: RequestTrace
    package var draw = RequestTrace.LengthDraw.independent
    package var seconds = 120.0
    /// Equal for all rates, so that a higher one has the same requests in less time.
    package var seed: UInt64 = 0
    package var goals = ServiceGoals.splitwise
    private let kinds: [PhaseCurves]
    private let reference: PhaseCurves

    /// Throws if the table lacks the model on one of the machines or on A100, the reference.
    package init(
        _ design: SplitwiseDesign, model: ServedModel, table: PerformanceTable,
        lengths: RequestTrace
    ) throws(PerformanceTable.Failure) {
        self.design = design
        self.model = model
        self.lengths = lengths
        kinds = try design.kinds(model: model, table: table)
        reference = try Self.reference(model: model, table: table)
    }

    /// Times of a request alone, which slowdowns are against: those of an A100 machine.
    package static func reference(
        model: ServedModel, table: PerformanceTable
    ) throws(PerformanceTable.Failure) -> PhaseCurves {
        try table.curves(
            .init(
                model: model.name, hardware: SplitwiseMachine.a100.hardware, tensorParallel: 8))
    }

    /// Runs until all requests have ended or the goals are lost.
    package func evaluate(
        _ counts: MachineCounts, perSecond rate: Double
    ) -> Verdict<ServiceFigures> {
        let entries = lengths.poisson(
            perSecond: rate, seconds: seconds, seed: seed, lengths: draw
        ).entries
        var judge = ServiceJudge(reference: reference, goals: goals, expected: entries.count)
        var simulation = SplitwiseSimulation(
            design.cluster(counts, kinds: kinds, model: model))
        var index = 0
        let ending = simulation.run(
            next: {
                guard index < entries.count else { return nil }
                defer { index += 1 }
                return entries[index]
            },
            record: {
                judge.record($0)
                return !judge.isLost
            })
        return Verdict(
            meetsGoals: ending == .finished && judge.meetsGoals, figures: judge.figures)
    }
}
