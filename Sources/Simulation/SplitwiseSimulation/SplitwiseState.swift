/// One of a request's two tasks: twice its slot, plus one for decode.
typealias TaskRef = Int32

extension TaskRef {
    var slot: Int { Int(self >> 1) }
    var isDecode: Bool { self & 1 == 1 }

    static func prefill(_ slot: Int) -> TaskRef { TaskRef(slot) << 1 }
    static func decode(_ slot: Int) -> TaskRef { TaskRef(slot) << 1 | 1 }
}

/// What a task is at.
enum TaskState: UInt8, Sendable {
    case absent, queued, running, blocked, completed
}

/// A request between its arrival and its end.
struct LiveRequest: Sendable {
    var arrival: Double
    var prefillEnd = 0.0
    var decodeStart = 0.0
    /// KV that it holds on one machine now.
    var memoryBytes = 0
    var number: UInt32
    var promptTokens: Int32
    var outputTokens: Int32
    var promptMachine: Int32 = -1
    var tokenMachine: Int32 = -1
    /// How often each task was passed over or preempted.
    var prefillSkips: Int32 = 0
    var decodeSkips: Int32 = 0
    /// Decode steps to do, while it isn't in a batch.
    var stepsLeft: Int32
    /// The last selection that took it.
    var selection: Int32 = 0
    var prefillState = TaskState.absent
    var decodeState = TaskState.absent

    init(arrival: Double, number: UInt32, promptTokens: Int, outputTokens: Int) {
        self.arrival = arrival
        self.number = number
        self.promptTokens = Int32(promptTokens)
        self.outputTokens = Int32(outputTokens)
        stepsLeft = Int32(outputTokens) - 1
    }

    /// Both phases on one machine, one after the other.
    var isChained: Bool { promptMachine == tokenMachine }
}

/// Pools of machines.
enum Pool: Int, Sendable, CaseIterable {
    case prompt, mixed, token
}

/// A task of the current iteration.
struct BatchEntry: Sendable {
    var task: TaskRef
    /// Count of the machine's steps at which it ends.
    var end: Int32
}

/// What one machine has to do.
struct MachineState: Sendable {
    var kind: Int
    var home: Pool
    var pool: Pool
    var memoryBytes: Int
    /// Memory that the scheduler has promised; it may be freed before it is used.
    var promisedBytes: Int
    /// Prompt tokens and decodes that the scheduler has sent here and that haven't ended.
    var promisedTokens = 0

    var batch: [BatchEntry] = []
    var prefillsInBatch = 0
    var batchTokens = 0
    /// Requests with tasks here.
    var requests = 0
    /// Steps done so far.
    var steps: Int32 = 0
    var stepSeconds = 0.0
    /// Steps of the current event.
    var plannedSteps = 0.0
    var endTime = 0.0
    var isCutShort = false

    /// Tasks outside the batch, mostly by skips and arrival.
    var pending: [TaskRef] = []
    /// Slots whose prefill is pending, in the order they came.
    var pendingPrefills: [Int32] = []
    /// Pending decodes that ran before.
    var blocked: [TaskRef] = []
}

/// Times of iterations of one kind of machine.
///
/// Those of usual batches are in tables.
struct IterationTimes: Sendable {
    private static let prefillEntries = 4096
    private let curves: PhaseCurves
    private let prefill: [Double]
    private let decode: [Double]

    init(_ curves: PhaseCurves, batchSize: Int) {
        self.curves = curves
        prefill = (0..<Self.prefillEntries).map { curves.prefill(Double($0)) }
        decode = (0...batchSize).map { curves.decode(Double($0)) }
    }

    func prefillSeconds(tokens: Int) -> Double {
        tokens < Self.prefillEntries ? prefill[tokens] : curves.prefill(Double(tokens))
    }

    func decodeSeconds(sequences: Int) -> Double { decode[sequences] }
}
