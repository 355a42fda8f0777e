/// Any message two processes exchange; the number of its kind is in the frame header.
package enum ControlMessage: Hashable, Sendable {
    case hello(Hello)
    case refusal(Refusal)
    case ping(Ping)
    case pong(Pong)

    case register(Register)
    case heartbeat(Heartbeat)
    case deregister(Deregister)
    case subscribe(Subscribe)
    case groupView(GroupView)
    case healthReport(HealthReport)
    case clusterStatusRequest(ClusterStatusRequest)
    case clusterStatus(ClusterStatus)
    case groupViewChange(GroupViewChange)
    case assign(Assign)
    case clusterRules(ClusterRules)
    case trafficReport(TrafficReport)
    case adminRequest(AdminRequest)
    case adminReply(AdminReply)

    case reserveKV(ReserveKV)
    case reservationGranted(ReservationGranted)
    case reservationRefused(ReservationRefused)
    case prefillOffer(PrefillOffer)
    case prefillAccepted(PrefillAccepted)
    case prefillRejected(PrefillRejected)
    case slotsOpen(SlotsOpen)
    case kvRoomOpen(KVRoomOpen)
    case tokenBatch(TokenBatch)
    case requestFailed(RequestFailed)
    case cancelRequest(CancelRequest)
    case placeKV(PlaceKV)
    case moveWanted(MoveWanted)
    case holdSequence(HoldSequence)
    case sequenceHeld(SequenceHeld)
    case kvDelivered(KVDelivered)

    case canary(Canary)
    case canaryDone(CanaryDone)
    case exit(Exit)

    case kvOffer(KVOffer)
    case kvGrant(KVGrant)
    case kvChunk(KVChunk)
    case kvEnd(KVEnd)
    case kvDone(KVDone)
    case kvAbort(KVAbort)
    case kvMemory(KVMemoryChunk)
    case kvCredit(KVCredit)
    case kvResend(KVResend)

    package var kind: MessageKind {
        switch self {
        case .hello: .hello
        case .refusal: .refusal
        case .ping: .ping
        case .pong: .pong
        case .register: .register
        case .heartbeat: .heartbeat
        case .deregister: .deregister
        case .subscribe: .subscribe
        case .groupView: .groupView
        case .healthReport: .healthReport
        case .clusterStatusRequest: .clusterStatusRequest
        case .clusterStatus: .clusterStatus
        case .groupViewChange: .groupViewChange
        case .assign: .assign
        case .clusterRules: .clusterRules
        case .trafficReport: .trafficReport
        case .adminRequest: .adminRequest
        case .adminReply: .adminReply
        case .reserveKV: .reserveKV
        case .reservationGranted: .reservationGranted
        case .reservationRefused: .reservationRefused
        case .prefillOffer: .prefillOffer
        case .prefillAccepted: .prefillAccepted
        case .prefillRejected: .prefillRejected
        case .slotsOpen: .slotsOpen
        case .kvRoomOpen: .kvRoomOpen
        case .tokenBatch: .tokenBatch
        case .requestFailed: .requestFailed
        case .cancelRequest: .cancelRequest
        case .placeKV: .placeKV
        case .moveWanted: .moveWanted
        case .holdSequence: .holdSequence
        case .sequenceHeld: .sequenceHeld
        case .kvDelivered: .kvDelivered
        case .canary: .canary
        case .canaryDone: .canaryDone
        case .exit: .exit
        case .kvOffer: .kvOffer
        case .kvGrant: .kvGrant
        case .kvChunk: .kvChunk
        case .kvEnd: .kvEnd
        case .kvDone: .kvDone
        case .kvAbort: .kvAbort
        case .kvMemory: .kvMemory
        case .kvCredit: .kvCredit
        case .kvResend: .kvResend
        }
    }
}
