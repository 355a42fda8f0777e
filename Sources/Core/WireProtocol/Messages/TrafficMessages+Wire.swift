import CProtobufC
import CWireMessages
import ServingTypes

private let sum = 0...WireLimits.trafficSum

/// A sum of times in microseconds.
private func readSum(_ number: UInt64, _ field: String) throws(WireError) -> Duration {
    .microseconds(try read(number, sum, field))
}

private func writeSum(_ duration: Duration, _ field: String) throws(WireError) -> UInt64 {
    let limit = Duration.microseconds(WireLimits.trafficSum)
    return UInt64(try checked(duration, .zero...limit, field).nanoseconds / 1000)
}

extension GroupTraffic: @unsafe WireForm {
    init(wire: Pdserve__Wire__GroupTraffic) throws(WireError) {
        self.init(
            group: GroupID(
                try unsafe readName(
                    wire.group, limit: WireLimits.identifierBytes, "GroupTraffic.group")),
            scenario: try unsafe readText(
                wire.scenario, limit: WireLimits.identifierBytes, "GroupTraffic.scenario"))
        arrived = try unsafe read(wire.arrived, sum, "GroupTraffic.arrived")
        completed = try unsafe read(wire.completed, sum, "GroupTraffic.completed")
        good = try unsafe read(wire.good, sum, "GroupTraffic.good")
        failed = try unsafe read(wire.failed, sum, "GroupTraffic.failed")
        waiting = try unsafe read(wire.waiting, sum, "GroupTraffic.waiting")
        rejected = try unsafe read(wire.rejected, sum, "GroupTraffic.rejected")
        refused = try unsafe read(wire.refused, sum, "GroupTraffic.refused")
        promptTokens = try unsafe read(wire.prompt_tokens, sum, "GroupTraffic.prompt_tokens")
        cachedTokens = try unsafe read(wire.cached_tokens, sum, "GroupTraffic.cached_tokens")
        outputTokens = try unsafe read(wire.output_tokens, sum, "GroupTraffic.output_tokens")
        ttft = try unsafe readSum(wire.ttft_microseconds, "GroupTraffic.ttft_microseconds")
        prefill = try unsafe readSum(wire.prefill_microseconds, "GroupTraffic.prefill_microseconds")
        endToEnd = try unsafe readSum(
            wire.end_to_end_microseconds, "GroupTraffic.end_to_end_microseconds")
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__GroupTraffic {
        var wire = unsafe Pdserve__Wire__GroupTraffic()
        unsafe pdserve__wire__group_traffic__init(&wire)
        unsafe wire.group = try arena.writeName(
            group.name, limit: WireLimits.identifierBytes, "GroupTraffic.group")
        unsafe wire.scenario = try arena.writeText(
            scenario, limit: WireLimits.identifierBytes, "GroupTraffic.scenario")
        unsafe wire.arrived = try write64(arrived, sum, "GroupTraffic.arrived")
        unsafe wire.completed = try write64(completed, sum, "GroupTraffic.completed")
        unsafe wire.good = try write64(good, sum, "GroupTraffic.good")
        unsafe wire.failed = try write64(failed, sum, "GroupTraffic.failed")
        unsafe wire.waiting = try write64(waiting, sum, "GroupTraffic.waiting")
        unsafe wire.rejected = try write64(rejected, sum, "GroupTraffic.rejected")
        unsafe wire.refused = try write64(refused, sum, "GroupTraffic.refused")
        unsafe wire.prompt_tokens = try write64(promptTokens, sum, "GroupTraffic.prompt_tokens")
        unsafe wire.cached_tokens = try write64(cachedTokens, sum, "GroupTraffic.cached_tokens")
        unsafe wire.output_tokens = try write64(outputTokens, sum, "GroupTraffic.output_tokens")
        unsafe wire.ttft_microseconds = try writeSum(ttft, "GroupTraffic.ttft_microseconds")
        unsafe wire.prefill_microseconds = try writeSum(
            prefill, "GroupTraffic.prefill_microseconds")
        unsafe wire.end_to_end_microseconds = try writeSum(
            endToEnd, "GroupTraffic.end_to_end_microseconds")
        return unsafe wire
    }
}

extension TrafficReport: @unsafe WireForm {
    init(wire: Pdserve__Wire__TrafficReport) throws(WireError) {
        self.init(
            interval: try readMilliseconds(
                unsafe wire.interval_milliseconds, "TrafficReport.interval_milliseconds"),
            groups: try unsafe readForms(
                wire.groups, count: wire.n_groups, limit: WireLimits.groups,
                "TrafficReport.groups"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__TrafficReport {
        var wire = unsafe Pdserve__Wire__TrafficReport()
        unsafe pdserve__wire__traffic_report__init(&wire)
        unsafe wire.interval_milliseconds = try writeMilliseconds(
            interval, "TrafficReport.interval_milliseconds")
        unsafe wire.groups = try arena.writeForms(
            groups, limit: WireLimits.groups, "TrafficReport.groups")
        unsafe wire.n_groups = groups.count
        return unsafe wire
    }
}
