import Foundation
package import ServiceLifecycle
package import ServiceRuntime
package import ServingTypes
package import Transport

/// The whole of a service's main: reads the settings, builds the parts, runs them, exits.
package func run<Settings: Sendable>(
    _ role: Role, settings: (inout SettingsReader) throws(SettingsError) -> Settings,
    services: (Settings, ServiceRuntime) async throws -> [any Service]
) async -> Never {
    InheritedFiles.remember()
    let call = ProcessCall(
        arguments: Array(CommandLine.arguments.dropFirst()),
        environment: ProcessInfo.processInfo.environment)
    exit(
        await runService(
            name: role.name, version: Product.build, call: call, settings: settings,
            services: services))
}

/// Does something at fixed intervals until the task is cancelled.
package func repeatedly(every interval: Duration, _ body: () async -> Void) async throws {
    while true {
        await body()
        try await Task.sleep(for: interval)
    }
}

/// Runs until graceful shutdown, which cancels the body and is no error.
package func untilShutdown(_ body: @escaping @Sendable () async throws -> Void) async throws {
    do {
        try await cancelWhenGracefulShutdown(body)
    } catch is CancellationError {
        return
    }
}

extension ControlSession {
    /// Asks for a sign of life every few seconds until the task is cancelled.
    ///
    /// A connection on which nothing comes in for `TransportLimits.idle` is closed, and many
    /// messages have no answer. Whoever connected calls this.
    package func keepAlive() async throws {
        var number: UInt64 = 0
        try await repeatedly(every: TransportLimits.idle / 6) {
            number += 1
            post(.ping(Ping(number: number)))
        }
    }

    /// Sends a message that this program made; one that can't be written is a defect, and ends
    /// the session rather than losing the message in silence.
    package func post(_ message: ControlMessage, payload: [UInt8] = []) {
        do {
            try send(message, payload: payload)
        } catch {
            close(refusal: Refusal(code: .protocol, reason: "a message can't be written: \(error)"))
        }
    }
}
