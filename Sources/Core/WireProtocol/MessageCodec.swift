import CProtobufC
import CWireMessages
package import ServingTypes

/// Control messages to protobuf bytes and back.
package enum MessageCodec {
    /// The message's bytes; throws if a value is beyond its limit.
    package static func encode(_ message: ControlMessage) throws(WireError) -> [UInt8] {
        try encode(message, precededBy: 0)
    }

    /// Reads the bytes of one message and checks every field.
    ///
    /// Fields that this version does not know are ignored.
    package static func decode(
        _ kind: MessageKind, _ bytes: UnsafeRawBufferPointer
    ) throws(WireError) -> ControlMessage {
        guard bytes.count <= kind.maximumControlBytes else {
            throw .controlTooLong(
                kind, bytes: bytes.count, limitBytes: kind.maximumControlBytes)
        }
        let reader = unsafe Reader(
            kind: kind, bytes: bytes,
            arena: MessageArena(
                limitBytes: WireLimits.arenaBytes(kind), firstChunkBytes: 512 + 4 * bytes.count))
        return switch kind {
        case .hello, .refusal, .ping, .pong: try unsafe connection(reader)
        case .register, .heartbeat, .deregister, .subscribe, .groupView, .healthReport,
            .groupViewChange, .assign, .clusterRules, .trafficReport:
            try unsafe membership(reader)
        case .clusterStatusRequest, .clusterStatus, .adminRequest, .adminReply:
            try unsafe administration(reader)
        case .reserveKV, .reservationGranted, .reservationRefused, .prefillOffer,
            .prefillAccepted, .prefillRejected, .slotsOpen, .kvRoomOpen, .tokenBatch,
            .requestFailed, .cancelRequest, .placeKV:
            try unsafe request(reader)
        case .moveWanted, .holdSequence, .sequenceHeld, .kvDelivered: try unsafe move(reader)
        case .canary, .canaryDone, .exit: try unsafe probe(reader)
        case .kvOffer, .kvGrant, .kvChunk, .kvEnd, .kvDone, .kvAbort, .kvMemory, .kvCredit,
            .kvResend:
            try unsafe transfer(reader)
        }
    }

    /// Unpacks the bytes of one message into its arena.
    @unsafe private struct Reader {
        let kind: MessageKind
        let bytes: UnsafeRawBufferPointer
        let arena: MessageArena

        /// - Parameter unpack: the generated function of the form's C struct.
        func form<Form: WireForm>(
            _ unpack: (
                UnsafeMutablePointer<ProtobufCAllocator>?, Int, UnsafePointer<UInt8>?
            ) -> UnsafeMutablePointer<Form.Wire>?
        ) throws(WireError) -> Form {
            let (kind, arena) = unsafe (self.kind, self.arena)
            let start = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
            return try unsafe arena.withAllocator { (allocator) throws(WireError) in
                guard let wire = unsafe unpack(allocator, bytes.count, start) else {
                    guard arena.isExhausted else { throw .malformed(kind) }
                    throw .needsTooMuchMemory(limitBytes: arena.limitBytes)
                }
                return try unsafe Form(wire: wire.pointee)
            }
        }
    }

    private static func connection(_ reader: Reader) throws(WireError) -> ControlMessage {
        switch unsafe reader.kind {
        case .hello: .hello(try unsafe reader.form(pdserve__wire__hello__unpack))
        case .refusal: .refusal(try unsafe reader.form(pdserve__wire__refusal__unpack))
        case .ping: .ping(try unsafe reader.form(pdserve__wire__ping__unpack))
        case .pong: .pong(try unsafe reader.form(pdserve__wire__pong__unpack))
        default: preconditionFailure("not a message of the connection")
        }
    }

    private static func membership(_ reader: Reader) throws(WireError) -> ControlMessage {
        switch unsafe reader.kind {
        case .register: .register(try unsafe reader.form(pdserve__wire__register__unpack))
        case .heartbeat: .heartbeat(try unsafe reader.form(pdserve__wire__heartbeat__unpack))
        case .deregister: .deregister(try unsafe reader.form(pdserve__wire__deregister__unpack))
        case .subscribe: .subscribe(try unsafe reader.form(pdserve__wire__subscribe__unpack))
        case .groupView: .groupView(try unsafe reader.form(pdserve__wire__group_view__unpack))
        case .healthReport:
            .healthReport(try unsafe reader.form(pdserve__wire__health_report__unpack))
        case .groupViewChange:
            .groupViewChange(try unsafe reader.form(pdserve__wire__group_view_change__unpack))
        case .assign: .assign(try unsafe reader.form(pdserve__wire__assign__unpack))
        case .clusterRules:
            .clusterRules(try unsafe reader.form(pdserve__wire__cluster_rules__unpack))
        case .trafficReport:
            .trafficReport(try unsafe reader.form(pdserve__wire__traffic_report__unpack))
        default: preconditionFailure("not a message of membership")
        }
    }

    private static func administration(_ reader: Reader) throws(WireError) -> ControlMessage {
        switch unsafe reader.kind {
        case .clusterStatusRequest:
            .clusterStatusRequest(
                try unsafe reader.form(pdserve__wire__cluster_status_request__unpack))
        case .clusterStatus:
            .clusterStatus(try unsafe reader.form(pdserve__wire__cluster_status__unpack))
        case .adminRequest:
            .adminRequest(try unsafe reader.form(pdserve__wire__admin_request__unpack))
        case .adminReply:
            .adminReply(try unsafe reader.form(pdserve__wire__admin_reply__unpack))
        default: preconditionFailure("not a message of administration")
        }
    }

    private static func request(_ reader: Reader) throws(WireError) -> ControlMessage {
        switch unsafe reader.kind {
        case .reserveKV: .reserveKV(try unsafe reader.form(pdserve__wire__reserve_kv__unpack))
        case .reservationGranted:
            .reservationGranted(
                try unsafe reader.form(pdserve__wire__reservation_granted__unpack))
        case .reservationRefused:
            .reservationRefused(
                try unsafe reader.form(pdserve__wire__reservation_refused__unpack))
        case .prefillOffer:
            .prefillOffer(try unsafe reader.form(pdserve__wire__prefill_offer__unpack))
        case .prefillAccepted:
            .prefillAccepted(try unsafe reader.form(pdserve__wire__prefill_accepted__unpack))
        case .prefillRejected:
            .prefillRejected(try unsafe reader.form(pdserve__wire__prefill_rejected__unpack))
        case .slotsOpen: .slotsOpen(try unsafe reader.form(pdserve__wire__slots_open__unpack))
        case .kvRoomOpen: .kvRoomOpen(try unsafe reader.form(pdserve__wire__kvroom_open__unpack))
        case .tokenBatch: .tokenBatch(try unsafe reader.form(pdserve__wire__token_batch__unpack))
        case .requestFailed:
            .requestFailed(try unsafe reader.form(pdserve__wire__request_failed__unpack))
        case .cancelRequest:
            .cancelRequest(try unsafe reader.form(pdserve__wire__cancel_request__unpack))
        case .placeKV: .placeKV(try unsafe reader.form(pdserve__wire__place_kv__unpack))
        default: preconditionFailure("not a message of a request")
        }
    }

    private static func move(_ reader: Reader) throws(WireError) -> ControlMessage {
        switch unsafe reader.kind {
        case .moveWanted:
            .moveWanted(try unsafe reader.form(pdserve__wire__move_wanted__unpack))
        case .holdSequence:
            .holdSequence(try unsafe reader.form(pdserve__wire__hold_sequence__unpack))
        case .sequenceHeld:
            .sequenceHeld(try unsafe reader.form(pdserve__wire__sequence_held__unpack))
        case .kvDelivered:
            .kvDelivered(try unsafe reader.form(pdserve__wire__kvdelivered__unpack))
        default: preconditionFailure("not a message of a move")
        }
    }

    private static func probe(_ reader: Reader) throws(WireError) -> ControlMessage {
        switch unsafe reader.kind {
        case .canary: .canary(try unsafe reader.form(pdserve__wire__canary__unpack))
        case .canaryDone:
            .canaryDone(try unsafe reader.form(pdserve__wire__canary_done__unpack))
        case .exit: .exit(try unsafe reader.form(pdserve__wire__exit__unpack))
        default: preconditionFailure("not a message of a probe")
        }
    }

    private static func transfer(_ reader: Reader) throws(WireError) -> ControlMessage {
        switch unsafe reader.kind {
        case .kvOffer: .kvOffer(try unsafe reader.form(pdserve__wire__kvoffer__unpack))
        case .kvGrant: .kvGrant(try unsafe reader.form(pdserve__wire__kvgrant__unpack))
        case .kvChunk: .kvChunk(try unsafe reader.form(pdserve__wire__kvchunk__unpack))
        case .kvEnd: .kvEnd(try unsafe reader.form(pdserve__wire__kvend__unpack))
        case .kvDone: .kvDone(try unsafe reader.form(pdserve__wire__kvdone__unpack))
        case .kvAbort: .kvAbort(try unsafe reader.form(pdserve__wire__kvabort__unpack))
        case .kvMemory: .kvMemory(try unsafe reader.form(pdserve__wire__kvmemory_chunk__unpack))
        case .kvCredit: .kvCredit(try unsafe reader.form(pdserve__wire__kvcredit__unpack))
        case .kvResend: .kvResend(try unsafe reader.form(pdserve__wire__kvresend__unpack))
        default: preconditionFailure("not a message of a transfer")
        }
    }
}
