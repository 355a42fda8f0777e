import Scheduling
import ServingTypes
import Testing

@Suite struct DeflectionTests {
    /// A prefill-worker of 1000 tokens a second, and a decode-worker half as fast with a step of
    /// 100 ms that may take 200 ms.
    private func request(
        _ promptTokens: Int, _ change: (inout DeflectionCase) -> Void = { _ in }
    ) -> DeflectionCase {
        var request = DeflectionCase(promptTokens: promptTokens)
        request.kvBytesPerToken = 1000
        request.prefillTokensPerSecond = 1000
        request.linkBytesPerSecond = 1_000_000
        request.localTokensPerSecond = 500
        request.runningSequences = 4
        request.decodeStepMilliseconds = 100
        request.stepLimit = .milliseconds(200)
        change(&request)
        return request
    }

    private func seconds(_ duration: Duration?) -> Double {
        duration.map { ($0.seconds * 1e6).rounded() / 1e6 } ?? -1
    }

    @Test func `remote is waiting, computing and moving`() {
        let choice = request(1000) {
            $0.queueWait = .milliseconds(500)
            $0.hitTokens = 400
            $0.heldTokens = 200
        }.choice()
        // 600 tokens computed, 800 tokens of KV moved.
        #expect(seconds(choice.remote) == 1.9)
    }

    @Test func `local is steps of what fits beside the running sequences`() {
        // 100 ms are left of each step: 50 tokens; 1000 tokens take 20 steps.
        #expect(seconds(request(1000).choice().local) == 20 * 0.2)
        #expect(seconds(request(1001).choice().local) == 21 * 0.1 + 2.002)
        let queued = request(800) { $0.localPendingTokens = 200 }
        #expect(seconds(queued.choice().local) == 4)
        let held = request(1000) { $0.heldTokens = 750 }
        #expect(seconds(held.choice().local) == 1)
        let idle = request(1000) { $0.runningSequences = 0 }
        #expect(seconds(idle.choice().local) == 2)
        let narrow = request(1000) { $0.chunkTokens = 10 }
        #expect(seconds(narrow.choice().local) == 100 * 0.1 + 2)
    }

    @Test func `the shorter prediction wins if it gains enough`() {
        #expect(!request(1000).choice().isLocal)
        // Remote 2 s and the wait, local 4 s; a tenth has to be gained.
        func waiting(_ milliseconds: Int) -> DeflectionChoice {
            request(1000) { $0.queueWait = .milliseconds(milliseconds) }.choice()
        }
        #expect(!waiting(2400).isLocal)
        #expect(waiting(2500).isLocal)
        let mostlyHeld = request(1000) { $0.heldTokens = 900 }
        #expect(mostlyHeld.choice().isLocal)
    }

    @Test func `steps without time to spare take no prompt`() {
        let full = request(1000) {
            $0.queueWait = .seconds(100)
            $0.decodeStepMilliseconds = 200
        }
        #expect(full.choice().local == nil)
        #expect(!full.choice().isLocal)
        let tiny = request(1000) {
            $0.heldTokens = 990
            $0.decodeStepMilliseconds = 200
        }
        #expect(!tiny.choice().isLocal)
    }

    @Test func `the unknown speaks for the prefill-worker`() {
        let unknown: [(inout DeflectionCase) -> Void] = [
            { $0.prefillTokensPerSecond = 0 }, { $0.localTokensPerSecond = 0 },
            { $0.decodeStepMilliseconds = 0 },
        ]
        for forget in unknown {
            var request = request(1000) { $0.queueWait = .seconds(100) }
            #expect(request.choice().isLocal)
            forget(&request)
            #expect(!request.choice().isLocal)
            #expect(request.choice().remote == nil || request.choice().local == nil)
        }
        // A link nobody measured is taken for a fast one.
        let choice = request(1000) { $0.linkBytesPerSecond = 0 }.choice()
        #expect(seconds(choice.remote) == 1)
    }

    @Test func `a tiny rest stays, and so does everything while nobody prefills`() {
        var blind = DeflectionCase(promptTokens: 1000)
        #expect(!blind.choice().isLocal)
        blind.heldTokens = 968
        #expect(blind.choice().isLocal)
        blind.heldTokens = 967
        #expect(!blind.choice().isLocal)
        blind.hasPrefillWorker = false
        #expect(blind.choice() == DeflectionChoice(isLocal: true, remote: nil, local: nil))
        // Behind others' prompts a tiny rest would wait.
        let queued = request(1000) {
            $0.heldTokens = 990
            $0.localPendingTokens = 5000
        }
        #expect(!queued.choice().isLocal)
    }
}
