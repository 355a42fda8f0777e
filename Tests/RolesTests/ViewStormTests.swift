import Roles
import ServingTypes
import Testing
import WireProtocol

/// Random views, changed at random, over connections that lose changes and break off.
@Suite struct ViewStormTests {
    @Test(arguments: 0..<20) func `changes give the scheduler's view, and a loss is noticed`(
        _ round: Int
    ) {
        let seed = UInt64.random(in: .min ... .max)
        print("view storm \(round): seed \(seed)")
        var random = SeededGenerator(seed: seed)
        var scheduler = ChangingView(seed: random.next())
        var reader = ViewReader()
        var sent = scheduler.view
        var hasLost = false
        var noticed = 0
        var applied = 0

        func subscribe() {
            sent = scheduler.view
            let pages = sent.pages(maximumMembers: 1 + random.below(20))
            let views = pages.compactMap { reader.received($0) }
            #expect(views == [sent], "seed \(seed)")
            hasLost = false
        }

        subscribe()
        for _ in 0..<300 {
            scheduler.change()
            var pages = GroupViewChange(from: sent, to: scheduler.view)
                .pages(maximumMembers: 1 + random.below(12))
            sent = scheduler.view
            switch random.below(20) {
            case 0:
                // Lost as a whole.
                pages = []
                hasLost = true
            case 1:
                // The connection breaks off within it; the next one begins with the whole view.
                pages.removeLast()
                for page in pages { #expect(reader.received(page) != .outOfStep || hasLost) }
                reader.connected()
                subscribe()
                continue
            default: break
            }
            var outcomes: [ViewReader.Outcome] = []
            for page in pages { outcomes.append(reader.received(page)) }
            if hasLost, !pages.isEmpty {
                #expect(outcomes.filter { $0 == .outOfStep }.count == 1, "seed \(seed)")
                noticed += 1
                subscribe()
            } else if !pages.isEmpty {
                #expect(outcomes.last == .view(scheduler.view), "seed \(seed)")
                applied += 1
            }
            guard let view = reader.view else {
                Issue.record("no view, seed \(seed)")
                return
            }
            #expect(scheduler.history[view.version] == view, "seed \(seed)")
            #expect(hasLost || view == scheduler.view, "seed \(seed)")
        }
        #expect(noticed > 0 && applied > 200, "seed \(seed)")
    }

    @Test func `a health-agent's part of the view changes alone`() {
        let seed = UInt64.random(in: .min ... .max)
        print("view of one host: seed \(seed)")
        var scheduler = ChangingView(seed: seed)
        func part() -> GroupView {
            var part = scheduler.view
            part.members.removeAll { $0.description.role != .decodeWorker }
            return part
        }
        var reader = ViewReader()
        var sent = part()
        #expect(reader.received(sent) == sent)
        for _ in 0..<200 {
            scheduler.change()
            let next = part()
            // A version in which nothing changes for this subscriber needs no message.
            let change = GroupViewChange(from: sent, to: next)
            if change.members.isEmpty, change.removed.isEmpty, change.readings.isEmpty,
                change.groups == nil
            {
                continue
            }
            #expect(reader.received(change) == .view(next), "seed \(seed)")
            sent = next
        }
    }

    /// The estimate of a page's bytes is never too low, whatever the texts.
    @Test func `every page can be sent`() throws {
        func text(_ count: Int) -> String { String(repeating: "x", count: count) }
        var view = largeView(members: 1200)
        view.groups = (0..<1200).map { number in
            ServingGroup(
                id: GroupID("\(1000 + number)" + text(124)), scenario: text(128),
                modelName: text(256), fingerprint: model, modelPath: text(1024), weight: 1000)
        }
        for index in view.members.indices {
            var member = view.members[index]
            let address = NetworkAddress(host: text(255), port: 65_535)
            member.description = InstanceDescription(
                instance: InstanceID("\(1000 + index)" + text(124)), role: .prefillWorker,
                incarnation: .max, host: text(255), controlAddress: address, bulkAddress: address,
                modelName: text(256), fingerprint: model, contextTokens: WireLimits.tokens,
                kvBytesPerToken: WireLimits.memoryBytes, kvCapacityBytes: WireLimits.memoryBytes,
                prefillSlots: WireLimits.slots, decodeSequences: WireLimits.slots,
                device: text(256), scenario: text(128), modelPath: text(1024))
            member.group = GroupID(text(128))
            // Every other reason is longer than what is written of it.
            member.reason = text(index % 2 == 0 ? 5000 : 2048)
            member.status.engineSteps = .max
            member.status.stepAgeMilliseconds = .max
            member.status.assignment = .max
            view.members[index] = member
        }
        var bytes: [Int] = []
        for page in view.pages() {
            bytes.append(try MessageCodec.encode(.groupView(page)).count)
        }
        let change = GroupViewChange(
            from: GroupView(epoch: 1, version: 0, members: []), to: view)
        for page in change.pages() {
            bytes.append(try MessageCodec.encode(.groupViewChange(page)).count)
        }
        let last = view.members.count
        for page in GroupViewChange(from: view, to: view.withOtherAges()).pages() {
            #expect(page.readings.count <= last)
            bytes.append(try MessageCodec.encode(.groupViewChange(page)).count)
        }
        #expect(bytes.allSatisfy { $0 <= ViewPage.maximumBytes })
        // Nor is it much too high: pages are well filled.
        #expect(bytes.max() ?? 0 > ViewPage.maximumBytes * 3 / 4)
    }

    @Test func `ten thousand members go over the wire, whole and as readings`() throws {
        let old = largeView(members: 10_000)
        let new = old.withNewReadings()
        let clock = ContinuousClock()
        var reader = ViewReader()
        for page in old.pages() {
            let bytes = try MessageCodec.encode(.groupView(page))
            guard case .groupView(let read) = try decoded(.groupView, bytes) else { continue }
            _ = reader.received(read)
        }
        #expect(reader.view == old)
        var pages: [GroupViewChange] = []
        let difference = clock.measure {
            pages = GroupViewChange(from: old, to: new).pages()
        }
        var encoded: [[UInt8]] = []
        let encoding = try clock.measure {
            encoded = try pages.map { try MessageCodec.encode(.groupViewChange($0)) }
        }
        var outcome = ViewReader.Outcome.nothing
        let reading = try clock.measure {
            for bytes in encoded {
                guard case .groupViewChange(let page) = try decoded(.groupViewChange, bytes) else {
                    continue
                }
                outcome = reader.received(page)
            }
        }
        #expect(outcome == .view(new))
        print(
            "10 000 readings: difference \(difference), encoding \(encoding), reading \(reading),",
            "\(encoded.count) messages, \(encoded.map(\.count).reduce(0, +)) bytes")
    }

    private func decoded(_ kind: MessageKind, _ bytes: [UInt8]) throws -> ControlMessage {
        try unsafe bytes.withUnsafeBytes { unsafe try MessageCodec.decode(kind, $0) }
    }
}

extension GroupView {
    fileprivate func withOtherAges() -> GroupView {
        var next = self
        next.version += 1
        for index in next.members.indices { next.members[index].status.stepAgeMilliseconds -= 1 }
        return next
    }
}
