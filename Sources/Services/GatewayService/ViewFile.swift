import Foundation
package import Logging
import Roles
import ServiceRuntime
package import ServingTypes
import WireProtocol

/// The last view and the rules, in a file that the gateways of a host share.
///
/// A gateway that starts while no scheduler can be reached serves by it. It holds frames of the
/// wire protocol: the rules, then the view's pages.
package struct ViewFile: Sendable {
    package struct Content: Sendable, Hashable {
        package var view: GroupView
        package var rules: ServingTypes.ClusterRules?

        package init(view: GroupView, rules: ServingTypes.ClusterRules?) {
            self.view = view
            self.rules = rules
        }
    }

    /// Between two looks whether something has changed.
    static let interval: Duration = .seconds(2)
    /// Longest file that is read.
    static let maximumBytes = 256 << 20

    private let url: URL
    private let logger: Logger
    private var written: Content?
    /// When writing failed last; it is tried again after a pause.
    private var failure: MonotonicTime?
    /// Pause after a failure, for example for want of room.
    static let retryPause: Duration = .seconds(5)

    package init(folder: String, cluster: String, logger: Logger) {
        url = URL(fileURLWithPath: folder).appending(path: "\(cluster).view")
        self.logger = logger
    }

    /// Writes what differs in more than readings; the file changes as a whole.
    package mutating func keep(_ content: Content) {
        var stripped = content
        stripped.view.version = 0
        for index in stripped.view.members.indices {
            stripped.view.members[index].status = InstanceStatus()
        }
        guard stripped != written else { return }
        if let failure, ProcessClock.now() - failure < Self.retryPause { return }
        do {
            try write(content)
            written = stripped
            if failure != nil {
                logger.notice("the view is kept again", metadata: ["file": "\(url.path)"])
            }
            failure = nil
        } catch {
            if failure == nil {
                logger.error(
                    "the view can't be kept; who starts without a scheduler finds an older one",
                    metadata: ["file": "\(url.path)", "reason": "\(error.localizedDescription)"])
            }
            failure = ProcessClock.now()
            GatewayMetrics.countViewFailure()
        }
    }

    private func write(_ content: Content) throws {
        var bytes: [UInt8] = []
        if let rules = content.rules { bytes += try encodeFrame(.clusterRules(rules)) }
        for page in content.view.pages() { bytes += try encodeFrame(.groupView(page)) }
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(bytes).write(to: url, options: .atomic)
    }

    /// What was kept last; nil if there is nothing, or nothing that can be read.
    ///
    /// Its epoch is older than that of any scheduler.
    package func read() -> Content? {
        guard let attributes = try? FileManager.default.attributesOfItem(atPath: url.path),
            let size = attributes[.size] as? NSNumber
        else { return nil }
        do {
            guard size.intValue <= Self.maximumBytes else { throw Damage() }
            let content = try parse(Array(Data(contentsOf: url)))
            let age = (attributes[.modificationDate] as? Date).map { -$0.timeIntervalSinceNow }
            logger.notice(
                "the view of an earlier gateway serves until a scheduler sends its own",
                metadata: [
                    "file": "\(url.path)", "members": "\(content.view.members.count)",
                    "seconds": "\(Int(age ?? 0))",
                ])
            return content
        } catch {
            logger.warning(
                "the view that was kept can't be read",
                metadata: ["file": "\(url.path)", "reason": "\(error)"])
            return nil
        }
    }

    private func parse(_ bytes: [UInt8]) throws -> Content {
        var parser = FrameParser(allowedKinds: [.clusterRules, .groupView])
        parser.append(bytes)
        var reader = ViewReader()
        var rules: ServingTypes.ClusterRules?
        while let frame = try parser.next() {
            switch frame.message {
            case .clusterRules(let message): rules = message
            case .groupView(let page): _ = reader.received(page)
            default: continue
            }
        }
        guard parser.isAtFrameBoundary, var view = reader.view else {
            throw Damage()
        }
        view.epoch = 0
        view.version = 1
        return Content(view: view, rules: rules)
    }
}

/// A file that holds no whole view.
private struct Damage: Error, CustomStringConvertible {
    var description: String { "it does not hold a whole view" }
}
