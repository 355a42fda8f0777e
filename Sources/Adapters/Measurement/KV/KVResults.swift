/// What one contender gave in one round with transfers of one size.
struct KVObservation: Sendable, Equatable {
    /// By wall clock, 10⁹ bytes.
    var gigabytesPerSecond: Double
    var senderSecondsPerGigabyte: Double
    var receiverSecondsPerGigabyte: Double
    /// Bytes of one transfer on the wire; nil where nobody counts them.
    var wireBytes: Int?

    /// What one core on each side could carry; nil if no time was counted.
    var bottleneckGigabytesPerSecond: Double? {
        let most = max(senderSecondsPerGigabyte, receiverSecondsPerGigabyte)
        return most > 0 ? 1 / most : nil
    }
}

/// Everything `benchmark kv` has measured.
struct KVResults: Sendable {
    /// All contenders under equal conditions.
    struct Round: Sendable {
        var load = ""
        var floors: KVFloors?
        /// By contender and size in MiB.
        var observations: [String: [Int: KVObservation]] = [:]
    }

    /// In the order of the report.
    var contenders: [String]
    var peers: [String]
    var sizes: [Int]
    private(set) var rounds: [Round] = []
    /// What was left out, with the reason.
    var problems: [String] = []
    var source = ""
    var isComplete = false

    init(contenders: [String], peers: [String], sizes: [Int]) {
        self.contenders = contenders
        self.peers = peers
        self.sizes = sizes
    }

    mutating func begin(load: String) { rounds.append(Round(load: load)) }

    /// Adds to the round that was begun last.
    mutating func add(_ floors: KVFloors) { update { $0.floors = floors } }

    mutating func add(_ observation: KVObservation, of contender: String, size: Int) {
        update { $0.observations[contender, default: [:]][size] = observation }
    }

    private mutating func update(_ body: (inout Round) -> Void) {
        precondition(!rounds.isEmpty, "a round has begun")
        body(&rounds[rounds.count - 1])
    }

    /// One value of each round in which there was one.
    func samples(
        _ contender: String, size: Int, _ value: (KVObservation) -> Double?
    ) -> Samples {
        Samples(rounds.compactMap { $0.observations[contender]?[size].flatMap(value) })
    }

    /// Ratios of two contenders' values within each round in which both are there.
    func ratios(
        _ contender: String, to other: String, size: Int, _ value: (KVObservation) -> Double?
    ) -> Samples {
        Samples(
            rounds.compactMap { round in
                guard let own = round.observations[contender]?[size].flatMap(value),
                    let base = round.observations[other]?[size].flatMap(value), base > 0
                else { return nil }
                return own / base
            })
    }

    /// The floor of each round, and the share of it that a contender reaches.
    func floorShares(
        _ contender: String, _ kind: KVFloorKind, size: Int
    ) -> (floor: Samples, share: Samples) {
        var floor = Samples()
        var share = Samples()
        for round in rounds {
            guard let own = round.observations[contender]?[size]?.bottleneckGigabytesPerSecond,
                let plain = round.observations[KVContenders.base]?[size],
                let best = round.floors?.gigabytesPerSecond(kind, plain: plain)
            else { continue }
            floor.add(best)
            share.add(own / best)
        }
        return (floor, share)
    }
}
