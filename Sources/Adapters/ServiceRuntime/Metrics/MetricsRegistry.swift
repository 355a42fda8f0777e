package import CoreMetrics
import Synchronization

/// The metrics of one process: a factory for swift-metrics and the text that Prometheus reads.
///
/// Counters are exported with the suffix `_total`, timers and aggregating recorders as histograms
/// with buckets chosen by the unit at the end of their name (`_seconds`, `_bytes`, `_ratio`, else
/// counts). Timers are in seconds. The number of series is bounded; what is beyond is counted in
/// `metrics_dropped_series_total`.
package final class MetricsRegistry: MetricsFactory {
    enum Kind: String { case counter, gauge, histogram }

    typealias Labels = [Label]

    struct Label: Hashable, Comparable {
        var name: String
        var value: String

        static func < (left: Label, right: Label) -> Bool {
            (left.name, left.value) < (right.name, right.value)
        }
    }

    enum Series {
        case scalar(ScalarSeries)
        case histogram(HistogramSeries)
    }

    struct Family {
        var kind: Kind
        var series: [Labels: Series] = [:]
    }

    private struct State {
        var families: [String: Family] = [:]
        var help: [String: String] = [:]
        var collectors: [@Sendable () -> Void] = []
        var seriesCount = 0
        var droppedSeries = 0
    }

    private let state = Mutex(State())

    package init() {}

    /// Text for HELP of one metric, without suffixes.
    package func describe(_ name: String, _ help: String) {
        state.withLock { $0.help[Self.clean(name)] = help }
    }

    /// A gauge that is read whenever the metrics are; nil leaves it as it was.
    package func observe(
        _ name: String, _ help: String, _ read: @escaping @Sendable () -> Double?
    ) {
        describe(name, help)
        let gauge = makeRecorder(label: name, dimensions: [], aggregate: false)
        state.withLock {
            precondition($0.collectors.count < MetricsLimits.collectors, "too many collectors")
            $0.collectors.append { if let value = read() { gauge.record(value) } }
        }
    }

    /// Value of a counter (name with or without `_total`) or gauge; nil if there is none.
    package func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
        guard case .scalar(let series) = series(name, labels) else { return nil }
        return series.value
    }

    /// Number and sum of what a histogram recorded; nil if there is none.
    package func recorded(
        _ name: String, _ labels: [String: String] = [:]
    ) -> (count: Int, sum: Double)? {
        guard case .histogram(let series) = series(name, labels) else { return nil }
        let content = series.content
        return (Int(content.total), content.sum)
    }

    private func series(_ name: String, _ labels: [String: String]) -> Series? {
        let labels = Self.clean(labels.map { ($0.key, $0.value) })
        return state.withLock {
            ($0.families[name] ?? $0.families["\(name)_total"])?.series[labels]
        }
    }

    // MARK: Making

    private func scalar(
        _ name: String, _ kind: Kind, _ dimensions: [(String, String)]
    ) -> ScalarSeries {
        let series = find(name, kind, dimensions) { .scalar(ScalarSeries()) }
        guard case .scalar(let found) = series else { return ScalarSeries() }
        return found
    }

    private func histogram(_ name: String, _ dimensions: [(String, String)]) -> HistogramSeries {
        let bounds = MetricsLimits.buckets(for: name)
        let series = find(name, .histogram, dimensions) {
            .histogram(HistogramSeries(bounds: bounds))
        }
        guard case .histogram(let found) = series else { return HistogramSeries(bounds: bounds) }
        return found
    }

    /// The series, made if need be; nil if the name has another kind or the registry is full.
    private func find(
        _ name: String, _ kind: Kind, _ dimensions: [(String, String)], _ make: () -> Series
    ) -> Series? {
        let labels = Self.clean(dimensions)
        return state.withLock { state in
            // No copy of the family may be held here: changing it would copy all its series.
            let isOfKind = state.families[name].map { $0.kind == kind } ?? true
            if isOfKind, let found = state.families[name]?.series[labels] { return found }
            guard isOfKind, state.seriesCount < MetricsLimits.series else {
                state.droppedSeries += 1
                return nil
            }
            let series = make()
            state.families[name, default: Family(kind: kind)].series[labels] = series
            state.seriesCount += 1
            return series
        }
    }

    package func makeCounter(
        label: String, dimensions: [(String, String)]
    ) -> any CounterHandler {
        scalar(Self.suffixed(label, "_total"), .counter, dimensions)
    }

    package func makeFloatingPointCounter(
        label: String, dimensions: [(String, String)]
    ) -> any FloatingPointCounterHandler {
        scalar(Self.suffixed(label, "_total"), .counter, dimensions)
    }

    package func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        scalar(Self.clean(label), .gauge, dimensions)
    }

    package func makeRecorder(
        label: String, dimensions: [(String, String)], aggregate: Bool
    ) -> any RecorderHandler {
        aggregate
            ? histogram(Self.clean(label), dimensions)
            : scalar(Self.clean(label), .gauge, dimensions)
    }

    package func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        histogram(Self.suffixed(label, "_seconds"), dimensions)
    }

    // MARK: Removing

    package func destroyCounter(_ handler: any CounterHandler) { destroy(handler) }
    package func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) {
        destroy(handler)
    }
    package func destroyMeter(_ handler: any MeterHandler) { destroy(handler) }
    package func destroyRecorder(_ handler: any RecorderHandler) { destroy(handler) }
    package func destroyTimer(_ handler: any TimerHandler) { destroy(handler) }

    private func destroy(_ handler: any AnyObject) {
        state.withLock { state in
            for (name, family) in state.families {
                for (labels, series) in family.series where series.object === handler {
                    state.families[name]?.series[labels] = nil
                    state.seriesCount -= 1
                    if state.families[name]?.series.isEmpty == true {
                        state.families[name] = nil
                    }
                    return
                }
            }
        }
    }

    // MARK: Reading

    /// What is exported now, sorted by name.
    func snapshot() -> (families: [(name: String, help: String, family: Family)], dropped: Int) {
        for collect in state.withLock({ $0.collectors }) { collect() }
        return state.withLock { state in
            let families = state.families.sorted { $0.key < $1.key }.map { name, family in
                let base = name.hasSuffix("_total") ? String(name.dropLast(6)) : name
                let help = state.help[name] ?? state.help[base]
                let words = base.split(separator: "_").joined(separator: " ")
                return (name: name, help: help ?? words + ".", family: family)
            }
            return (families, state.droppedSeries)
        }
    }

    private static func suffixed(_ label: String, _ suffix: String) -> String {
        let name = clean(label)
        return name.hasSuffix(suffix) ? name : name + suffix
    }

    /// A name as Prometheus allows it: `[a-zA-Z_][a-zA-Z0-9_]*`.
    static func clean(_ name: String) -> String {
        if isClean(name) { return name }
        let scalars = name.unicodeScalars.map {
            $0.isASCII && ($0.properties.isAlphabetic || $0.properties.numericType != nil)
                ? Character($0) : "_"
        }
        let text = String(scalars)
        return text.first?.isNumber ?? true ? "_" + text : text
    }

    /// Looks at bytes alone: asking Unicode for each character takes microseconds per name.
    private static func isClean(_ name: String) -> Bool {
        guard let first = name.utf8.first, !isDigit(first) else { return false }
        return name.utf8.allSatisfy {
            isDigit($0) || UInt8(ascii: "a")...UInt8(ascii: "z") ~= $0 | 0x20
                || $0 == UInt8(ascii: "_")
        }
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte
    }

    private static func clean(_ labels: [(String, String)]) -> Labels {
        labels.map { Label(name: clean($0.0), value: $0.1) }.sorted()
    }
}

extension MetricsRegistry.Series {
    var object: any AnyObject {
        switch self {
        case .scalar(let series): series
        case .histogram(let series): series
        }
    }
}
