import Foundation
import InferenceEngine
import KVHandOver
import KVTransfer
import Logging
import Roles
import ServiceRuntime
import ServingTypes
import SharedMemory
import Synchronization
import Transport
import Waiting

/// Taking KV in: what the threads of inbound connections ask and say.
extension WorkerService {
    /// Serves one inbound connection on the calling thread until it ends.
    func serveKV(_ connection: BulkConnection, logger: Logger) throws(KVTransferError) {
        let token = expectLocal()
        let inbound = state.withLock { state in
            state.links += 1
            let inbound = KVInbound(
                link: KVLinkID(state.links), connection: connection, localToken: token)
            state.inbound[inbound.link] = inbound
            return inbound
        }
        defer {
            if let token { local?.forget(token) }
            inbound.stop()
            state.withLock { state in
                state.inbound[inbound.link] = nil
                let actions = state.machine.kvLinkLost(
                    inbound.link, now: ProcessClock.now())
                for action in actions { perform(action, &state) }
            }
        }
        var receiver = try KVReceiver(service: self, inbound: inbound, logger: logger)
        do {
            try startThread("kv-answer") { inbound.answer() }
        } catch {
            // The sender hears of the connection's end, rather than nothing.
            return logger.error("no KV can be taken", metadata: ["reason": "\(error)"])
        }
        receiver.run()
    }

    /// A token for the local socket; nil if it can take no more.
    private func expectLocal() -> LocalToken? {
        guard let local else { return nil }
        let token = LocalToken.random()
        do throws(LocalTransferError) {
            try local.expect(token)
            return token
        } catch {
            logger.debug("no memory is taken over", metadata: ["reason": "\(error)"])
            return nil
        }
    }

    /// The local socket on which the sender of this connection passes memory.
    func takeLocalConnection(_ inbound: KVInbound, deadline: Duration) -> LocalConnection? {
        guard let token = inbound.localToken else { return nil }
        return local?.take(token, deadline: deadline)
    }

    func post(_ message: ControlMessage, to link: KVLinkID, _ state: inout State) {
        guard let inbound = state.inbound[link] else { return }
        guard case .kvGrant(var grant) = message, let local, let token = inbound.localToken else {
            return inbound.post(message)
        }
        grant.local = LocalCarrier(path: local.path, token: token.bytes)
        inbound.post(.kvGrant(grant))
    }

    func kvBuffer(bytes: Int) -> KVBuffer { buffers.buffer(capacityBytes: bytes) }

    func kvOffered(_ offer: KVOffer, _ inbound: KVInbound) {
        handle {
            $0.kvOffered(
                offer, from: inbound.connection.peer.instance,
                fingerprint: description.fingerprint, on: inbound.link, now: ProcessClock.now())
        }
    }

    /// Whether the payload of the chunk is to be kept.
    func kvBegins(_ chunk: ChunkFacts, of attempt: AttemptID, _ inbound: KVInbound) -> Bool {
        state.withLock { state in
            let (isWanted, actions) = state.machine.kvBegins(
                chunk, of: attempt, from: inbound.connection.peer.instance, on: inbound.link,
                now: ProcessClock.now())
            for action in actions { perform(action, &state) }
            return isWanted
        }
    }

    func kvProgressed(_ attempt: AttemptID) {
        state.withLock { $0.machine.kvProgressed(attempt, now: ProcessClock.now()) }
    }

    func kvLanded(
        _ chunk: ChunkFacts, of attempt: AttemptID, _ buffer: KVBuffer, _ inbound: KVInbound
    ) {
        let block = KVBlock(
            tokenStart: chunk.tokenStart, tokenCount: chunk.tokenCount, bytes: buffer,
            checksum: chunk.checksum)
        state.withLock { state in
            let (isKept, actions) = state.machine.kvLanded(
                chunk, of: attempt, on: inbound.link, now: ProcessClock.now())
            if isKept { state.landed[attempt, default: [:]][chunk.tokenStart] = block }
            for action in actions { perform(action, &state) }
        }
    }

    func kvMissed(
        _ chunk: ChunkFacts, of attempt: AttemptID, _ inbound: KVInbound, isDamaged: Bool,
        reason: String
    ) {
        handle {
            $0.kvMissed(
                chunk, of: attempt, on: inbound.link, isDamaged: isDamaged, reason: reason,
                now: ProcessClock.now())
        }
    }

    func kvEnded(_ end: KVEnd, _ inbound: KVInbound) {
        handle {
            $0.kvEnded(
                end, from: inbound.connection.peer.instance, on: inbound.link,
                now: ProcessClock.now())
        }
    }

    func kvAborted(_ attempt: AttemptID, _ inbound: KVInbound) {
        handle { $0.kvAborted(attempt, by: inbound.connection.peer.instance) }
    }
}
