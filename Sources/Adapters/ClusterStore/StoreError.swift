/// Why a store can't be used, or something could not be saved; a person reads it.
package enum StoreError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A setting means nothing.
    case wrongSetting(String)
    /// The database was damaged and lies elsewhere now.
    case damaged(path: String, problem: String, keptAs: String)
    /// A newer version of this software has written it.
    case newerFormat(place: String, found: Int, known: Int)
    /// There is no room for more; what is there stays readable.
    case full(place: String)
    case unavailable(place: String, reason: String)
    /// A request that the store refused or did not understand.
    case failed(place: String, reason: String)
    case tooLarge(key: String, bytes: Int, limit: Int)
    /// Another leads, or may: nothing was written.
    case fenced(reason: String)

    package var description: String {
        switch self {
        case .wrongSetting(let problem): problem
        case .damaged(let path, let problem, let keptAs):
            "the store \(path) is damaged (\(problem)); it was kept as \(keptAs): put a copy of "
                + "it back at \(path), or start again to begin with an empty one, which the "
                + "workers fill with their roles when they register"
        case .newerFormat(let place, let found, let known):
            "the store \(place) has format \(found), this version knows \(known): start the newer "
                + "version, or name another store"
        case .full(let place):
            "there is no room left for the store \(place); make some, it is tried again"
        case .unavailable(let place, let reason): "the store \(place) can't be reached: \(reason)"
        case .failed(let place, let reason): "the store \(place) failed: \(reason)"
        case .tooLarge(let key, let bytes, let limit):
            "'\(key)' has \(bytes) bytes, a record may have \(limit)"
        case .fenced(let reason): "this scheduler does not lead any more: \(reason)"
        }
    }
}
