package import ServingTypes

/// Judges devices by what their drivers say.
///
/// A grade sinks only when several readings in a row are bad, and rises only after a while without
/// a bad one; thresholds are easier to keep than to reach. So a value that swings around a
/// threshold does not move the grade.
package struct DeviceGrader: Sendable {
    private struct Known: Sendable {
        var probe: String
        var sample: DeviceSample
        var grade = DeviceGrade.ok
        var reason = ""
        /// Bad readings in a row, and the best of them.
        var worseRun = 0
        var worseGrade = DeviceGrade.lost
        /// Since when all readings were better than the grade.
        var betterSince: MonotonicTime?
        /// Error counts by time, the oldest first.
        var errors: [ErrorCount] = []
    }

    private struct ErrorCount: Sendable {
        var time: MonotonicTime
        var corrected: UInt64
        var uncorrected: UInt64
    }

    /// What one reading says.
    private struct Verdict {
        var grade = DeviceGrade.ok
        var reasons: [String] = []

        init() {}

        init(_ grade: DeviceGrade, _ reason: String) { add(grade, reason) }

        mutating func add(_ grade: DeviceGrade, _ reason: String) {
            guard grade > .ok else { return }
            self.grade = max(self.grade, grade)
            reasons.append(reason)
        }
    }

    private let limits: DeviceLimits
    private var known: [String: Known] = [:]
    private var numbers: [String: UInt64] = [:]

    package init(limits: DeviceLimits = DeviceLimits()) { self.limits = limits }

    /// All devices with their grades, in order of their ids.
    package var readings: [DeviceReading] {
        known.sorted { $0.key < $1.key }.map { _, device in
            var reading = device.sample.reading
            reading.grade = device.grade
            reading.reason = device.reason
            return reading
        }
    }

    /// Takes in what a probe says; each number counts once.
    package mutating func take(_ report: ProbeReport, now: MonotonicTime) {
        if case .overdue = report.result {
        } else if let last = numbers[report.probe], report.number <= last {
            return
        }
        numbers[report.probe] = report.number
        switch report.result {
        case .devices(let samples):
            known[probeID(report.probe)] = nil
            for sample in samples { judge(sample, of: report.probe, now: now) }
            let present = Set(samples.map(\.reading.id))
            for id in devices(of: report.probe) where !present.contains(id) {
                settle(id, Verdict(.lost, "its driver does not list it any more"), now: now)
            }
        case .failed(let reason):
            complain(of: report.probe, .degraded, "\(report.probe) failed: \(reason)", now: now)
        case .overdue(let time):
            let isDead = time >= limits.deadProbe
            complain(
                of: report.probe, isDead ? .failing : .degraded,
                "\(report.probe) has not answered for \(time.milliseconds / 1000) s", now: now)
        }
    }

    private func probeID(_ probe: String) -> String { "probe:\(probe)" }

    private func devices(of probe: String) -> [String] {
        known.filter { $0.value.probe == probe }.keys.sorted()
    }

    /// What is to be said of a probe is said of its devices, or of itself if it never named any.
    private mutating func complain(
        of probe: String, _ grade: DeviceGrade, _ reason: String, now: MonotonicTime
    ) {
        let own = devices(of: probe)
        let id = probeID(probe)
        if own.isEmpty {
            let reading = DeviceReading(
                id: id, name: probe, kind: DeviceReading.probeKind, totalMemoryBytes: 0,
                freeMemoryBytes: 0)
            guard add(DeviceSample(reading), of: probe) else { return }
        }
        for device in own.isEmpty ? [id] : own {
            // A probe alone computes nothing: it is not out.
            let worst = device == id ? min(grade, .degraded) : grade
            settle(device, Verdict(worst, reason), now: now)
        }
    }

    private mutating func add(_ sample: DeviceSample, of probe: String) -> Bool {
        let id = sample.reading.id
        guard known[id] != nil || known.count < limits.maximumDevices else { return false }
        known[id, default: Known(probe: probe, sample: sample)].sample = sample
        return true
    }

    private mutating func judge(_ sample: DeviceSample, of probe: String, now: MonotonicTime) {
        guard add(sample, of: probe) else { return }
        let id = sample.reading.id
        let held = known[id]?.grade ?? .ok
        var verdict = Verdict()
        for alarm in sample.alarms { verdict.add(alarm.grade, alarm.text) }
        judgeHeat(sample, held: held, &verdict)
        for reason in sample.throttling { verdict.add(.degraded, "it runs slower: \(reason)") }
        judgeErrors(sample.reading, now: now, &verdict)
        judgeHost(sample, held: held, &verdict)
        settle(id, verdict, now: now)
    }

    private func judgeHeat(
        _ sample: DeviceSample, held: DeviceGrade, _ verdict: inout Verdict
    ) {
        let temperature = sample.reading.temperatureCelsius
        guard temperature > 0 else { return }
        func reaches(_ threshold: Double, _ grade: DeviceGrade) -> Bool {
            temperature >= threshold - (held >= grade ? limits.temperatureMargin : 0)
        }
        let critical = sample.criticalCelsius ?? limits.criticalCelsius
        let hot = min(sample.hotCelsius ?? limits.hotCelsius, critical)
        if reaches(critical, .failing) {
            verdict.add(.failing, "it is \(Int(temperature)) °C hot, \(Int(critical)) is critical")
        } else if reaches(hot, .degraded) {
            verdict.add(.degraded, "it is \(Int(temperature)) °C hot, \(Int(hot)) is too hot")
        }
    }

    private mutating func judgeErrors(
        _ reading: DeviceReading, now: MonotonicTime, _ verdict: inout Verdict
    ) {
        guard var errors = known[reading.id]?.errors else { return }
        if let last = errors.last,
            reading.correctedErrors < last.corrected || reading.uncorrectedErrors < last.uncorrected
        {
            // The device was reset: it counts anew.
            errors = []
        }
        let latest = ErrorCount(
            time: now, corrected: reading.correctedErrors, uncorrected: reading.uncorrectedErrors)
        // One entry a change, from when on it was so.
        let isNew =
            errors.last.map {
                $0.corrected != latest.corrected || $0.uncorrected != latest.uncorrected
            } ?? true
        if isNew { errors.append(latest) }
        while errors.count > 1, now - errors[1].time >= limits.errorWindow {
            errors.removeFirst()
        }
        if errors.count > Self.maximumErrorCounts { errors.removeFirst() }
        known[reading.id]?.errors = errors
        guard let first = errors.first else { return }
        let uncorrected = latest.uncorrected - first.uncorrected
        let corrected = latest.corrected - first.corrected
        if uncorrected >= limits.failingUncorrectedErrors {
            verdict.add(.failing, "\(uncorrected) uncorrected memory errors lately")
        } else if uncorrected >= limits.degradedUncorrectedErrors {
            verdict.add(.degraded, "\(uncorrected) uncorrected memory errors lately")
        }
        if corrected >= limits.degradedCorrectedErrors {
            verdict.add(.degraded, "\(corrected) corrected memory errors lately")
        }
    }

    private static let maximumErrorCounts = 64

    private func judgeHost(
        _ sample: DeviceSample, held: DeviceGrade, _ verdict: inout Verdict
    ) {
        let reading = sample.reading
        func isShort(_ free: Double, _ threshold: Double, _ grade: DeviceGrade) -> Bool {
            free < threshold * (held >= grade ? limits.fractionMargin : 1)
        }
        func judgeFree(_ failing: Double, _ degraded: Double, _ what: String) {
            guard reading.totalMemoryBytes > 0 else { return }
            let free = Double(reading.freeMemoryBytes) / Double(reading.totalMemoryBytes)
            let text = "\(reading.freeMemoryBytes >> 20) MiB of \(what) are free"
            if isShort(free, failing, .failing) {
                verdict.add(.failing, text)
            } else if isShort(free, degraded, .degraded) {
                verdict.add(.degraded, text)
            }
        }
        switch reading.kind {
        case DeviceReading.memoryKind:
            judgeFree(limits.failingFreeMemory, limits.degradedFreeMemory, "memory")
        case DeviceReading.diskKind:
            judgeFree(limits.failingFreeDisk, limits.degradedFreeDisk, "disk space")
        default: break
        }
        if let stalled = sample.stalledFraction, stalled >= limits.degradedStalls {
            verdict.add(
                stalled >= limits.failingStalls ? .failing : .degraded,
                "\(Int(stalled * 100)) % of the time all work waits for it")
        }
        if let load = sample.loadPerProcessor, load >= limits.degradedLoadPerProcessor {
            verdict.add(.degraded, "\(Int(load)) tasks per processor want to run")
        }
    }

    /// Moves the grade if enough readings agree.
    private mutating func settle(_ id: String, _ verdict: Verdict, now: MonotonicTime) {
        guard var device = known[id] else { return }
        defer { known[id] = device }
        let reason = String(
            verdict.reasons.joined(separator: "; ").prefix(limits.reasonCharacters))
        if verdict.grade > device.grade {
            device.betterSince = nil
            device.worseRun += 1
            device.worseGrade = min(device.worseGrade, verdict.grade)
            guard device.worseRun >= limits.worseReadings else { return }
            device.grade = device.worseGrade
            device.reason = reason
            device.worseRun = 0
            device.worseGrade = .lost
            return
        }
        device.worseRun = 0
        device.worseGrade = .lost
        guard verdict.grade < device.grade else {
            device.betterSince = nil
            device.reason = reason
            return
        }
        let since = device.betterSince ?? now
        device.betterSince = since
        guard now - since >= limits.betterFor else { return }
        device.grade = verdict.grade
        device.reason = reason
        device.betterSince = nil
    }
}
