import CoreMetrics
import ServiceRuntime
import Testing

@Suite struct MetricsTests {
    @Test func `the text is what Prometheus reads`() {
        let registry = MetricsRegistry()
        registry.describe("gateway_requests", "Requests by result.\nAll \\ of them.")
        Counter(label: "gateway_requests", dimensions: [("result", "a\"b\\\n")], factory: registry)
            .increment(by: 3)
        Counter(label: "gateway_requests", dimensions: [("result", "ok")], factory: registry)
            .increment()
        Gauge(label: "gateway-waiting", factory: registry).record(2.5)
        let histogram = Recorder(
            label: "x_ratio", dimensions: [], aggregate: true, factory: registry)
        histogram.record(0.05)
        histogram.record(0.3)
        histogram.record(7)
        #expect(
            registry.exposition() == #"""
                # HELP gateway_requests_total Requests by result.\nAll \\ of them.
                # TYPE gateway_requests_total counter
                gateway_requests_total{result="a\"b\\\n"} 3
                gateway_requests_total{result="ok"} 1
                # HELP gateway_waiting gateway waiting.
                # TYPE gateway_waiting gauge
                gateway_waiting 2.5
                # HELP x_ratio x ratio.
                # TYPE x_ratio histogram
                x_ratio_bucket{le="0.01"} 0
                x_ratio_bucket{le="0.05"} 1
                x_ratio_bucket{le="0.1"} 1
                x_ratio_bucket{le="0.25"} 1
                x_ratio_bucket{le="0.5"} 2
                x_ratio_bucket{le="0.75"} 2
                x_ratio_bucket{le="0.9"} 2
                x_ratio_bucket{le="0.95"} 2
                x_ratio_bucket{le="0.99"} 2
                x_ratio_bucket{le="1"} 2
                x_ratio_bucket{le="+Inf"} 3
                x_ratio_sum 7.35
                x_ratio_count 3
                # HELP metrics_dropped_series_total Series not kept because there were too many.
                # TYPE metrics_dropped_series_total counter
                metrics_dropped_series_total 0

                """#)
    }

    @Test func `values can be read back, whatever made them`() {
        let registry = MetricsRegistry()
        let labels = [("b", "2"), ("a", "1")]
        Counter(label: "c", dimensions: labels, factory: registry).increment(by: 2)
        Counter(label: "c", dimensions: labels.reversed(), factory: registry).increment(by: 3)
        FloatingPointCounter(label: "f", factory: registry).increment(by: 0.5)
        let meter = Meter(label: "m", factory: registry)
        meter.set(10)
        meter.decrement(by: 4)
        Timer(label: "t", factory: registry).recordMilliseconds(1500)
        #expect(registry.value("c", ["a": "1", "b": "2"]) == 5)
        #expect(registry.value("c_total", ["a": "1", "b": "2"]) == 5)
        #expect(registry.value("f") == 0.5 && registry.value("m") == 6)
        #expect(registry.recorded("t_seconds")?.sum == 1.5)
        #expect(registry.recorded("t_seconds")?.count == 1)
        #expect(registry.value("c") == nil && registry.value("none") == nil)
    }

    @Test func `more series than the bound are counted, not kept`() {
        let registry = MetricsRegistry()
        for index in 0..<5000 {
            Counter(label: "c", dimensions: [("i", "\(index)")], factory: registry).increment()
        }
        let lines = registry.exposition().split(separator: "\n")
        #expect(lines.count { $0.hasPrefix("c_total{") } == 4096)
        #expect(lines.last == "metrics_dropped_series_total 904")
        Counter(label: "c", dimensions: [("i", "5")], factory: registry).increment()
        #expect(registry.value("c", ["i": "5"]) == 2)
    }

    @Test func `a name used for another kind is dropped`() {
        let registry = MetricsRegistry()
        Gauge(label: "x", factory: registry).record(1)
        Recorder(label: "x", dimensions: [], aggregate: true, factory: registry).record(5)
        #expect(registry.value("x") == 1)
        #expect(registry.exposition().contains("metrics_dropped_series_total 1"))
    }

    @Test func `destroyed series leave the text and their room`() {
        let registry = MetricsRegistry()
        let counter = Counter(label: "c", factory: registry)
        counter.increment()
        counter.destroy()
        #expect(!registry.exposition().contains("c_total"))
    }

    @Test func `observed gauges are read when asked for`() {
        let registry = MetricsRegistry()
        registry.observe("process_resident_memory_bytes", "Memory.") {
            ResidentMemory.bytes().map(Double.init)
        }
        let text = registry.exposition()
        #expect(text.contains("# HELP process_resident_memory_bytes Memory.\n"))
        #if os(Linux)
            #expect((registry.value("process_resident_memory_bytes") ?? 0) > 1e6)
        #endif
    }

    @Test func `strange names become allowed ones`() {
        let registry = MetricsRegistry()
        Gauge(label: "1 prefill-worker.é", dimensions: [("a-b", "x")], factory: registry).record(1)
        #expect(registry.exposition().contains("\n_1_prefill_worker__{a_b=\"x\"} 1\n"))
    }

    @Test func `counting from many tasks loses nothing`() async {
        let registry = MetricsRegistry()
        await withDiscardingTaskGroup { group in
            for _ in 0..<8 {
                group.addTask {
                    let counter = Counter(label: "c", factory: registry)
                    let timer = Timer(label: "t", factory: registry)
                    for _ in 0..<2000 {
                        counter.increment()
                        timer.recordNanoseconds(1)
                    }
                }
            }
        }
        #expect(registry.value("c") == 16_000)
        #expect(registry.recorded("t_seconds")?.count == 16_000)
    }
}
