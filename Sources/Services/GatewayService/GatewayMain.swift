import ChatAPI
package import HTTPServer
import InferenceEngine
import LlamaEngine
import Logging
import NIOCore
package import Roles
package import ServiceLifecycle
package import ServiceRuntime
package import ServiceStart
package import ServingTypes
import SimulatedEngine
import Transport

/// Settings of the gateway.
package struct GatewaySettings: Sendable {
    /// Whose tokens the gateway speaks.
    package enum Engine: String, Sendable, CaseIterable {
        case llama
        case simulated
    }

    package var common: CommonSettings
    package var schedulers: [NetworkAddress]
    package var stateFolder: String?
    package var httpListen: NetworkAddress
    package var engine: Engine
    package var modelPath: String?
    package var modelName: String?
    package var http: HTTPLimits
    package var httpsCertificate: String?
    package var httpsKey: String?
    package var limits = GatewayLimits()
    package var unreadLimit: Int

    package init(_ reader: inout SettingsReader) throws(SettingsError) {
        common = try CommonSettings(
            &reader, role: .gateway)
        schedulers = try reader.schedulers()
        stateFolder = try reader.optionalText(
            "state-folder",
            "Folder for the last view, by which gateways that start serve while no scheduler can "
                + "be reached; gateways of one host may share it.")
        httpListen = try reader.address(
            "http-listen", default: NetworkAddress(host: "127.0.0.1", port: 8080),
            "Address for clients.")
        engine = try reader.choice(
            "engine", default: Engine.llama,
            "The workers' engine: it decides how text becomes tokens.")
        modelPath = try reader.optionalText(
            "model", "The GGUF file that is served; only its vocabulary is loaded.")
        modelName = try reader.optionalText(
            "model-name", "Name for clients; default: the name written in the model file.")
        http = try HTTPLimits(&reader)
        unreadLimit = try reader.integer(
            "unread-limit", default: 4096, in: 16...1_000_000,
            "Pieces of an answer that wait for a client that reads slowly; one more ends its "
                + "request.")
        httpsCertificate = try reader.optionalText(
            "https-certificate", "PEM certificate chain for clients; without it they speak HTTP.")
        httpsKey = try reader.optionalText("https-key", "PEM key of the certificate.")
        limits.maximumRequests = try reader.integer(
            "maximum-requests", default: limits.maximumRequests, in: 1...1_000_000,
            "Requests in flight or waiting; more are answered 429.")
        limits.placementDeadline = try reader.duration(
            "placement-deadline", default: limits.placementDeadline,
            in: .milliseconds(10) ... .seconds(3600),
            "Time a request may wait for workers before it is answered 503.")
        limits.requestDeadline = try reader.duration(
            "request-deadline", default: limits.requestDeadline,
            in: .seconds(1) ... .seconds(86_400), "Time a whole request may take.")
    }
}

/// Builds the gateway from its settings.
package enum GatewayMain {
    package static func services(
        _ settings: GatewaySettings, _ runtime: ServiceRuntime
    ) async throws -> [any Service] {
        let logger = runtime.logger
        let common = settings.common
        let identity = try common.identify(incarnation: .random(in: 1 ... .max), runtime)
        let own = try speaker(settings, path: settings.modelPath)
        let vocabularies = VocabularyBook(
            own: own, ownPath: settings.modelPath, logger: logger
        ) { path in try speaker(settings, path: path) }
        let scheduler = try identity.schedulerClient(at: settings.schedulers, logger: logger)
        let links = identity.links(logger: logger)
        GatewayMetrics.describe(in: runtime.metrics)
        let access = AccessControl(isEncrypted: settings.httpsCertificate != nil, logger: logger)
        let gateway = GatewayService(
            scheduler: scheduler, links: links, limits: settings.limits,
            seed: .random(in: 0 ... .max), drainDeadline: runtime.settings.shutdownLimit,
            unreadLimit: settings.unreadLimit, access: access, vocabularies: vocabularies,
            viewFile: settings.stateFolder.map {
                ViewFile(folder: $0, cluster: common.cluster, logger: logger)
            }, logger: logger)
        runtime.metrics.observe(
            "gateway_view_epoch",
            "Epoch of the group view: which scheduler's word this gateway follows; 0: none, or a "
                + "view that was kept."
        ) { Double(gateway.viewEpoch) }
        let completions = CompletionService(gateway: gateway)
        var routes = HTTPRoutes()
        completions.addRoutes(to: &routes)
        routes.addAdministration(metrics: runtime.metrics) { ServiceHealth(gateway.complaint) }
        let https = try httpsCertificate(settings, runtime)
        let http = HTTPEndpoint(
            address: settings.httpListen, limits: settings.http, routes: routes, logger: logger,
            metrics: runtime.metrics
        ) { channel in
            guard let https else { return }
            try channel.pipeline.syncOperations.addHandler(
                TLSHandler(context: https.context, side: .server))
        }
        logger.notice("the gateway is ready", metadata: ["model": "\(own.tokenizer.modelName)"])
        let certificates = [identity.certificates] + (https.map { [$0] } ?? [])
        return [
            CertificateService(certificates), gateway, http, Announcer(common, http: http),
        ]
    }

    private static func httpsCertificate(
        _ settings: GatewaySettings, _ runtime: ServiceRuntime
    ) throws -> CertificateWatch? {
        guard let certificate = settings.httpsCertificate else { return nil }
        guard let key = settings.httpsKey else {
            throw SettingsError.missing(key: "https-key", expected: "path of a PEM key")
        }
        let watch = try CertificateWatch(
            .https(certificate: certificate, key: key), logger: runtime.logger)
        runtime.reload.whenRaised { watch.look(isForced: true) }
        return watch
    }

    private static func speaker(_ settings: GatewaySettings, path: String?) throws -> Speaker {
        switch settings.engine {
        case .simulated:
            return Speaker(tokenizer: ByteTokenizer(), vocabulary: VocabularyID(digest: []))
        case .llama:
            guard let path else {
                throw SettingsError.missing(key: "model", expected: "path of a GGUF file")
            }
            let tokenizer = try LlamaTokenizer(modelPath: path, modelName: settings.modelName)
            return Speaker(
                tokenizer: tokenizer,
                vocabulary: VocabularyID(digest: tokenizer.vocabularyDigest))
        }
    }
}
