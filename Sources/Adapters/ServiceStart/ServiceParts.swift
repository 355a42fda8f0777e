package import HTTPServer
import Logging
import ServiceLifecycle
package import ServiceRuntime
package import ServingTypes
package import Transport

/// The endpoint on which a process tells how it is, and where it says so.
package struct Administration: Sendable {
    package let endpoint: HTTPEndpoint

    /// - Parameter routes: what this service answers besides.
    package init(
        _ common: CommonSettings, _ runtime: ServiceRuntime, routes: HTTPRoutes = HTTPRoutes(),
        complaint: @escaping @Sendable () -> String?
    ) {
        self.init(common, runtime, routes: routes, health: { ServiceHealth(complaint()) })
    }

    package init(
        _ common: CommonSettings, _ runtime: ServiceRuntime, routes: HTTPRoutes = HTTPRoutes(),
        health: @escaping @Sendable () -> ServiceHealth
    ) {
        var routes = routes
        routes.addAdministration(metrics: runtime.metrics) { health() }
        endpoint = HTTPEndpoint(
            address: common.adminListen, routes: routes, logger: runtime.logger)
    }
}

extension ServiceHealth {
    /// - Parameter complaint: nil if all is well.
    package init(_ complaint: String?) {
        self = complaint.map { .unavailable($0) } ?? .ready
    }
}

/// Keeps the process's certificates as their files say.
package struct CertificateService: Service {
    private let watches: [CertificateWatch]

    package init(_ watches: [CertificateWatch]) { self.watches = watches }

    package init(_ watch: CertificateWatch) { self.init([watch]) }

    package func run() async throws {
        try await untilShutdown {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for watch in watches { group.addTask { try await watch.run() } }
                try await group.waitForAll()
            }
        }
    }
}

/// Writes the process's addresses to the file that was asked for, once all are bound.
package struct Announcer: Service {
    private let common: CommonSettings
    private let control: NetworkAddress?
    private let bulk: NetworkAddress?
    private let http: HTTPEndpoint?
    private let admin: HTTPEndpoint?
    /// Until a full disk is tried again.
    private static let retryPause: Duration = .seconds(1)

    package init(
        _ common: CommonSettings, control: NetworkAddress? = nil, bulk: NetworkAddress? = nil,
        http: HTTPEndpoint? = nil, admin: HTTPEndpoint? = nil
    ) {
        self.common = common
        self.control = control
        self.bulk = bulk
        self.http = http
        self.admin = admin
    }

    package func run() async throws {
        var announcement = Announcement(control: control, bulk: bulk)
        announcement.http = try await http?.boundAddress()
        announcement.admin = try await admin?.boundAddress()
        let logger = Logger(label: common.role.name)
        var isReported = false
        while try !common.write(announcement) {
            if !isReported {
                logger.error(
                    "the disk is full: the addresses are written once there is room",
                    metadata: ["file": "\(common.announce ?? "")"])
            }
            isReported = true
            try await Task.sleep(for: Self.retryPause)
        }
        try await gracefulShutdown()
    }
}
