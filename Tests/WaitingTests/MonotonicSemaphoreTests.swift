import Foundation
import Synchronization
import Testing
import Waiting

@Suite struct MonotonicSemaphoreTests {
    @Test func `a wait ends with its time, and no sooner`() {
        let semaphore = MonotonicSemaphore()
        let start = ContinuousClock.now
        #expect(!semaphore.wait(atMost: .milliseconds(30)))
        #expect(ContinuousClock.now - start >= .milliseconds(29))
        #expect(!semaphore.wait(atMost: .zero))
        #expect(!semaphore.wait(atMost: .seconds(-5)))
    }

    @Test func `each signal lets one thread through`() {
        let semaphore = MonotonicSemaphore()
        let passed = Atomic<Int>(0)
        let ended = DispatchGroup()
        for _ in 0..<4 {
            ended.enter()
            Thread.detachNewThread {
                if semaphore.wait(atMost: .seconds(60)) { passed.add(1, ordering: .relaxed) }
                ended.leave()
            }
        }
        for _ in 0..<4 { semaphore.signal() }
        ended.wait()
        #expect(passed.load(ordering: .relaxed) == 4)
        semaphore.signal()
        #expect(semaphore.wait(atMost: .zero), "a signal before the wait counts")
    }
}
