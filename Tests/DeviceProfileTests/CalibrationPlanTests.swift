import DeviceProfile
import Testing

struct CalibrationPlanTests {
    private static func bounds(
        context: Int = 4096, capacity: Int = 16_384, bytes: Int = 2048, micro: Int = 256,
        sequences: Int = 65
    ) -> CalibrationPlan.Bounds {
        CalibrationPlan.Bounds(
            contextTokens: context, kvCapacityTokens: capacity, kvBytesPerToken: bytes,
            microBatchTokens: micro, maximumSequences: sequences)
    }

    @Test(arguments: [
        bounds(), bounds(context: 512), bounds(capacity: 600), bounds(bytes: 1 << 20),
        bounds(micro: 16), bounds(micro: 8192), bounds(sequences: 2), bounds(context: 1 << 20),
    ])
    func everyPieceFitsTheEngine(_ bounds: CalibrationPlan.Bounds) {
        for plan in [CalibrationPlan(bounds), .heldOut(bounds)] {
            #expect(plan.longest * bounds.kvBytesPerToken <= CalibrationPlan.Limits.heldBytes)
            #expect(Set(plan.pieces).count == plan.pieces.count)
            for piece in plan.pieces {
                switch piece {
                case .prompt(let prompt):
                    #expect(prompt.count <= bounds.microBatchTokens)
                    #expect(prompt.start + prompt.count <= bounds.contextTokens)
                    #expect(prompt.start + prompt.count <= bounds.kvCapacityTokens)
                case .batch(let batch):
                    #expect(batch.sequences + min(batch.prompt, 1) <= bounds.maximumSequences)
                    #expect((1...bounds.contextTokens).contains(batch.context))
                    let room = batch.context + CalibrationPlan.Limits.steps
                    #expect(
                        batch.sequences * room + batch.prompt <= bounds.kvCapacityTokens)
                }
            }
        }
    }

    /// Otherwise a fit couldn't tell what takes the time.
    @Test func contextsVaryForOneSequenceAndCountsForOneContext() {
        let batches = CalibrationPlan(Self.bounds()).pieces.compactMap { piece in
            if case .batch(let batch) = piece, batch.prompt == 0 { batch } else { nil }
        }
        #expect(batches.filter { $0.sequences == 1 }.map(\.context) == [128, 512, 2048])
        #expect(
            batches.filter { $0.context == 128 }.map(\.sequences)
                == [1, 2, 3, 4, 6, 8, 12, 16, 32, 64])
        let others = CalibrationPlan.heldOut(Self.bounds()).pieces
        #expect(Set(others).isDisjoint(with: CalibrationPlan(Self.bounds()).pieces))
    }

    @Test func anEngineWithoutRoomIsAskedForPromptsOnly() {
        let plan = CalibrationPlan(Self.bounds(context: 256, micro: 512))
        #expect(plan.longest == 0)
        #expect(!plan.pieces.isEmpty)
        #expect(plan.pieces.allSatisfy { $0.group == .prompts && $0.context == 0 })
    }
}
