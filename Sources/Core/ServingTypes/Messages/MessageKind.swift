/// Number of a message's kind in the frame header; never reused.
package enum MessageKind: UInt8, Sendable, CaseIterable {
    case hello = 1
    case refusal = 2
    case ping = 3
    case pong = 4

    case register = 16
    case heartbeat = 17
    case deregister = 18
    case subscribe = 19
    case groupView = 20
    case healthReport = 21
    case clusterStatusRequest = 22
    case clusterStatus = 23
    case groupViewChange = 24
    case assign = 25
    case clusterRules = 26
    case trafficReport = 27
    case adminRequest = 28
    case adminReply = 29

    case reserveKV = 32
    case reservationGranted = 33
    case reservationRefused = 34
    case prefillOffer = 35
    case prefillAccepted = 36
    case prefillRejected = 37
    case slotsOpen = 38
    case kvRoomOpen = 39
    case tokenBatch = 40
    case requestFailed = 41
    case cancelRequest = 42
    case placeKV = 43
    case moveWanted = 44
    case holdSequence = 45
    case sequenceHeld = 46
    case kvDelivered = 47

    case canary = 48
    case canaryDone = 49
    case exit = 50

    case kvOffer = 64
    case kvGrant = 65
    case kvChunk = 66
    case kvEnd = 67
    case kvDone = 68
    case kvAbort = 69
    case kvMemory = 70
    case kvCredit = 71
    case kvResend = 72

    /// Whether it travels on bulk connections; all others travel on control connections.
    ///
    /// `hello` and `refusal` open and close both.
    package var isBulk: Bool { rawValue >= 64 }

    /// Whether a frame of this kind carries a payload.
    package var carriesPayload: Bool {
        self == .reserveKV || self == .prefillOffer || self == .kvChunk
    }

    /// Largest control message of this kind in bytes.
    package var maximumControlBytes: Int {
        switch self {
        case .groupView, .groupViewChange, .clusterStatus, .clusterRules: 1 << 20
        case .adminReply: 64 << 10
        case .healthReport: 512 << 10
        case .trafficReport, .tokenBatch, .reserveKV, .prefillOffer, .kvEnd:
            256 << 10
        default: 4 << 10
        }
    }

    /// Largest payload of a frame of this kind in bytes.
    package var maximumPayloadBytes: Int {
        switch self {
        // 4 bytes a token: 1 Mi tokens of context.
        case .reserveKV, .prefillOffer: 4 << 20
        case .kvChunk: 1 << 30
        default: 0
        }
    }

    /// Whether a peer whose certificate names `role` may send it.
    package func isAllowed(from role: Role) -> Bool {
        switch self {
        case .hello, .refusal, .ping, .pong: true
        case .register, .heartbeat, .deregister: role.isWorker
        case .subscribe: role != .scheduler
        case .groupView, .groupViewChange, .clusterStatus, .assign, .clusterRules, .adminReply:
            role == .scheduler
        case .healthReport, .canary, .exit: role == .healthAgent
        case .trafficReport: role == .gateway
        case .clusterStatusRequest, .adminRequest: role == .administrator
        case .reserveKV, .prefillOffer, .placeKV, .cancelRequest, .holdSequence:
            role == .gateway
        // A worker's role in the cluster changes while it lives; its certificate does not.
        case .reservationGranted, .reservationRefused, .kvRoomOpen, .prefillAccepted,
            .prefillRejected, .slotsOpen, .tokenBatch, .requestFailed, .moveWanted, .sequenceHeld,
            .kvDelivered, .kvOffer, .kvChunk, .kvMemory, .kvEnd, .kvAbort, .kvGrant, .kvCredit,
            .kvResend, .kvDone, .canaryDone:
            role.isWorker
        }
    }
}
