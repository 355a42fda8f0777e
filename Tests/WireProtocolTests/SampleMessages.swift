import ServingTypes

/// Valid messages of every kind with random contents, ends of ranges included.
struct SampleMessages {
    var random: SeededGenerator

    init(seed: UInt64) { random = SeededGenerator(seed: seed) }

    mutating func message(_ kind: MessageKind) -> ControlMessage {
        switch kind {
        case .hello, .refusal, .ping, .pong: connectionMessage(kind)
        case .register, .heartbeat, .deregister, .subscribe, .groupView, .healthReport,
            .groupViewChange, .assign:
            membershipMessage(kind)
        case .clusterStatusRequest, .clusterStatus, .clusterRules, .trafficReport, .adminRequest,
            .adminReply:
            administrationMessage(kind)
        case .canary, .canaryDone, .exit: probeMessage(kind)
        case .kvOffer, .kvGrant, .kvChunk, .kvEnd, .kvDone, .kvAbort, .kvMemory, .kvCredit,
            .kvResend:
            transferMessage(kind)
        default: requestMessage(kind)
        }
    }

    private mutating func connectionMessage(_ kind: MessageKind) -> ControlMessage {
        switch kind {
        case .hello:
            .hello(
                Hello(
                    protocolVersion: UInt32(truncatingIfNeeded: number()), cluster: name(),
                    role: element(Role.allCases), instance: instance(), incarnation: number(),
                    fingerprint: flip() ? fingerprint() : nil, productVersion: text(64)))
        case .refusal: .refusal(Refusal(code: code(), reason: text(300)))
        case .ping: .ping(Ping(number: number()))
        default: .pong(Pong(number: number(), status: flip() ? status() : nil))
        }
    }

    private mutating func membershipMessage(_ kind: MessageKind) -> ControlMessage {
        switch kind {
        case .register: .register(Register(description: description(), status: status()))
        case .heartbeat: .heartbeat(Heartbeat(status: status()))
        case .deregister: .deregister(Deregister(reason: text(100)))
        case .subscribe: .subscribe(Subscribe(host: flip() ? text(40) : ""))
        case .groupView: .groupView(view())
        case .healthReport: .healthReport(report())
        case .groupViewChange: .groupViewChange(change())
        default:
            .assign(
                Assign(
                    number: number(), role: servingRole(), group: flip() ? group() : nil,
                    scenario: text(30), stepLimit: flip() ? stepLimit() : nil,
                    modelPath: text(60)))
        }
    }

    private mutating func administrationMessage(_ kind: MessageKind) -> ControlMessage {
        switch kind {
        case .clusterStatusRequest: .clusterStatusRequest(ClusterStatusRequest())
        case .clusterStatus: .clusterStatus(clusterStatus())
        case .clusterRules: .clusterRules(ClusterRules(text: text(2000)))
        case .trafficReport:
            .trafficReport(
                TrafficReport(
                    interval: .milliseconds(count(24 * 3_600_000)),
                    groups: list(4) { $0.traffic() }))
        case .adminRequest:
            .adminRequest(
                AdminRequest(
                    command: name(),
                    arguments: list(4) { samples in
                        AdminRequest.Argument(name: samples.name(), value: samples.text(100))
                    }))
        default: .adminReply(AdminReply(isAccepted: flip(), text: text(400)))
        }
    }

    private mutating func requestMessage(_ kind: MessageKind) -> ControlMessage {
        switch kind {
        case .reserveKV: .reserveKV(ReserveKV(terms: terms(), isFallback: flip()))
        case .reservationGranted:
            .reservationGranted(
                ReservationGranted(
                    attempt: attempt(), secret: secret(), kvBytes: bytes(),
                    heldTokens: count(1 << 20)))
        case .reservationRefused:
            .reservationRefused(
                ReservationRefused(
                    attempt: attempt(), code: code(), neededBytes: bytes(), freeBytes: bytes()))
        case .prefillOffer:
            .prefillOffer(
                PrefillOffer(
                    terms: terms(), target: flip() ? target() : nil, isFallback: flip()))
        case .placeKV: .placeKV(PlaceKV(attempt: attempt(), target: target()))
        case .kvDelivered: .kvDelivered(KVDelivered(attempt: attempt()))
        case .moveWanted: .moveWanted(MoveWanted(attempt: attempt()))
        case .holdSequence:
            .holdSequence(HoldSequence(attempt: attempt(), successor: UInt32(count(1 << 16))))
        case .sequenceHeld:
            .sequenceHeld(
                SequenceHeld(
                    attempt: attempt(), successor: UInt32(count(1 << 16)),
                    outputTokens: count(1 << 20)))
        case .prefillAccepted:
            .prefillAccepted(
                PrefillAccepted(attempt: attempt(), cachedTokens: count(1 << 20)))
        case .prefillRejected:
            .prefillRejected(
                PrefillRejected(attempt: attempt(), code: code(), reason: text(80)))
        case .slotsOpen: .slotsOpen(SlotsOpen(freePrefillSlots: count(1 << 16)))
        case .kvRoomOpen: .kvRoomOpen(KVRoomOpen(freeKVBytes: bytes()))
        case .tokenBatch:
            .tokenBatch(
                TokenBatch(
                    attempt: attempt(), firstIndex: count(1 << 20),
                    tokens: list(4) { $0.output() },
                    finish: element([nil, .stop, .length])))
        case .requestFailed:
            .requestFailed(RequestFailed(attempt: attempt(), code: code(), reason: text(80)))
        default: .cancelRequest(CancelRequest(attempt: attempt()))
        }
    }

    private mutating func transferMessage(_ kind: MessageKind) -> ControlMessage {
        switch kind {
        case .kvOffer:
            .kvOffer(
                KVOffer(
                    attempt: attempt(), secret: secret(), fingerprint: fingerprint(),
                    tokens: 1 + count((1 << 20) - 1), startToken: count(1 << 20),
                    chunkTokens: 1 + count((1 << 20) - 1)))
        case .kvGrant:
            .kvGrant(
                KVGrant(
                    attempt: attempt(), heldTokens: count(1 << 20),
                    maximumChunkBytes: 1 + count((1 << 30) - 1), creditBytes: bytes(),
                    round: UInt32(truncatingIfNeeded: number()), local: flip() ? local() : nil))
        case .kvChunk: .kvChunk(chunk())
        case .kvEnd:
            .kvEnd(
                KVEnd(
                    attempt: attempt(), tokens: 1 + count((1 << 20) - 1), firstToken: output(),
                    digest: number()))
        case .kvDone:
            .kvDone(
                KVDone(attempt: attempt(), code: flip() ? code() : nil, reason: text(40)))
        case .kvMemory:
            .kvMemory(
                KVMemoryChunk(chunk: chunk(), number: number(), bytes: 1 + count((1 << 30) - 1)))
        case .kvCredit: .kvCredit(KVCredit(attempt: attempt(), bytes: bytes()))
        case .kvResend:
            .kvResend(
                KVResend(
                    attempt: attempt(), fromToken: count(1 << 20), creditBytes: bytes(),
                    round: UInt32(truncatingIfNeeded: number()), reason: text(40)))
        default: .kvAbort(KVAbort(attempt: attempt(), reason: text(40)))
        }
    }

    private mutating func chunk() -> KVChunk {
        KVChunk(
            attempt: attempt(), tokenStart: count(1 << 20), tokenCount: 1 + count((1 << 20) - 1),
            checksum: UInt32(truncatingIfNeeded: number()),
            round: UInt32(truncatingIfNeeded: number()))
    }

    private mutating func local() -> LocalCarrier {
        LocalCarrier(
            path: name(),
            token: (0..<LocalCarrier.tokenBytes).map { _ in UInt8(truncatingIfNeeded: number()) })
    }

    // ---- Parts ----

    private mutating func description() -> InstanceDescription {
        var description = InstanceDescription(
            instance: instance(), role: element(Role.allCases), incarnation: number(),
            host: text(40), controlAddress: address(), bulkAddress: address(),
            modelName: text(60), fingerprint: fingerprint(), contextTokens: count(1 << 20),
            kvBytesPerToken: bytes(), kvCapacityBytes: bytes(), prefillSlots: count(1 << 16),
            decodeSequences: count(1 << 16), device: text(40), initialRole: servingRole(),
            scenario: text(30), modelPath: text(60))
        description.devices = list(3) { samples in samples.text(30) }
        if flip() {
            description.predicted = PredictedRates(
                isMeasured: flip(), prefillTokensPerSecond: rate(), stepMilliseconds: rate(),
                stepMillisecondsPerSequence: rate(), stepMillisecondsPerThousandTokens: rate(),
                kvExportBytesPerSecond: rate(), kvImportBytesPerSecond: rate())
        }
        return description
    }

    private mutating func status() -> InstanceStatus {
        var status = InstanceStatus()
        status.freePrefillSlots = count(1 << 16)
        status.runningSequences = count(1 << 16)
        status.freeKVBytes = bytes()
        status.reservedKVBytes = bytes()
        status.engineSteps = number()
        status.stepAgeMilliseconds = number()
        status.isDraining = flip()
        status.role = servingRole()
        status.assignment = number()
        status.localPrefills = count(1 << 16)
        status.prefillTokensPerSecond = rate()
        status.decodeStepMilliseconds = rate()
        status.computingPrompts = count(1 << 16)
        return status
    }

    private mutating func view() -> GroupView {
        GroupView(
            epoch: number(), version: number(), members: list(3) { $0.member() },
            groups: list(3) { $0.servingGroup() }, isPartial: flip())
    }

    private mutating func member() -> GroupMember {
        GroupMember(
            description: description(), state: element([.serving, .draining, .suspect, .down]),
            status: status(), reason: text(50), role: servingRole(),
            group: flip() ? group() : nil)
    }

    private mutating func servingGroup() -> ServingGroup {
        ServingGroup(
            id: group(), scenario: text(30), modelName: text(60), fingerprint: fingerprint(),
            modelPath: text(60), state: element(ServingGroup.State.allCases),
            weight: count(1000))
    }

    private mutating func change() -> GroupViewChange {
        GroupViewChange(
            epoch: number(), since: number(), version: number(), members: list(3) { $0.member() },
            removed: list(3) { $0.instance() },
            readings: list(3) { samples in
                MemberReading(instance: samples.instance(), status: samples.status())
            },
            groups: flip() ? list(3) { $0.servingGroup() } : nil, isPartial: flip())
    }

    private mutating func clusterStatus() -> ClusterStatus {
        ClusterStatus(
            view: view(), hosts: list(2) { $0.report() }, gateways: list(3) { $0.instance() },
            wanted: list(3) { samples in
                WantedInstances(
                    scenario: samples.text(30), role: samples.servingRole(),
                    present: samples.count(1 << 16), wanted: samples.count(1 << 16))
            },
            decisions: list(3) { samples in
                Decision(
                    unixMilliseconds: samples.number(), scenario: samples.text(30),
                    action: samples.text(60), reason: samples.text(100))
            },
            upgrades: list(3) { $0.text(100) })
    }

    private mutating func traffic() -> GroupTraffic {
        var traffic = GroupTraffic(group: group(), scenario: text(30))
        traffic.arrived = bytes()
        traffic.completed = bytes()
        traffic.good = bytes()
        traffic.failed = bytes()
        traffic.waiting = bytes()
        traffic.rejected = bytes()
        traffic.refused = bytes()
        traffic.ttft = .microseconds(bytes())
        traffic.prefill = .microseconds(bytes())
        traffic.endToEnd = .microseconds(bytes())
        traffic.promptTokens = bytes()
        traffic.cachedTokens = bytes()
        traffic.outputTokens = bytes()
        return traffic
    }

    private mutating func target() -> KVTarget {
        KVTarget(
            instance: instance(), bulkAddress: address(), secret: secret(),
            heldTokens: count(1 << 20))
    }

    private mutating func stepLimit() -> Duration {
        .microseconds(element([1, 7500, 24 * 3_600_000_000]))
    }

    /// Not negative and finite.
    private mutating func rate() -> Double {
        element([0, .leastNonzeroMagnitude, 12_345.678, .greatestFiniteMagnitude])
    }

    private mutating func servingRole() -> ServingRole { element(ServingRole.allCases) }
    private mutating func group() -> GroupID { GroupID(name()) }

    private mutating func report() -> HealthReport {
        let host = HostReading(
            host: text(40), cores: UInt32(truncatingIfNeeded: number()),
            busyFraction: element([0, 1, 0.25, Double(count(1000)) / 1000]),
            loadAverage: element([0, 1e9, 3.25]), totalMemoryBytes: number(),
            availableMemoryBytes: number(),
            devices: list(3) { samples in
                samples.device()
            })
        let findings = list(3) { samples in
            WorkerFinding(
                instance: samples.instance(), incarnation: samples.number(),
                isResponding: samples.flip(), silentMilliseconds: samples.number(),
                reason: samples.text(30), isSuspect: samples.flip())
        }
        let supervised = list(3) { samples in
            SupervisedProcess(
                name: samples.text(30), state: samples.element(SupervisedProcess.State.allCases),
                restarts: samples.count(Int(UInt32.max)), reason: samples.text(30))
        }
        return HealthReport(host: host, findings: findings, supervised: supervised)
    }

    private mutating func device() -> DeviceReading {
        var device = DeviceReading(
            id: text(30), name: text(30), kind: "GPU", totalMemoryBytes: number(),
            freeMemoryBytes: number())
        device.grade = element(DeviceGrade.allCases)
        device.reason = text(30)
        device.busyFraction = element([0, 1, 0.5])
        device.temperatureCelsius = element([0, 1e6, 71.5])
        device.powerWatts = element([0, 1e6, 699.9])
        device.correctedErrors = number()
        device.uncorrectedErrors = number()
        return device
    }

    private mutating func probeMessage(_ kind: MessageKind) -> ControlMessage {
        switch kind {
        case .canary: .canary(Canary(number: number()))
        case .canaryDone:
            .canaryDone(
                CanaryDone(
                    number: number(), outcome: element(CanaryDone.Outcome.allCases),
                    tokens: count(1024), reason: text(60)))
        default: .exit(Exit(reason: text(60)))
        }
    }

    private mutating func terms() -> AttemptTerms {
        AttemptTerms(
            attempt: attempt(), outputTokens: count(1 << 20),
            maximumNewTokens: 1 + count((1 << 20) - 1), sampling: sampling(),
            deadline: .milliseconds(count(24 * 3_600_000)))
    }

    private mutating func sampling() -> SamplingParameters {
        var sampling = SamplingParameters()
        sampling.temperature = element([0, 2, 0.7])
        sampling.topK = Int32(count(1 << 20))
        sampling.topP = element([0, 1, 0.95])
        sampling.minP = element([0, 1, 0.05])
        sampling.repeatPenalty = element([0.5, 1, 1.1, 10])
        sampling.penaltyWindowTokens = element([-1, 0, 64, 1 << 20])
        sampling.frequencyPenalty = element([-2, 0, 2])
        sampling.presencePenalty = element([-2, 0, 2])
        sampling.seed = number()
        sampling.logitBias = list(4) { samples in
            LogitBias(token: samples.token(), bias: samples.element([-100, 0.5, 1000]))
        }
        sampling.topLogprobs = element([nil, 0, 5, 64])
        sampling.ignoresEndOfGeneration = flip()
        return sampling
    }

    private mutating func output() -> TokenOutput {
        TokenOutput(
            token: token(), logprob: element([nil, 0, -1.5]),
            alternatives: list(3) { samples in
                TokenLogprob(token: samples.token(), logprob: samples.element([-0.25, -20]))
            })
    }

    private mutating func attempt() -> AttemptID {
        AttemptID(
            request: RequestID(high: number(), low: number()),
            number: UInt32(truncatingIfNeeded: number()))
    }

    private mutating func secret() -> ReservationSecret {
        ReservationSecret(high: number(), low: number())
    }

    private mutating func fingerprint() -> ModelFingerprint {
        ModelFingerprint((0..<32).map { _ in UInt8(truncatingIfNeeded: random.next()) })
    }

    private mutating func address() -> NetworkAddress {
        NetworkAddress(host: name(), port: count(65535))
    }

    private mutating func code() -> FailureCode { element(FailureCode.allCases) }
    private mutating func instance() -> InstanceID { InstanceID(name()) }
    private mutating func token() -> TokenID { TokenID(count(Int(TokenID.max))) }
    private mutating func bytes() -> Int { count(1 << 50) }
    private mutating func flip() -> Bool { random.below(2) == 0 }

    private mutating func number() -> UInt64 { random.next() >> UInt64(random.below(64)) }

    /// 0…limit, both ends often.
    private mutating func count(_ limit: Int) -> Int {
        switch random.below(8) {
        case 0: 0
        case 1: limit
        default: random.below(limit) >> random.below(20)
        }
    }

    private mutating func name() -> String { "n" + text(30) }

    /// Text of at most `limit` bytes with characters of one to four bytes.
    private mutating func text(_ limit: Int) -> String {
        let characters = ["a", "Z", "-", "7", "é", "語", "🙂", " "]
        var text = ""
        for _ in 0..<random.below(limit / 4) { text += characters[random.below(8)] }
        return text
    }

    private mutating func element<Element>(_ elements: [Element]) -> Element {
        elements[random.below(elements.count)]
    }

    private mutating func list<Element>(
        _ limit: Int, _ make: (inout SampleMessages) -> Element
    ) -> [Element] {
        (0..<random.below(limit + 1)).map { _ in make(&self) }
    }
}
