import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOSSL
import Synchronization

/// Calls of etcd's JSON gateway, to one member after another until one answers.
final class EtcdCalls: Sendable {
    /// What all messages name.
    let place: String
    private let endpoints: [String]
    private let client: HTTPClient
    private let current = Mutex(0)

    init(endpoints: [String], options: EtcdStore.Options) throws(StoreError) {
        self.endpoints = endpoints
        place = "etcd at " + endpoints.joined(separator: ", ")
        var configuration = HTTPClient.Configuration()
        configuration.timeout.connect = .milliseconds(
            Int64(options.lease.milliseconds / 4))
        // Redirects lead away from the certificates.
        configuration.redirectConfiguration = .disallow
        if endpoints.contains(where: { $0.hasPrefix("https://") }) {
            configuration.tlsConfiguration = try Self.tls(options)
        }
        client = HTTPClient(
            eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    deinit { client.shutdown { _ in } }

    private static func tls(_ options: EtcdStore.Options) throws(StoreError) -> TLSConfiguration {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        do {
            if let authority = options.authority {
                tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(authority))
            }
            if let certificate = options.certificate {
                tls.certificateChain = try NIOSSLCertificate.fromPEMFile(certificate)
                    .map { .certificate($0) }
                tls.privateKey = .privateKey(
                    try NIOSSLPrivateKey(file: options.key ?? certificate, format: .pem))
            }
        } catch {
            throw .wrongSetting(
                "the TLS files for the store can't be used: \(error); look at --store-ca, "
                    + "--store-certificate and --store-key")
        }
        return tls
    }

    /// - Parameter deadline: for all members together.
    func call<Answer: Decodable & Sendable>(
        _ path: String, _ body: some Encodable, within deadline: Duration,
        giving: Answer.Type = Answer.self
    ) async throws(StoreError) -> Answer {
        let bytes = try encode(body)
        let end = ContinuousClock.now + deadline
        var problem = "no member answered"
        for _ in endpoints {
            let left = end - .now
            guard left > .zero, !Task.isCancelled else { break }
            do {
                return try await once(path, bytes, within: left)
            } catch StoreError.unavailable(_, let reason) {
                problem = reason
                next()
            } catch let error as StoreError {
                throw error
            } catch {
                problem = words(for: error)
                next()
            }
        }
        throw .unavailable(place: place, reason: problem)
    }

    /// What people can do about a connection that fails.
    ///
    /// Whether certificates are right is often heard only after the handshake: the member then
    /// closes the connection with an alert, or without a word.
    private func words(for error: any Error) -> String {
        let text = "\(error)"
        let signs = ["certificate", "handshake", "ssl", "tls", "remoteConnectionClosed"]
        guard endpoint.hasPrefix("https://"),
            signs.contains(where: { text.range(of: $0, options: .caseInsensitive) != nil })
        else { return text }
        return "\(text): do --store-ca, --store-certificate and --store-key fit the member at "
            + "\(endpoint)?"
    }

    /// The member that is called.
    var endpoint: String { endpoints[current.withLock { $0 } % endpoints.count] }

    private func once<Answer: Decodable & Sendable>(
        _ path: String, _ body: ByteBuffer, within deadline: Duration
    ) async throws -> Answer {
        let response = try await client.execute(
            request(path, body), timeout: .milliseconds(Int64(max(1, deadline.milliseconds))))
        let buffer = try await response.body.collect(upTo: StoreLimits.answerBytes)
        let data = Data(buffer.readableBytesView)
        guard response.status == .ok else { throw problem(response.status, data) }
        do {
            return try JSONDecoder().decode(Answer.self, from: data)
        } catch {
            throw StoreError.failed(place: place, reason: "an answer can't be read: \(error)")
        }
    }

    private func problem(_ status: HTTPResponseStatus, _ data: Data) -> StoreError {
        let said = try? JSONDecoder().decode(EtcdProblem.self, from: data)
        let reason = said?.message ?? said?.error ?? "status \(status.code)"
        if reason.contains("database space exceeded") { return .full(place: place) }
        return status.code >= 500 || status == .requestTimeout || status == .tooManyRequests
            ? .unavailable(place: place, reason: reason) : .failed(place: place, reason: reason)
    }

    /// Returns when the key is deleted after the revision, when the watch ends, or in time.
    func watchDeletion(
        of key: String, after revision: Int64, within deadline: Duration
    ) async throws {
        let body = try encode(
            EtcdWatchRequest(
                create_request: .init(
                    key: Base64.text(key), start_revision: "\(revision + 1)")))
        let limit = TimeAmount.milliseconds(Int64(deadline.milliseconds))
        let response = try await client.execute(request("/v3/watch", body), timeout: limit)
        var line = Data()
        for try await chunk in response.body {
            line.append(contentsOf: chunk.readableBytesView)
            while let end = line.firstIndex(of: UInt8(ascii: "\n")) {
                let answer = try JSONDecoder().decode(
                    EtcdWatchAnswer.self, from: Data(line[line.startIndex..<end]))
                line = Data(line[(end + 1)...])
                if answer.result?.canceled == true { return }
                if answer.result?.events?.contains(where: { $0.type == "DELETE" }) == true {
                    return
                }
            }
            guard line.count <= StoreLimits.watchLineBytes else { return }
        }
    }

    private func request(_ path: String, _ body: ByteBuffer) -> HTTPClientRequest {
        var request = HTTPClientRequest(
            url: endpoint + path)
        request.method = .POST
        request.headers.add(name: "content-type", value: "application/json")
        request.body = .bytes(body)
        return request
    }

    private func encode(_ body: some Encodable) throws(StoreError) -> ByteBuffer {
        do {
            return ByteBuffer(bytes: try JSONEncoder().encode(body))
        } catch {
            throw .failed(place: place, reason: "a request can't be written: \(error)")
        }
    }

    /// The next call goes to another member.
    func next() { current.withLock { $0 += 1 } }
}

extension Duration {
    var milliseconds: Int {
        Int(components.seconds) * 1000
            + Int(components.attoseconds / 1_000_000_000_000_000)
    }
}
