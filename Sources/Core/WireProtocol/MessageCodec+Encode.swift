import CProtobufC
import ServingTypes

extension MessageCodec {
    /// The message's bytes after `headerBytes` zero bytes for the caller's header.
    static func encode(
        _ message: ControlMessage, precededBy headerBytes: Int
    ) throws(WireError) -> [UInt8] {
        let writer = Writer(kind: message.kind, headerBytes: headerBytes)
        return switch message {
        case .hello(let form): try unsafe writer.bytes(form)
        case .refusal(let form): try unsafe writer.bytes(form)
        case .ping(let form): try unsafe writer.bytes(form)
        case .pong(let form): try unsafe writer.bytes(form)
        case .register(let form): try unsafe writer.bytes(form)
        case .heartbeat(let form): try unsafe writer.bytes(form)
        case .deregister(let form): try unsafe writer.bytes(form)
        case .subscribe(let form): try unsafe writer.bytes(form)
        case .groupView(let form): try unsafe writer.bytes(form)
        case .healthReport(let form): try unsafe writer.bytes(form)
        case .clusterStatusRequest(let form): try unsafe writer.bytes(form)
        case .clusterStatus(let form): try unsafe writer.bytes(form)
        case .groupViewChange(let form): try unsafe writer.bytes(form)
        case .assign(let form): try unsafe writer.bytes(form)
        case .clusterRules(let form): try unsafe writer.bytes(form)
        case .trafficReport(let form): try unsafe writer.bytes(form)
        case .adminRequest(let form): try unsafe writer.bytes(form)
        case .adminReply(let form): try unsafe writer.bytes(form)
        case .reserveKV(let form): try unsafe writer.bytes(form)
        case .reservationGranted(let form): try unsafe writer.bytes(form)
        case .reservationRefused(let form): try unsafe writer.bytes(form)
        case .prefillOffer(let form): try unsafe writer.bytes(form)
        case .prefillAccepted(let form): try unsafe writer.bytes(form)
        case .prefillRejected(let form): try unsafe writer.bytes(form)
        case .slotsOpen(let form): try unsafe writer.bytes(form)
        case .kvRoomOpen(let form): try unsafe writer.bytes(form)
        case .tokenBatch(let form): try unsafe writer.bytes(form)
        case .requestFailed(let form): try unsafe writer.bytes(form)
        case .cancelRequest(let form): try unsafe writer.bytes(form)
        case .placeKV(let form): try unsafe writer.bytes(form)
        case .moveWanted(let form): try unsafe writer.bytes(form)
        case .holdSequence(let form): try unsafe writer.bytes(form)
        case .sequenceHeld(let form): try unsafe writer.bytes(form)
        case .kvDelivered(let form): try unsafe writer.bytes(form)
        case .canary(let form): try unsafe writer.bytes(form)
        case .canaryDone(let form): try unsafe writer.bytes(form)
        case .exit(let form): try unsafe writer.bytes(form)
        case .kvOffer(let form): try unsafe writer.bytes(form)
        case .kvGrant(let form): try unsafe writer.bytes(form)
        case .kvChunk(let form): try unsafe writer.bytes(form)
        case .kvEnd(let form): try unsafe writer.bytes(form)
        case .kvDone(let form): try unsafe writer.bytes(form)
        case .kvAbort(let form): try unsafe writer.bytes(form)
        case .kvMemory(let form): try unsafe writer.bytes(form)
        case .kvCredit(let form): try unsafe writer.bytes(form)
        case .kvResend(let form): try unsafe writer.bytes(form)
        }
    }

    private struct Writer {
        let kind: MessageKind
        let headerBytes: Int

        func bytes<Form: WireForm>(_ form: Form) throws(WireError) -> [UInt8] {
            let arena = MessageArena(
                limitBytes: WireLimits.arenaBytes(kind), firstChunkBytes: 1 << 10)
            defer { withExtendedLifetime(arena) {} }
            // Every generated struct begins with its ProtobufCMessage.
            let message = try unsafe UnsafeRawPointer(arena.writeForm(form))
                .assumingMemoryBound(to: ProtobufCMessage.self)
            let count = unsafe protobuf_c_message_get_packed_size(message)
            guard count <= kind.maximumControlBytes else {
                throw .controlTooLong(kind, bytes: count, limitBytes: kind.maximumControlBytes)
            }
            let total = headerBytes + count
            return unsafe [UInt8](unsafeUninitializedCapacity: total) { bytes, initialized in
                unsafe bytes[..<headerBytes].initialize(repeating: 0)
                let start = unsafe bytes.baseAddress.map { unsafe $0 + headerBytes }
                let written = unsafe count == 0 ? 0 : protobuf_c_message_pack(message, start)
                precondition(written == count, "a message changed while it was packed")
                initialized = total
            }
        }
    }
}
