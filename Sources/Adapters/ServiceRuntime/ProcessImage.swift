import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// How a program is called: what a process becomes when it starts itself again.
package struct ProcessImage: Hashable, Sendable {
    /// With the program's name.
    package var arguments: [String]
    package var environment: [String: String]

    package init(arguments: [String], environment: [String: String]) {
        self.arguments = arguments
        self.environment = environment
    }

    /// Gives a setting another value, wherever the old one came from; nil removes it from the
    /// command line and the environment.
    package mutating func set(_ key: String, to value: String?) {
        var kept: [String] = []
        var isDropping = false
        for argument in arguments {
            if argument == "--\(key)" || argument.hasPrefix("--\(key)=") {
                isDropping = argument == "--\(key)"
            } else if isDropping, !argument.hasPrefix("--") {
                isDropping = false
            } else {
                isDropping = false
                kept.append(argument)
            }
        }
        arguments = kept + (value.map { ["--\(key)", $0] } ?? [])
        environment[SettingsSources.variable(key)] = nil
    }

    /// Replaces the running program by this one under the same process number.
    ///
    /// Files that were opened since the start are closed, signals are as a new process has them.
    /// Returns only if that is not possible, with the reason.
    package func execute() -> String {
        InheritedFiles.keepOthersFromSuccessors()
        var none = sigset_t()
        unsafe sigemptyset(&none)
        unsafe pthread_sigmask(SIG_SETMASK, &none, nil)
        for number in [SIGTERM, SIGINT] { _ = signal(number, SIG_DFL) }
        let variables = environment.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        let argumentPointers = unsafe arguments.map { unsafe strdup($0) } + [nil]
        let variablePointers = unsafe variables.map { unsafe strdup($0) } + [nil]
        _ = unsafe execve(Self.executable, argumentPointers, variablePointers)
        return NSError(domain: NSPOSIXErrorDomain, code: Int(errno)).localizedDescription
    }

    /// The running program, even if another file has taken its place.
    private static var executable: String {
        let link = "/proc/self/exe"
        let path = try? FileManager.default.destinationOfSymbolicLink(atPath: link)
        guard let path else { return CommandLine.arguments[0] }
        return FileManager.default.isExecutableFile(atPath: path) ? path : link
    }
}

/// Files that this process got from the one that started it.
package enum InheritedFiles {
    /// Looked at when a service starts, before it opens any.
    private static let numbers = Set(open.filter { fcntl($0, F_GETFD) & FD_CLOEXEC == 0 })

    package static func remember() { _ = numbers }

    /// Whoever started this process may wait for what it gave to be closed: that stays open.
    static func keepOthersFromSuccessors() {
        for file in open where file > 2 && !numbers.contains(file) {
            _ = fcntl(file, F_SETFD, FD_CLOEXEC)
        }
    }

    private static var open: [Int32] {
        #if os(Linux)
            let folder = "/proc/self/fd"
        #else
            let folder = "/dev/fd"
        #endif
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        // The one the folder was read by is closed again.
        return names.compactMap { Int32($0) }.filter { fcntl($0, F_GETFD) >= 0 }
    }
}

/// Lets a service end in order and start again with other settings, as the same process.
package final class ProcessRestart: Sendable {
    private struct State {
        var image: ProcessImage?
        var isForbidden = false
    }

    private let state = Mutex(State())
    private let base: ProcessImage
    let requests: AsyncStream<Void>
    private let requested: AsyncStream<Void>.Continuation

    package init(_ base: ProcessImage) {
        self.base = base
        (requests, requested) = AsyncStream.makeStream(
            of: Void.self, bufferingPolicy: .bufferingNewest(1))
    }

    /// Shuts the service down gracefully; it starts again with these settings, nil for none.
    ///
    /// Whoever tells the process to end has the last word.
    package func request(_ settings: [String: String?]) {
        var image = base
        for (key, value) in settings.sorted(by: { $0.key < $1.key }) { image.set(key, to: value) }
        state.withLock { $0.image = image }
        requested.yield()
    }

    func forbid() { state.withLock { $0.isForbidden = true } }

    /// What is to follow this life; nil if it is the last.
    var image: ProcessImage? { state.withLock { $0.isForbidden ? nil : $0.image } }
}
