import ServiceRuntime
import Synchronization

/// The `Date` of an answer, made once a second.
enum HTTPDate {
    private static let cached = Mutex((seconds: -1, text: ""))

    static func now() -> String {
        let seconds = WallClock.now().seconds
        return cached.withLock { cached in
            if cached.seconds != seconds { cached = (seconds, text(seconds)) }
            return cached.text
        }
    }

    /// RFC 9110, 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
    static func text(_ seconds: Int) -> String {
        let iso = WallClock(seconds: seconds).text
        let date = iso.prefix(10).split(separator: "-")
        let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
        let months = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ]
        let month = months[(Int(date[1]) ?? 1) - 1]
        return "\(days[seconds / 86_400 % 7]), \(date[2]) \(month) \(date[0]) "
            + "\(iso.dropFirst(11).prefix(8)) GMT"
    }
}
