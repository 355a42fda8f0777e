import ServingTypes
import Testing
import WireProtocol

/// Roles, groups, views in pages, reports and people's requests, byte by byte.
@Suite struct RolesAndGroupsTests {
    private let empty = ProtobufBytes()
    private let fingerprint = [UInt8](repeating: 9, count: 32)
    private var attempt: ProtobufBytes { empty.varint(3, 1) }
    private var description: ProtobufBytes {
        empty.text(1, "decode-worker-1").varint(2, 4).data(10, fingerprint)
    }
    private var member: ProtobufBytes {
        empty.message(1, description).varint(2, 1).message(3, empty)
    }
    private var group: ProtobufBytes {
        empty.text(1, "chat/1").data(4, fingerprint).varint(6, 2)
    }
    private var change: ProtobufBytes { empty.varint(1, 1).varint(2, 4).varint(3, 5) }
    private var offer: ProtobufBytes {
        empty.message(1, attempt).varint(3, 10).message(4, empty.float(5, 1)).varint(5, 1000)
    }

    @Test func `roles that nobody wrote are the usual ones of the process`() throws {
        let prefill = empty.text(1, "p").varint(2, 3).data(10, fingerprint)
        let gateway = empty.text(1, "g").varint(2, 1).data(10, fingerprint)
        for (description, role) in [
            (description, ServingRole.decode), (prefill, .prefill), (gateway, .spare),
        ] {
            let member = empty.message(1, description).varint(2, 1).message(3, empty)
            guard
                case .groupView(let view) = try decode(
                    .groupView, empty.message(3, member).bytes),
                let read = view.members.first
            else {
                Issue.record("another message")
                return
            }
            #expect(read.description.initialRole == role)
            #expect(read.role == role)
            #expect(read.status.role == .spare)
            #expect(read.group == nil)
        }
        // The member's own role does not follow the initial one.
        let changed = empty.message(1, description.varint(17, 1)).varint(2, 1).message(3, empty)
        guard
            case .groupView(let view) = try decode(.groupView, empty.message(3, changed).bytes)
        else {
            Issue.record("another message")
            return
        }
        #expect(view.members.first?.description.initialRole == .prefill)
        #expect(view.members.first?.role == .decode)
    }

    @Test func `unknown roles and states are refused`() {
        expect(
            .unknownValue(field: "InstanceDescription.initial_role", value: 5), .groupView,
            empty.message(3, empty.message(1, description.varint(17, 5))))
        expect(
            .unknownValue(field: "GroupMember.role", value: 9), .groupView,
            empty.message(3, member.varint(5, 9)))
        expect(
            .unknownValue(field: "InstanceStatus.role", value: 5), .heartbeat,
            empty.message(1, empty.varint(8, 5)))
        expect(
            .unknownValue(field: "ServingGroup.state", value: 0), .groupView,
            empty.message(4, empty.text(1, "chat/1").data(4, fingerprint)))
        expect(.unknownValue(field: "Assign.role", value: 0), .assign, empty.varint(1, 7))
        expect(
            .unknownValue(field: "WantedInstances.role", value: 0), .clusterStatus,
            empty.message(1, empty).message(4, empty))
    }

    @Test func `measured figures are finite and not negative`() {
        for damaged: Double in [-1, .nan, .infinity, -.leastNonzeroMagnitude] {
            expect(
                .outOfRange(field: "InstanceStatus.prefill_tokens_per_second"), .heartbeat,
                empty.message(1, empty.double(11, damaged)))
            expect(
                .outOfRange(field: "InstanceStatus.decode_step_milliseconds"), .heartbeat,
                empty.message(1, empty.double(12, damaged)))
            var status = InstanceStatus()
            status.prefillTokensPerSecond = damaged
            expect(
                .outOfRange(field: "InstanceStatus.prefill_tokens_per_second"),
                .heartbeat(Heartbeat(status: status)))
        }
    }

    @Test func `an offer has a whole target or nothing of one`() throws {
        guard case .prefillOffer(let late) = try decode(.prefillOffer, offer.bytes) else {
            Issue.record("another message")
            return
        }
        #expect(late.target == nil)
        #expect(!late.isFallback)
        let missing = WireError.missing(field: "PrefillOffer.decode_instance")
        expect(missing, .prefillOffer, offer.text(7, "host"))
        expect(missing, .prefillOffer, offer.varint(8, 1))
        expect(missing, .prefillOffer, offer.data(9, [UInt8](repeating: 1, count: 16)))
        expect(missing, .prefillOffer, offer.varint(10, 1))
        expect(
            .missing(field: "PrefillOffer.decode_host"), .prefillOffer, offer.text(6, "decode-1"))
        expect(.missing(field: "PlaceKV.target"), .placeKV, empty.message(1, attempt))
        expect(
            .missing(field: "KVTarget.bulk_host"), .placeKV,
            empty.message(1, attempt).message(2, empty.text(1, "decode-1")))
    }

    @Test func `a change without groups has none`() throws {
        guard
            case .groupViewChange(let unchanged) = try decode(.groupViewChange, change.bytes),
            case .groupViewChange(let emptied) = try decode(
                .groupViewChange, change.varint(7, 1).bytes)
        else {
            Issue.record("another message")
            return
        }
        #expect(unchanged.groups == nil)
        #expect(emptied.groups == [])
        expect(
            .missing(field: "GroupViewChange.has_groups"), .groupViewChange,
            change.message(8, group))
        expect(
            .missing(field: "MemberReading.instance"), .groupViewChange,
            change.message(6, empty.message(2, empty)))
        expect(
            .missing(field: "MemberReading.status"), .groupViewChange,
            change.message(6, empty.text(1, "decode-1")))
    }

    @Test func `names, weights and sums have their limits`() {
        let long = String(repeating: "x", count: 129)
        expect(
            .outOfRange(field: "ServingGroup.weight"), .groupView,
            empty.message(4, group.varint(7, 1001)))
        expect(
            .wrongLength(field: "GroupMember.group", bytes: 129, limitBytes: 128), .groupView,
            empty.message(3, member.text(6, long)))
        expect(.missing(field: "GroupTraffic.group"), .trafficReport, empty.message(2, empty))
        expect(
            .outOfRange(field: "GroupTraffic.ttft_microseconds"), .trafficReport,
            empty.message(2, empty.text(1, "chat/1").varint(10, 1 << 50 + 1)))
        expect(
            .outOfRange(field: "Assign.step_limit_microseconds"), .assign,
            empty.varint(2, 1).varint(5, 86_400_000_001))
        for limit: Duration in [.zero, .nanoseconds(999), .seconds(-1), .seconds(86_401)] {
            expect(
                .outOfRange(field: "Assign.step_limit_microseconds"),
                .assign(Assign(number: 1, role: .mixed, group: nil, stepLimit: limit)))
        }
        expect(
            .missing(field: "GroupMember.group"),
            .groupView(
                GroupView(
                    epoch: 1, version: 1, members: [largestMember(group: GroupID(""))])))
    }

    @Test func `repetitions of the new fields are limited`() {
        func many(_ count: Int, _ field: Int, _ message: ProtobufBytes) -> ProtobufBytes {
            let one = empty.message(field, message).bytes
            return ProtobufBytes(
                bytes: [[UInt8]](repeating: one, count: count).flatMap(\.self))
        }
        expect(
            .tooMany(field: "GroupView.groups", count: 513, limit: 512), .groupView,
            many(513, 4, group))
        expect(
            .tooMany(field: "GroupViewChange.removed", count: 8193, limit: 8192), .groupViewChange,
            many(8193, 5, ProtobufBytes(bytes: [0x61])))
        expect(
            .tooMany(field: "GroupViewChange.readings", count: 8193, limit: 8192),
            .groupViewChange, many(8193, 6, empty))
        expect(
            .tooMany(field: "TrafficReport.groups", count: 513, limit: 512), .trafficReport,
            many(513, 2, empty))
        expect(
            .tooMany(field: "AdminRequest.arguments", count: 33, limit: 32), .adminRequest,
            empty.text(1, "upgrade").adding(many(33, 2, empty).bytes))
        let status = empty.message(1, empty)
        for (field, name, limit) in [
            (4, "wanted", 1024), (5, "decisions", 256), (6, "upgrades", 64),
        ] {
            expect(
                .tooMany(field: "ClusterStatus.\(name)", count: limit + 1, limit: limit),
                .clusterStatus, status.adding(many(limit + 1, field, empty).bytes))
        }
    }

    @Test func `texts fill their message and no more`() throws {
        let rules = String(repeating: "x", count: WireLimits.rulesBytes)
        let message = ControlMessage.clusterRules(ClusterRules(text: rules))
        #expect(try decode(.clusterRules, MessageCodec.encode(message)) == message)
        expect(
            .wrongLength(
                field: "ClusterRules.text", bytes: WireLimits.rulesBytes + 1,
                limitBytes: WireLimits.rulesBytes),
            .clusterRules(ClusterRules(text: rules + "x")))

        let answer = try MessageCodec.encode(
            .adminReply(AdminReply(isAccepted: true, text: rules)))
        guard case .adminReply(let reply) = try decode(.adminReply, answer) else {
            Issue.record("another message")
            return
        }
        #expect(reply.text.utf8.count > WireLimits.answerBytes - 8)
        #expect(rules.hasPrefix(reply.text))
    }

    @Test func `a traffic report of the most groups fits`() throws {
        let groups = (0..<WireLimits.groups).map { index in
            let start = "\(1000 + index)"
            let name = start + String(repeating: "x", count: 128 - start.utf8.count)
            var traffic = GroupTraffic(
                group: GroupID(name), scenario: String(repeating: "y", count: 128))
            traffic.arrived = WireLimits.trafficSum
            traffic.completed = WireLimits.trafficSum
            traffic.good = WireLimits.trafficSum
            traffic.failed = WireLimits.trafficSum
            traffic.waiting = WireLimits.trafficSum
            traffic.rejected = WireLimits.trafficSum
            traffic.refused = WireLimits.trafficSum
            traffic.ttft = .microseconds(WireLimits.trafficSum)
            traffic.prefill = .microseconds(WireLimits.trafficSum)
            traffic.endToEnd = .microseconds(WireLimits.trafficSum)
            traffic.promptTokens = WireLimits.trafficSum
            traffic.cachedTokens = WireLimits.trafficSum
            traffic.outputTokens = WireLimits.trafficSum
            return traffic
        }
        let report = ControlMessage.trafficReport(
            TrafficReport(interval: .seconds(86_400), groups: groups))
        #expect(try decode(.trafficReport, MessageCodec.encode(report)) == report)
    }

    /// Pages are filled by an estimate of bytes; it has to be no lower than what is written.
    @Test func `a worker of the longest texts registers`() throws {
        let member = largestMember(group: GroupID(String(repeating: "g", count: 128)))
        let register = ControlMessage.register(
            Register(description: member.description, status: member.status))
        #expect(try decode(.register, MessageCodec.encode(register)) == register)
        let view = ControlMessage.groupView(GroupView(epoch: 1, version: 1, members: [member]))
        #expect(try decode(.groupView, MessageCodec.encode(view)) == view)
    }

    private func largestMember(group: GroupID) -> GroupMember {
        func text(_ count: Int) -> String { String(repeating: "x", count: count) }
        var status = InstanceStatus()
        status.freePrefillSlots = WireLimits.slots
        status.runningSequences = WireLimits.slots
        status.freeKVBytes = WireLimits.memoryBytes
        status.reservedKVBytes = WireLimits.memoryBytes
        status.engineSteps = .max
        status.stepAgeMilliseconds = .max
        status.isDraining = true
        status.assignment = .max
        status.localPrefills = WireLimits.slots
        status.prefillTokensPerSecond = .greatestFiniteMagnitude
        status.decodeStepMilliseconds = .greatestFiniteMagnitude
        let address = NetworkAddress(host: text(255), port: 65_535)
        return GroupMember(
            description: InstanceDescription(
                instance: InstanceID(text(128)), role: .prefillWorker, incarnation: .max,
                host: text(255), controlAddress: address, bulkAddress: address,
                modelName: text(256), fingerprint: ModelFingerprint(fingerprint),
                contextTokens: WireLimits.tokens, kvBytesPerToken: WireLimits.memoryBytes,
                kvCapacityBytes: WireLimits.memoryBytes, prefillSlots: WireLimits.slots,
                decodeSequences: WireLimits.slots, device: text(256), scenario: text(128),
                modelPath: text(WireLimits.modelPathBytes)),
            state: .down, status: status, reason: text(WireLimits.reasonBytes), group: group)
    }

    private func expect(
        _ error: WireError, _ kind: MessageKind, _ message: ProtobufBytes,
        location: SourceLocation = #_sourceLocation
    ) {
        #expect(throws: error, sourceLocation: location) { try decode(kind, message.bytes) }
    }

    private func expect(
        _ error: WireError, _ message: ControlMessage,
        location: SourceLocation = #_sourceLocation
    ) {
        #expect(throws: error, sourceLocation: location) { try MessageCodec.encode(message) }
    }
}
