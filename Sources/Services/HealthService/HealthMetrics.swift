import Metrics
import Roles
import ServiceRuntime
import ServingTypes

/// The health-agent's metrics.
struct HealthMetrics {
    private var devices: Set<String> = []
    private var workers: Set<InstanceID> = []

    static func describe(in registry: MetricsRegistry) {
        for (name, help) in [
            ("health_device_grade", "1 ok, 2 degraded, 3 failing, 4 lost, 0 gone; by device."),
            ("health_device_busy_ratio", "Busy part of a device's time."),
            ("health_device_temperature_celsius", "Temperature of a device."),
            ("health_device_power_watts", "Power that a device takes."),
            ("health_device_memory_free_bytes", "Free memory of a device, or room of a disk."),
            ("health_device_memory_bytes", "Memory of a device, or size of a disk."),
            ("health_device_uncorrected_errors", "Memory errors that were not put right."),
            ("health_worker_state", "0 well, 1 suspect, 2 down; by worker."),
            ("health_canaries", "Canaries by what came of them."),
            ("health_exits", "Hung workers that were told to exit."),
            ("health_kills", "Hung workers that were killed, by worker."),
            ("health_restarts", "Ends of supervised workers that were started again."),
            ("health_crash_loops", "Supervised workers that were given up."),
        ] { registry.describe(name, help) }
    }

    mutating func show(_ readings: [DeviceReading]) {
        var gone = devices
        for reading in readings {
            gone.remove(reading.id)
            devices.insert(reading.id)
            let labels = [("device", reading.id), ("kind", reading.kind)]
            func show(_ name: String, _ value: Double) {
                Gauge(label: "health_device_\(name)", dimensions: labels).record(value)
            }
            show("grade", Double(reading.grade.rawValue))
            show("busy_ratio", reading.busyFraction)
            show("temperature_celsius", reading.temperatureCelsius)
            show("power_watts", reading.powerWatts)
            show("memory_free_bytes", Double(reading.freeMemoryBytes))
            show("memory_bytes", Double(reading.totalMemoryBytes))
            show("uncorrected_errors", Double(reading.uncorrectedErrors))
        }
        for device in gone {
            devices.remove(device)
            Gauge(label: "health_device_grade", dimensions: [("device", device)]).record(0)
        }
    }

    mutating func show(_ findings: [WorkerFinding]) {
        var gone = workers
        for finding in findings {
            gone.remove(finding.instance)
            workers.insert(finding.instance)
            let value = !finding.isResponding ? 2 : finding.isSuspect ? 1 : 0
            Self.state(finding.instance).record(value)
        }
        for worker in gone {
            workers.remove(worker)
            Self.state(worker).record(0)
        }
    }

    private static func state(_ worker: InstanceID) -> Gauge {
        Gauge(label: "health_worker_state", dimensions: [("worker", worker.name)])
    }

    static func canary(_ end: CanaryEnd) {
        Counter(label: "health_canaries_total", dimensions: [("outcome", end.rawValue)])
            .increment()
    }

    static func toldToExit() { Counter(label: "health_exits_total").increment() }
    static func killed(_ worker: String) { count("health_kills_total", worker) }
    static func restarted(_ worker: String) { count("health_restarts_total", worker) }
    static func lackedMemory(_ worker: String) {
        count("health_out_of_memory_total", worker)
    }
    static func gaveUp(_ worker: String) { count("health_crash_loops_total", worker) }

    private static func count(_ name: String, _ worker: String) {
        Counter(label: name, dimensions: [("worker", worker)]).increment()
    }
}
