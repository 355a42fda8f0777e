import Testing

@testable import Measurement

@Suite struct KVPeerTests {
    @Test func `a result is read with or without spaces`() throws {
        let expected = KVPeerLine(
            mebibytes: 64,
            observation: KVObservation(
                gigabytesPerSecond: 1.1, senderSecondsPerGigabyte: 0.6,
                receiverSecondsPerGigabyte: 0.3))
        let tight = #"{"mb":64,"GBps":1.1,"snd_cpu":0.6,"rcv_cpu":0.3}"#
        let loose = #"  { "GBps": 1.1, "mb": 64, "rcv_cpu": 0.3, "snd_cpu": 0.6, "more": 1 }"#
        #expect(try KVPeerLine.parse(tight) == expected)
        #expect(try KVPeerLine.parse(loose) == expected)
    }

    @Test(arguments: ["", "listening on port 15552", "I1121 09:17 tcp.cpp] {x", "[1]"])
    func `other lines are no results`(line: String) throws {
        #expect(try KVPeerLine.parse(line) == nil)
    }

    @Test(arguments: [
        "{", "{}", #"{"mb":1,"GBps":1.1,"snd_cpu":0.6}"#,
        #"{"mb":"1","GBps":1.1,"snd_cpu":0.6,"rcv_cpu":0.3}"#,
        #"{"mb":1.5,"GBps":1.1,"snd_cpu":0.6,"rcv_cpu":0.3}"#,
        #"{"mb":0,"GBps":1.1,"snd_cpu":0.6,"rcv_cpu":0.3}"#,
        #"{"mb":1,"GBps":0,"snd_cpu":0.6,"rcv_cpu":0.3}"#,
        #"{"mb":1,"GBps":-2,"snd_cpu":0.6,"rcv_cpu":0.3}"#,
        #"{"mb":1,"GBps":1.1,"snd_cpu":-0.6,"rcv_cpu":0.3}"#,
        #"{"mb":1,"GBps":1e300,"snd_cpu":0.6,"rcv_cpu":0.3}"#,
        #"{"mb":1,"GBps":nan,"snd_cpu":0.6,"rcv_cpu":0.3}"#,
    ])
    func `what looks like a result and is none is refused`(line: String) {
        #expect(throws: MeasurementError.self) { try KVPeerLine.parse(line) }
    }

    @Test func `a command may hold equals signs`() throws {
        let peer = try KVPeer(argument: "other one = MODE=tcp ./bench ")
        #expect(peer.name == "other one")
        #expect(peer.command == "MODE=tcp ./bench")
    }

    @Test(arguments: ["other", "=./bench", "other=", " = ", "tcp=./bench", "tls x2=./bench"])
    func `an unusable peer is refused with its text`(argument: String) throws {
        let error = #expect(throws: MeasurementError.self) { try KVPeer(argument: argument) }
        #expect(error?.description.contains(argument) == true)
    }
}
