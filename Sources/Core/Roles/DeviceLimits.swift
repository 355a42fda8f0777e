/// Every threshold of judging devices.
package struct DeviceLimits: Sendable, Hashable {
    /// Devices of one host that are remembered.
    package var maximumDevices = 256
    /// Characters of the reasons of one device; more are cut.
    package var reasonCharacters = 400

    // No flapping.

    /// Readings in a row that have to be bad until the grade sinks.
    package var worseReadings = 3
    /// Time without a bad reading until the grade rises.
    package var betterFor = Duration.seconds(30)
    /// A device that is hot already counts as hot down to so much below the threshold.
    package var temperatureMargin = 3.0
    /// A part that is short already counts as short up to this times the threshold.
    package var fractionMargin = 1.25

    // Heat and speed.

    /// Where the driver names no temperature.
    package var hotCelsius = 90.0
    package var criticalCelsius = 105.0

    // Errors of a device's memory, counted over this time.

    package var errorWindow = Duration.seconds(600)
    package var degradedUncorrectedErrors: UInt64 = 1
    package var failingUncorrectedErrors: UInt64 = 8
    package var degradedCorrectedErrors: UInt64 = 1000

    // The host.

    package var degradedFreeMemory = 0.05
    package var failingFreeMemory = 0.01
    package var degradedFreeDisk = 0.05
    package var failingFreeDisk = 0.005
    /// Part of ten seconds in which nothing could go on for lack of memory.
    package var degradedStalls = 0.2
    package var failingStalls = 0.8
    package var degradedLoadPerProcessor = 16.0

    // Probes.

    /// Time a probe may take until its devices count as degraded.
    package var probeDeadline = Duration.seconds(5)
    /// After so long without an answer its devices count as failing.
    package var deadProbe = Duration.seconds(60)

    package init() {}
}
