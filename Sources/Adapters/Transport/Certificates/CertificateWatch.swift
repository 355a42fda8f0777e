package import Logging
internal import Metrics
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// The files that a context is made of.
package enum CertificateFiles: Sendable, Hashable {
    case cluster(TLSIdentity.Paths)
    /// PEM files of a server for clients of any kind.
    case https(certificate: String, key: String)

    fileprivate var name: String {
        switch self {
        case .cluster: "cluster"
        case .https: "https"
        }
    }

    fileprivate var paths: [String] {
        switch self {
        case .cluster(let paths):
            [paths.authority, paths.certificate, paths.key] + (paths.revocations.map { [$0] } ?? [])
        case .https(let certificate, let key): [certificate, key]
        }
    }

    fileprivate func settings() throws(TransportError) -> TLSSettings {
        switch self {
        case .cluster(let paths): try TLSSettings(TLSIdentity(paths))
        case .https(let certificate, let key):
            try .httpsServer(certificatePath: certificate, keyPath: key)
        }
    }
}

/// Keeps a context as its files say, and its open connections to those whose certificates hold.
///
/// Files that are wrong change nothing: what was in use stays so, and they are read again when they
/// change again.
package final class CertificateWatch: Sendable {
    private struct State {
        var stamps: [Files.Stamp?]
        var warned: [TLSSettings.Expiry.Subject: Int64] = [:]
    }

    package let context: TLSContext
    private let files: CertificateFiles
    private let logger: Logger
    /// Held while files are read: one reads at a time.
    private let state: Mutex<State>

    /// Reads the files; the error names the file at fault and what to do.
    package init(_ files: CertificateFiles, logger: Logger) throws(TransportError) {
        // Before they are read: what is written meanwhile is seen as a change.
        let stamps = files.paths.map(Files.Stamp.init)
        context = TLSContext(try files.settings())
        self.files = files
        self.logger = logger
        state = Mutex(State(stamps: stamps))
        report(now: Self.now)
    }

    /// Looks every `TransportLimits.certificateInterval` until the task is cancelled.
    package func run() async throws {
        while true {
            try await Task.sleep(for: TransportLimits.certificateInterval)
            look()
        }
    }

    /// Takes up files that have changed and ends connections whose peers have no right any more.
    ///
    /// - Parameter isForced: reads the files even if they look unchanged.
    package func look(isForced: Bool = false) { look(isForced: isForced, now: Self.now) }

    /// - Parameter now: seconds since 1970.
    func look(isForced: Bool = false, now: Int64) {
        let hasChanged = state.withLock { state in
            let stamps = files.paths.map(Files.Stamp.init)
            let hasChanged = stamps != state.stamps
            state.stamps = stamps
            return hasChanged
        }
        if hasChanged || isForced { reload() }
        report(now: now)
        for ended in context.endUnfit(now: now) {
            Counter(
                label: "connections_ended_total",
                dimensions: [("reason", ended.error.refusalReason ?? "other")]
            ).increment()
            logger.warning(
                "A connection is ended",
                metadata: [
                    "certificate": "\(ended.peer)", "remote": "\(ended.remote)",
                    "error": "\(ended.error)",
                ])
        }
    }

    private func reload() {
        var outcome = "done"
        do throws(TransportError) {
            let settings = try files.settings()
            try context.renew(settings)
            state.withLock { $0.warned = [:] }
            var metadata: Logger.Metadata = ["certificates": "\(files.name)"]
            for expiry in settings.expiries {
                metadata[expiry.subject.rawValue] = "\(expiry.text(now: Self.now))"
            }
            if !settings.revocations.isEmpty {
                metadata["revoked"] = "\(settings.revocations.reduce(0) { $0 + $1.count })"
            }
            logger.notice("New certificates are in use", metadata: metadata)
        } catch {
            outcome = "failed"
            logger.error(
                "New certificates can't be used, those before them stay",
                metadata: ["certificates": "\(files.name)", "error": "\(error)"])
        }
        Counter(
            label: "certificate_reloads_total",
            dimensions: [("certificates", files.name), ("outcome", outcome)]
        ).increment()
    }

    // MARK: Time left

    private static var now: Int64 { Int64(time(nil)) }

    private func report(now: Int64) {
        for expiry in context.settings.expiries {
            let kind = files.name == "https" ? "https" : expiry.subject.rawValue
            Gauge(label: "certificate_expires_seconds", dimensions: [("certificate", kind)])
                .record(expiry.time - now)
            if expiry.time - now < expiry.warning { warn(expiry, now: now) }
        }
    }

    private func warn(_ expiry: TLSSettings.Expiry, now: Int64) {
        let interval = TransportLimits.certificateWarningInterval.components.seconds
        let isDue = state.withLock { state in
            if let last = state.warned[expiry.subject], now - last < interval { return false }
            state.warned[expiry.subject] = now
            return true
        }
        guard isDue else { return }
        let metadata: Logger.Metadata = [
            "certificates": "\(files.name)", "end": "\(expiry.text(now: now))",
        ]
        switch expiry.subject {
        case .revocations:
            logger.warning(
                """
                The list of revocations should be renewed; what it revokes stays revoked, but \
                later revocations are not on it
                """, metadata: metadata)
        case .certificate, .authority:
            let level: Logger.Level = expiry.time < now ? .error : .warning
            logger.log(
                level: level, "The \(expiry.subject.rawValue) must be renewed", metadata: metadata)
        }
    }
}

extension TLSSettings.Expiry {
    /// Seconds left from which on it is warned of.
    fileprivate var warning: Int64 {
        if subject == .revocations { return 0 }
        let part = (time - start) / Int64(TransportLimits.certificateWarningPart)
        return min(TransportLimits.certificateWarning.components.seconds, part)
    }

    fileprivate func text(now: Int64) -> String {
        let days = Double(time - now) / 86_400
        let tenths = Double(Int(abs(days) * 10)) / 10
        return days < 0 ? "\(tenths) days ago" : "in \(tenths) days"
    }
}
