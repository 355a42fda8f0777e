internal import Logging
internal import ServingTypes
internal import WireProtocol

/// Several addresses of which one leads.
///
/// Those who stand by don't listen, so whoever greets leads, or did until a moment ago. A peer that
/// hangs still has its connections, and the system goes on accepting new ones for it: it is known
/// by its silence alone. So a silent peer is asked for a sign of life, and if it gives none, the
/// others are tried beside it. Nothing is lost by that when it was only slow: then nobody else
/// listens.
extension ControlClient {
    private struct Reached: Sendable {
        var address: NetworkAddress
        var session: ControlSession
    }

    private enum Event: Sendable {
        case ended((any Error)?)
        /// Another one leads; nil: the search was cancelled.
        case found(Reached?)
    }

    func followLeader(
        _ onSession: @escaping @Sendable (ControlSession) async throws -> Void
    ) async {
        let problems = ConnectionProblems()
        var backoff = Backoff()
        var next: Reached?
        while !Task.isCancelled {
            var present = next
            if present == nil { present = await reach(addresses, problems) }
            guard let reached = present else { return }
            let start = ContinuousClock.now
            next = await follow(reached, problems, onSession)
            if ContinuousClock.now - start >= TransportLimits.steadySession {
                backoff = Backoff()
                problems.forget()
            }
            guard next == nil else { continue }
            try? await Task.sleep(for: backoff.next(afterPermanentRefusal: false))
        }
        next?.session.close()
    }

    /// Runs the closure for a session until that ends, or another one leads.
    private func follow(
        _ reached: Reached, _ problems: ConnectionProblems,
        _ onSession: @escaping @Sendable (ControlSession) async throws -> Void
    ) async -> Reached? {
        let session = reached.session
        return await withTaskGroup(of: Event.self) { group in
            group.addTask {
                do {
                    try await onSession(session)
                    return .ended(nil)
                } catch { return .ended(error) }
            }
            group.addTask { .found(await self.another(than: reached, problems)) }
            var next: Reached?
            for await event in group {
                group.cancelAll()
                switch event {
                case .ended(let error?) where !(error is CancellationError):
                    logger.info(
                        "Control session ended", metadata: metadata(error, reached.address))
                case .ended: break
                case .found(let other): next = other
                }
            }
            if let next {
                logger.notice(
                    "the peer is silent, and another one leads",
                    metadata: ["silent": "\(reached.address)", "leader": "\(next.address)"])
                // What hangs closes nothing; it is not waited for.
                session.close()
            } else {
                await session.finish()
            }
            return next
        }
    }

    /// Waits until a peer is silent and another one greets; nil when cancelled.
    private func another(
        than reached: Reached, _ problems: ConnectionProblems
    ) async -> Reached? {
        let others = addresses.filter { $0 != reached.address }
        while !Task.isCancelled {
            try? await Task.sleep(for: TransportLimits.silenceLook)
            let silence = await reached.session.silence()
            guard silence >= TransportLimits.silenceAsked else { continue }
            if silence < TransportLimits.silenceDoubted {
                // It answers at once if it can.
                try? reached.session.send(.ping(Ping(number: 0)))
            } else if let found = await reach(others, problems, while: reached.session) {
                return found
            }
        }
        return nil
    }

    /// Tries all addresses until one greets.
    ///
    /// - Parameter silent: ends the search when it is heard again.
    /// - Returns: nil when it was cancelled, or ended.
    private func reach(
        _ addresses: [NetworkAddress], _ problems: ConnectionProblems,
        while silent: ControlSession? = nil
    ) async -> Reached? {
        await withTaskGroup(of: Reached?.self) { group in
            for address in addresses {
                group.addTask { await self.keepTrying(address, problems) }
            }
            if let silent {
                group.addTask {
                    while !Task.isCancelled,
                        await silent.silence() >= TransportLimits.silenceDoubted
                    {
                        try? await Task.sleep(for: TransportLimits.silenceLook)
                    }
                    return nil
                }
            }
            var first: Reached?
            for await reached in group {
                group.cancelAll()
                if first == nil {
                    first = reached
                } else {
                    reached?.session.close()
                }
            }
            return first
        }
    }

    private func keepTrying(
        _ address: NetworkAddress, _ problems: ConnectionProblems
    ) async -> Reached? {
        var backoff = Backoff()
        backoff.bound = TransportLimits.longestBackoffOfSeveral
        while !Task.isCancelled {
            do {
                return Reached(address: address, session: try await connect(to: address))
            } catch let problem as TransportError {
                let pause = backoff.next(afterPermanentRefusal: problem.isPermanent)
                report(problem, at: address, isNew: problems.note(problem, at: address), pause)
                try? await Task.sleep(for: pause)
            } catch { return nil }
        }
        return nil
    }
}
