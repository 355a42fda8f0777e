import ArgumentParser
import ServingSimulation

/// Something that goes wrong in a simulation, on a command line.
///
/// `lose MACHINE@SECONDS[+BACK AFTER]`, `slow` and `slow-link` `MACHINE@SECONDSxFACTOR+FOR`.
struct FaultArgument: ExpressibleByArgument, Hashable {
    var fault: MachineFault

    /// - Parameter argument: for example `lose:prefill-1@30+20`, `slow:decode-2@10x3+60`.
    init?(argument: String) {
        guard let colon = argument.firstIndex(of: ":"),
            let at = argument.lastIndex(of: "@"), at > colon
        else { return nil }
        let machine = String(argument[argument.index(after: colon)..<at])
        let times = argument[argument.index(after: at)...].split(
            separator: "+", omittingEmptySubsequences: false)
        guard (1...2).contains(times.count), !machine.isEmpty else { return nil }
        let start = times[0].split(separator: "x", omittingEmptySubsequences: false)
        guard (1...2).contains(start.count), let seconds = Double(start[0]), seconds >= 0 else {
            return nil
        }
        let length = times.count == 2 ? Double(times[1]) : nil
        guard times.count == 1 || (length ?? -1) >= 0 else { return nil }
        let factor = start.count == 2 ? Double(start[1]) : nil
        let kind: MachineFault.Kind
        switch (argument[..<colon], factor, length) {
        case ("lose", nil, _): kind = .lost(backAfterSeconds: length)
        case ("slow", let factor?, let length?) where factor > 0:
            kind = .slow(factor: factor, seconds: length)
        case ("slow-link", let factor?, let length?) where factor > 0:
            kind = .slowLink(factor: factor, seconds: length)
        default: return nil
        }
        fault = MachineFault(machine: machine, atSeconds: seconds, kind: kind)
    }
}
