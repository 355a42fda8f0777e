import ServingTypes

/// One message of every kind with every field set, for the golden bytes.
enum GoldenMessages {
    static let all: [ControlMessage] = connection + membership + request + probe + transfer

    private static let connection: [ControlMessage] = [
        .hello(
            Hello(
                cluster: "home", role: .decodeWorker, instance: instance, incarnation: 0x1122,
                fingerprint: fingerprint, productVersion: "1.2.3")),
        .refusal(Refusal(code: .cluster, reason: "another cluster")),
        .ping(Ping(number: 300)),
        .pong(Pong(number: 300, status: status)),
    ]

    private static let membership: [ControlMessage] = [
        .register(Register(description: description, status: status)),
        .heartbeat(Heartbeat(status: status)),
        .deregister(Deregister(reason: "drained")),
        .subscribe(Subscribe(host: "anna")),
        .groupView(view),
        .healthReport(report),
        .clusterStatusRequest(ClusterStatusRequest()),
        .clusterStatus(
            ClusterStatus(
                view: view, hosts: [report], gateways: [InstanceID("gateway-1")],
                wanted: [
                    WantedInstances(scenario: "chat", role: .decode, present: 3, wanted: 5)
                ],
                decisions: [
                    Decision(
                        unixMilliseconds: 1_700_000_000_000, scenario: "chat",
                        action: "decode-worker-1 becomes decode", reason: "TPOT 61 ms of 50 ms")
                ],
                upgrades: ["chat: 2 of 4 workers"])),
        .groupViewChange(change),
        .assign(
            Assign(
                number: 9, role: .mixed, group: group.id, scenario: "chat",
                stepLimit: .microseconds(7500), modelPath: "/models/next.gguf")),
        .clusterRules(ClusterRules(text: "scenarios:\n  chat: {}\n")),
        .trafficReport(TrafficReport(interval: .seconds(2), groups: [traffic])),
        .adminRequest(
            AdminRequest(
                command: "upgrade",
                arguments: [AdminRequest.Argument(name: "scenario", value: "chat")])),
        .adminReply(AdminReply(isAccepted: true, text: "upgrading chat")),
    ]

    private static let request: [ControlMessage] = [
        .reserveKV(ReserveKV(terms: terms, isFallback: true)),
        .reservationGranted(
            ReservationGranted(
                attempt: attempt, secret: secret, kvBytes: 1 << 30, heldTokens: 128)),
        .reservationRefused(
            ReservationRefused(
                attempt: attempt, code: .noKVRoom, neededBytes: 1 << 30, freeBytes: 1 << 20)),
        .prefillOffer(
            PrefillOffer(terms: terms, target: target, isFallback: true)),
        .prefillAccepted(PrefillAccepted(attempt: attempt, cachedTokens: 64)),
        .prefillRejected(
            PrefillRejected(attempt: attempt, code: .busy, reason: "no slot is free")),
        .slotsOpen(SlotsOpen(freePrefillSlots: 2)),
        .kvRoomOpen(KVRoomOpen(freeKVBytes: 1 << 32)),
        .tokenBatch(
            TokenBatch(attempt: attempt, firstIndex: 41, tokens: [output], finish: .length)),
        .requestFailed(
            RequestFailed(attempt: attempt, code: .engine, reason: "the device is lost")),
        .cancelRequest(CancelRequest(attempt: attempt)),
        .placeKV(PlaceKV(attempt: attempt, target: target)),
        .moveWanted(MoveWanted(attempt: attempt)),
        .holdSequence(HoldSequence(attempt: attempt, successor: 4)),
        .sequenceHeld(SequenceHeld(attempt: attempt, successor: 4, outputTokens: 42)),
        .kvDelivered(KVDelivered(attempt: attempt)),
    ]

    private static let probe: [ControlMessage] = [
        .canary(Canary(number: 7)),
        .canaryDone(
            CanaryDone(number: 7, outcome: .failed, tokens: 3, reason: "computing failed")),
        .exit(Exit(reason: "its engine hangs")),
    ]

    private static let transfer: [ControlMessage] = [
        .kvOffer(
            KVOffer(
                attempt: attempt, secret: secret, fingerprint: fingerprint, tokens: 700,
                startToken: 128, chunkTokens: 512)),
        .kvGrant(
            KVGrant(
                attempt: attempt, heldTokens: 128, maximumChunkBytes: 1 << 26,
                creditBytes: 1 << 24, round: 2,
                local: LocalCarrier(path: "/run/pdserve/kv", token: [UInt8](0x60..<0x80)))),
        .kvChunk(chunk),
        .kvEnd(
            KVEnd(attempt: attempt, tokens: 700, firstToken: output, digest: 0x1234_5678_9abc)),
        .kvDone(KVDone(attempt: attempt, code: .transfer, reason: "a checksum is wrong")),
        .kvAbort(KVAbort(attempt: attempt, reason: "cancelled")),
        .kvMemory(KVMemoryChunk(chunk: chunk, number: 3, bytes: 1 << 20)),
        .kvCredit(KVCredit(attempt: attempt, bytes: 1 << 20)),
        .kvResend(
            KVResend(
                attempt: attempt, fromToken: 128, creditBytes: 1 << 24, round: 3,
                reason: "a checksum is wrong")),
    ]

    private static let chunk = KVChunk(
        attempt: attempt, tokenStart: 128, tokenCount: 512, checksum: 0xdead_beef, round: 2)

    private static let instance = InstanceID("decode-worker-1")
    private static let attempt = AttemptID(
        request: RequestID(high: 0x0011_2233_4455_6677, low: 0x8899_aabb_ccdd_eeff), number: 2)
    private static let secret = ReservationSecret(
        high: 0x0102_0304_0506_0708, low: 0x090a_0b0c_0d0e_0f10)
    private static let fingerprint = ModelFingerprint([UInt8](0x40..<0x60))
    private static let output = TokenOutput(
        token: 128_009, logprob: -0.5,
        alternatives: [
            TokenLogprob(token: 128_009, logprob: -0.5), TokenLogprob(token: 13, logprob: -2),
        ])
    private static let target = KVTarget(
        instance: instance, bulkAddress: NetworkAddress(host: "10.0.0.2", port: 7401),
        secret: secret, heldTokens: 128)
    private static let member = GroupMember(
        description: description, state: .suspect, status: status,
        reason: "no heartbeat for 3 s", role: .mixed, group: group.id)
    private static let group = ServingGroup(
        id: GroupID("chat/1"), scenario: "chat", modelName: "qwen2.5-0.5b",
        fingerprint: fingerprint, modelPath: "/models/qwen.gguf", state: .draining, weight: 250)
    private static let view = GroupView(
        epoch: 3, version: 17, members: [member], groups: [group], isPartial: true)
    private static let change = GroupViewChange(
        epoch: 3, since: 16, version: 17, members: [member],
        removed: [InstanceID("prefill-worker-2")],
        readings: [MemberReading(instance: InstanceID("prefill-worker-1"), status: status)],
        groups: [group], isPartial: true)
    private static let traffic: GroupTraffic = {
        var traffic = GroupTraffic(group: group.id, scenario: "chat")
        traffic.arrived = 40
        traffic.completed = 31
        traffic.good = 30
        traffic.failed = 2
        traffic.waiting = 7
        traffic.rejected = 300
        traffic.refused = 12
        traffic.ttft = .microseconds(4_500_001)
        traffic.prefill = .microseconds(3_000_002)
        traffic.endToEnd = .microseconds(90_000_003)
        traffic.promptTokens = 50_000
        traffic.cachedTokens = 20_000
        traffic.outputTokens = 9000
        return traffic
    }()
    private static let report = HealthReport(
        host: HostReading(
            host: "anna", cores: 64, busyFraction: 0.25, loadAverage: 12.5,
            totalMemoryBytes: 1 << 38, availableMemoryBytes: 1 << 37,
            devices: [device]),
        findings: [
            WorkerFinding(
                instance: instance, incarnation: 0x1122, isResponding: true,
                silentMilliseconds: 250, reason: "no progress", isSuspect: true)
        ],
        supervised: [
            SupervisedProcess(
                name: "decode-worker-1", state: .waiting, restarts: 2, reason: "signal 9")
        ])
    private static let device: DeviceReading = {
        var device = DeviceReading(
            id: "0000:c1:00.0", name: "Ascend 910B", kind: "NPU", totalMemoryBytes: 1 << 36,
            freeMemoryBytes: 1 << 35)
        device.grade = .degraded
        device.reason = "it is 88 °C hot"
        device.busyFraction = 0.5
        device.temperatureCelsius = 88
        device.powerWatts = 310.5
        device.correctedErrors = 17
        device.uncorrectedErrors = 1
        return device
    }()
    private static let description: InstanceDescription = {
        var description = plainDescription
        description.devices = ["0000:c1:00.0"]
        description.predicted = PredictedRates(
            isMeasured: true, prefillTokensPerSecond: 900.5, stepMilliseconds: 20.25,
            stepMillisecondsPerSequence: 1.5, stepMillisecondsPerThousandTokens: 0.25,
            kvExportBytesPerSecond: 4e9, kvImportBytesPerSecond: 3e9)
        return description
    }()
    private static let plainDescription = InstanceDescription(
        instance: instance, role: .decodeWorker, incarnation: 0x1122, host: "anna",
        controlAddress: NetworkAddress(host: "10.0.0.2", port: 7400),
        bulkAddress: NetworkAddress(host: "fd00::2", port: 7401), modelName: "qwen2.5-0.5b",
        fingerprint: fingerprint, contextTokens: 32_768, kvBytesPerToken: 12_288,
        kvCapacityBytes: 1 << 33, prefillSlots: 4, decodeSequences: 64, device: "CANN0",
        initialRole: .prefill, scenario: "chat", modelPath: "/models/qwen.gguf")

    private static let status: InstanceStatus = {
        var status = InstanceStatus()
        status.freePrefillSlots = 3
        status.runningSequences = 5
        status.freeKVBytes = 1 << 32
        status.reservedKVBytes = 1 << 20
        status.engineSteps = 1_000_000
        status.stepAgeMilliseconds = 12
        status.isDraining = true
        status.role = .mixed
        status.assignment = 8
        status.localPrefills = 1
        status.prefillTokensPerSecond = 12_500.5
        status.decodeStepMilliseconds = 22.25
        status.computingPrompts = 3
        return status
    }()

    private static let terms: AttemptTerms = {
        var sampling = SamplingParameters()
        sampling.temperature = 0.5
        sampling.topK = 40
        sampling.topP = 0.75
        sampling.minP = 0.125
        sampling.repeatPenalty = 1.25
        sampling.penaltyWindowTokens = -1
        sampling.frequencyPenalty = 0.25
        sampling.presencePenalty = -0.25
        sampling.seed = 0xfeed
        sampling.logitBias = [LogitBias(token: 7, bias: -100)]
        sampling.topLogprobs = 2
        sampling.ignoresEndOfGeneration = true
        return AttemptTerms(
            attempt: attempt, outputTokens: 5, maximumNewTokens: 100, sampling: sampling,
            deadline: .milliseconds(30_000))
    }()
}
