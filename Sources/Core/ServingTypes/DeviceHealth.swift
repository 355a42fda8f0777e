/// How well a part of a host is.
package enum DeviceGrade: UInt8, Sendable, CaseIterable, Comparable {
    case ok = 1
    /// It works and something is wrong: a person should look.
    case degraded = 2
    /// It gives wrong results, or will end soon; nothing new is given to its workers.
    case failing = 3
    /// It does not answer, or is gone.
    case lost = 4

    package var name: String {
        switch self {
        case .ok: "ok"
        case .degraded: "degraded"
        case .failing: "failing"
        case .lost: "lost"
        }
    }

    /// Whether its workers are taken out.
    package var isOut: Bool { self >= .failing }

    package static func < (left: DeviceGrade, right: DeviceGrade) -> Bool {
        left.rawValue < right.rawValue
    }
}

/// One accelerator, or another part of a host, as its driver reports it and as it is judged.
package struct DeviceReading: Hashable, Sendable {
    /// Kind of the parts that every host has.
    package static let memoryKind = "memory"
    package static let diskKind = "disk"
    /// Kind of a probe that says nothing.
    package static let probeKind = "probe"
    /// What workers that name no device compute on.
    package static let processors = "cpu"

    /// The same after a restart: a PCI address, `npu-0`, `cpu`, `memory`, `disk:/var/log`.
    package var id: String
    package var name: String
    /// `CPU`, `GPU`, `NPU`, `memory`, `disk` or `probe`.
    package var kind: String
    package var totalMemoryBytes: UInt64
    package var freeMemoryBytes: UInt64
    package var grade = DeviceGrade.ok
    /// Why it is not `ok`; empty if it is.
    package var reason = ""
    /// Busy part of its time; range 0…1.
    package var busyFraction = 0.0
    /// 0: it says nothing.
    package var temperatureCelsius = 0.0
    /// 0: it says nothing.
    package var powerWatts = 0.0
    /// Memory errors since its start that were put right, and that were not.
    package var correctedErrors: UInt64 = 0
    package var uncorrectedErrors: UInt64 = 0

    package init(
        id: String = "", name: String, kind: String, totalMemoryBytes: UInt64,
        freeMemoryBytes: UInt64
    ) {
        self.id = id
        self.name = name
        self.kind = kind
        self.totalMemoryBytes = totalMemoryBytes
        self.freeMemoryBytes = freeMemoryBytes
    }
}

/// What a driver says of one device, with what is needed to judge it.
package struct DeviceSample: Hashable, Sendable {
    /// A verdict of the driver itself.
    package struct Alarm: Hashable, Sendable {
        package var grade: DeviceGrade
        package var text: String

        package init(_ grade: DeviceGrade, _ text: String) {
            self.grade = grade
            self.text = text
        }
    }

    /// Its grade and reason are not looked at.
    package var reading: DeviceReading
    /// From where on it slows itself down; nil: it does not say.
    package var hotCelsius: Double?
    /// Where it switches itself off.
    package var criticalCelsius: Double?
    /// Why it runs slower than it could, other than for lack of work.
    package var throttling: [String] = []
    package var alarms: [Alarm] = []
    /// Part of the last seconds in which all work waited for it; nil: it does not say.
    package var stalledFraction: Double?
    /// Runnable tasks per processor; nil: it has none.
    package var loadPerProcessor: Double?

    package init(_ reading: DeviceReading) { self.reading = reading }
}

/// What a probe of devices has to say.
package struct ProbeReport: Hashable, Sendable {
    package enum Result: Hashable, Sendable {
        /// Every device there is.
        case devices([DeviceSample])
        case failed(String)
        /// It has not answered for so long.
        case overdue(Duration)
    }

    package var probe: String
    /// Rises with each reading; a report with the same number says nothing new.
    package var number: UInt64
    package var result: Result

    package init(probe: String, number: UInt64, result: Result) {
        self.probe = probe
        self.number = number
        self.result = result
    }
}

/// A worker process that a health-agent keeps running.
package struct SupervisedProcess: Hashable, Sendable {
    package enum State: UInt8, Sendable, CaseIterable {
        case running = 1
        /// It ended and is started again after a pause.
        case waiting = 2
        /// It ended too often: nobody starts it again.
        case givenUp = 3
        case stopped = 4

        package var name: String {
            switch self {
            case .running: "running"
            case .waiting: "waiting"
            case .givenUp: "given up"
            case .stopped: "stopped"
            }
        }
    }

    package var name: String
    package var state: State
    /// Starts after the first one.
    package var restarts: Int
    /// How it ended last; empty before.
    package var reason: String

    package init(name: String, state: State, restarts: Int, reason: String) {
        self.name = name
        self.state = state
        self.restarts = restarts
        self.reason = reason
    }
}
