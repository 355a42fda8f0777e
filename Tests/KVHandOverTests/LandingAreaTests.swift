import KVHandOver
import ServingTypes
import Testing

@Suite struct LandingAreaTests {
    @Test func `the first credit is for one chunk, the window opens when it has come`() {
        var area = LandingArea(capacityBytes: 1000, windowBytes: 300)
        let first = area.open(attempt(1), totalBytes: 900, chunkBytes: 100)
        #expect(first.creditBytes == 100 && first.others.isEmpty)
        #expect(area.land(attempt(1), bytes: 60) == true)
        #expect(area.widen(attempt(1)) == [KVCredit(attempt: attempt(1), bytes: 200)])
        #expect(area.usedBytes == 300 && area.landedBytes == 60)
        #expect(
            area.leave(attempt(1), bytes: 60) == [KVCredit(attempt: attempt(1), bytes: 60)])
        #expect(area.landedBytes == 0)
        #expect(area.close(attempt(1)) == [])
        #expect(area.usedBytes == 0 && area.transfers == 0)
    }

    @Test func `a chunk without credit does not land`() {
        var area = LandingArea(capacityBytes: 1000, windowBytes: 300)
        #expect(area.land(attempt(1), bytes: 1) == false)
        _ = area.open(attempt(1), totalBytes: 900, chunkBytes: 100)
        #expect(area.land(attempt(1), bytes: 101) == false)
        #expect(area.land(attempt(1), bytes: 100) == true)
        #expect(area.land(attempt(1), bytes: 1) == false)
    }

    @Test func `no more credit is given than can come`() {
        var area = LandingArea(capacityBytes: 1000, windowBytes: 300)
        #expect(area.open(attempt(1), totalBytes: 40, chunkBytes: 100).creditBytes == 40)
        #expect(area.land(attempt(1), bytes: 40) == true)
        #expect(area.widen(attempt(1)) == [])
        #expect(area.leave(attempt(1), bytes: 40) == [])
        #expect(area.open(attempt(2), totalBytes: 0, chunkBytes: 100).creditBytes == 0)
    }

    @Test func `who finds no room gets credit when somebody leaves, the oldest first`() {
        var area = LandingArea(capacityBytes: 200, windowBytes: 200)
        for number in UInt64(1)...2 {
            #expect(
                area.open(attempt(number), totalBytes: 900, chunkBytes: 100).creditBytes == 100)
        }
        for number in UInt64(3)...4 {
            #expect(
                area.open(attempt(number), totalBytes: 900, chunkBytes: 100).creditBytes == 0)
        }
        #expect(area.close(attempt(2)) == [KVCredit(attempt: attempt(3), bytes: 100)])
        #expect(area.land(attempt(1), bytes: 100) == true)
        #expect(area.widen(attempt(1)) == [])
        // The one that leaves is the oldest.
        #expect(
            area.leave(attempt(1), bytes: 100) == [KVCredit(attempt: attempt(1), bytes: 100)])
        #expect(area.close(attempt(3)) == [KVCredit(attempt: attempt(1), bytes: 100)])
        #expect(area.close(attempt(1)) == [KVCredit(attempt: attempt(4), bytes: 100)])
        #expect(area.usedBytes == 100)
    }

    @Test func `credit below a chunk is not given, unless it is all that is missing`() {
        var area = LandingArea(capacityBytes: 150, windowBytes: 150)
        _ = area.open(attempt(1), totalBytes: 900, chunkBytes: 100)
        #expect(area.open(attempt(2), totalBytes: 900, chunkBytes: 60).creditBytes == 0)
        #expect(area.open(attempt(3), totalBytes: 20, chunkBytes: 60).creditBytes == 20)
    }

    @Test func `younger transfers leave an older one room for its chunk`() {
        var area = LandingArea(capacityBytes: 100, windowBytes: 100)
        _ = area.open(attempt(1), totalBytes: 30, chunkBytes: 30)
        #expect(area.open(attempt(2), totalBytes: 900, chunkBytes: 80).creditBytes == 0)
        // 60 bytes are free, but then the second would have to wait for the third, too.
        #expect(area.open(attempt(3), totalBytes: 900, chunkBytes: 40).creditBytes == 0)
        #expect(area.open(attempt(4), totalBytes: 900, chunkBytes: 20).creditBytes == 20)
        #expect(area.close(attempt(1)) == [KVCredit(attempt: attempt(2), bytes: 80)])
    }

    @Test func `a transfer that begins anew keeps its place, and what is being imported`() {
        var area = LandingArea(capacityBytes: 300, windowBytes: 200)
        _ = area.open(attempt(1), totalBytes: 900, chunkBytes: 100)
        _ = area.open(attempt(2), totalBytes: 900, chunkBytes: 100)
        #expect(area.land(attempt(1), bytes: 100) == true)
        #expect(area.widen(attempt(1)) == [KVCredit(attempt: attempt(1), bytes: 100)])
        #expect(area.open(attempt(3), totalBytes: 900, chunkBytes: 100).creditBytes == 0)
        // 70 of the 100 landed bytes are thrown away, the rest is with the engine.
        let anew = area.open(
            attempt(1), totalBytes: 800, chunkBytes: 100, importingBytes: 30)
        #expect(anew.creditBytes == 100 && anew.others == [])
        #expect(area.usedBytes == 230 && area.landedBytes == 30)
        #expect(
            area.leave(attempt(1), bytes: 30) == [KVCredit(attempt: attempt(3), bytes: 100)])
        let shorter = area.open(attempt(2), totalBytes: 10, chunkBytes: 100)
        #expect(shorter.creditBytes == 10)
        #expect(area.close(attempt(1)) == [])
        #expect(area.close(attempt(2)) == [])
        #expect(area.close(attempt(3)) == [])
        #expect(area.usedBytes == 0)
    }

    @Test func `room that a transfer gives up by beginning anew goes to others`() {
        var area = LandingArea(capacityBytes: 200, windowBytes: 200)
        _ = area.open(attempt(1), totalBytes: 900, chunkBytes: 100)
        #expect(area.land(attempt(1), bytes: 40) == true)
        _ = area.widen(attempt(1))
        #expect(area.open(attempt(2), totalBytes: 900, chunkBytes: 100).creditBytes == 0)
        let anew = area.open(attempt(1), totalBytes: 900, chunkBytes: 100)
        #expect(anew.creditBytes == 100)
        #expect(anew.others == [KVCredit(attempt: attempt(2), bytes: 100)])
    }

    @Test func `words about unknown transfers change nothing`() {
        var area = LandingArea(capacityBytes: 200, windowBytes: 200)
        #expect(area.leave(attempt(1), bytes: 10) == [])
        #expect(area.widen(attempt(1)) == [])
        #expect(area.close(attempt(1)) == [])
        #expect(area.usedBytes == 0)
    }

    /// Senders that send when their credit reaches, over an area that is mostly too small.
    @Test(arguments: UInt64(0)..<300)
    func `the area never overflows and somebody can always go on`(seed: UInt64) {
        var crowd = LandingCrowd(seed: seed)
        for _ in 0..<600 { crowd.step() }
        crowd.finish()
        #expect(crowd.defects.isEmpty, "seed \(seed): \(crowd.defects.first ?? "")")
        #expect(crowd.area.usedBytes == 0 && crowd.area.transfers == 0, "seed \(seed)")
        #expect(crowd.imported > 0, "seed \(seed)")
    }
}

/// Transfers with chunks of random sizes, and a receiver that imports them in random order.
private struct LandingCrowd {
    struct Sender {
        /// Sizes of the chunks that are still to be sent.
        var chunks: [Int]
        var credit: Int
        var landed: [Int] = []
        let chunkBytes: Int
    }

    var area: LandingArea
    var senders: [AttemptID: Sender] = [:]
    var defects: [String] = []
    var imported = 0
    private var generator: SeededGenerator
    private var opened: UInt64 = 0

    init(seed: UInt64) {
        generator = SeededGenerator(seed: seed)
        let capacity = 10 + generator.below(90)
        area = LandingArea(capacityBytes: capacity, windowBytes: 1 + generator.below(120))
    }

    private var inOrder: [AttemptID] { senders.keys.sorted { $0.request.low < $1.request.low } }

    mutating func step() {
        switch generator.below(8) {
        case 0 where senders.count < 8: open()
        case 1 where generator.below(6) == 0: close(any())
        case 2 where generator.below(4) == 0: reopen(any())
        case 3...5: send(any())
        default: importOne(any())
        }
        check()
    }

    /// Opens nothing more; all that is open has to come to its end.
    mutating func finish() {
        while !senders.isEmpty, defects.isEmpty {
            let before = area
            for attempt in inOrder {
                send(attempt)
                importOne(attempt)
                if senders[attempt]?.chunks == [], senders[attempt]?.landed == [] {
                    close(attempt)
                }
            }
            check()
            if before == area { defects.append("nobody can go on: \(senders)") }
        }
    }

    private mutating func any() -> AttemptID {
        inOrder.isEmpty ? attempt(0) : inOrder[generator.below(senders.count)]
    }

    private mutating func open() {
        opened += 1
        let chunkBytes = 1 + generator.below(area.capacityBytes)
        let chunks = (0...generator.below(12)).map { _ in 1 + generator.below(chunkBytes) }
        let total = chunks.reduce(0, +) + generator.below(20)
        let (credit, others) = area.open(
            attempt(opened), totalBytes: total, chunkBytes: chunkBytes)
        senders[attempt(opened)] = Sender(
            chunks: chunks, credit: credit, chunkBytes: min(chunkBytes, total))
        take(others)
    }

    private mutating func reopen(_ attempt: AttemptID) {
        guard let sender = senders[attempt] else { return }
        let kept = sender.landed.prefix(generator.below(sender.landed.count + 1))
        let again = Array(sender.landed.dropFirst(kept.count))
        senders[attempt]?.chunks = again + sender.chunks
        senders[attempt]?.landed = Array(kept)
        let (credit, others) = area.open(
            attempt, totalBytes: (again + sender.chunks).reduce(0, +),
            chunkBytes: sender.chunkBytes, importingBytes: kept.reduce(0, +))
        senders[attempt]?.credit = credit
        take(others)
    }

    private mutating func send(_ attempt: AttemptID) {
        guard let bytes = senders[attempt]?.chunks.first, let credit = senders[attempt]?.credit,
            bytes <= credit
        else { return }
        senders[attempt]?.chunks.removeFirst()
        senders[attempt]?.credit -= bytes
        senders[attempt]?.landed.append(bytes)
        if !area.land(attempt, bytes: bytes) { defects.append("credit was not honoured") }
        take(area.widen(attempt))
    }

    private mutating func importOne(_ attempt: AttemptID) {
        guard let sender = senders[attempt], !sender.landed.isEmpty else { return }
        let bytes = sender.landed[generator.below(sender.landed.count)]
        senders[attempt]?.landed.remove(at: sender.landed.firstIndex(of: bytes) ?? 0)
        imported += 1
        take(area.leave(attempt, bytes: bytes))
    }

    private mutating func close(_ attempt: AttemptID) {
        senders[attempt] = nil
        take(area.close(attempt))
    }

    private mutating func take(_ credits: [KVCredit]) {
        for credit in credits { senders[credit.attempt]?.credit += credit.bytes }
    }

    private mutating func check() {
        let credited = senders.values.reduce(0) { $0 + $1.credit }
        let landed = senders.values.reduce(0) { $0 + $1.landed.reduce(0, +) }
        if area.usedBytes != credited + landed { defects.append("a byte was lost") }
        if area.landedBytes != landed { defects.append("a landed byte was lost") }
        if area.usedBytes > area.capacityBytes { defects.append("the area overflows") }
        let isStuck =
            !senders.isEmpty && landed == 0
            && senders.values.allSatisfy { ($0.chunks.first ?? 0) > $0.credit }
        if isStuck { defects.append("nobody can go on: \(senders)") }
        for sender in senders.values {
            let window = max(area.windowBytes, sender.chunkBytes)
            let open = window - sender.landed.reduce(0, +)
            // After a new beginning there may be credit for a chunk besides.
            if sender.credit > max(open, sender.chunkBytes) { defects.append("a wide window") }
        }
    }
}
