package import Foundation
import ServingTypes
import Synchronization
import WireProtocol

/// What the receiver is asked for, one JSON object a line.
enum KVReceiverRequest: Codable, Sendable {
    case open(contender: String)
    case close(contender: String)
    case processorSeconds
    /// Sets the memory to zero.
    case clear
    /// CRC-32C of the whole memory.
    case checksum
}

/// The receiver's answer to each request, one JSON object a line.
enum KVReceiverAnswer: Codable, Sendable, Equatable {
    case done
    case listening(port: Int)
    case processorSeconds(Double)
    case checksum(UInt32)
    case failed(String)
}

/// The receiving process of `benchmark kv`: serves requests from standard input until it ends.
///
/// - Parameters:
///   - folder: has the certificates that the sender made.
///   - answers: takes a line per request.
package func runKVReceiver(folder: String, mebibytes: Int, answers: FileHandle) throws {
    var receiver = KVReceiver(
        place: KVPlace(
            region: TransferRegion(byteCount: mebibytes << 20),
            identities: KVIdentities(folder: folder)))
    let encoder = JSONEncoder()
    while let line = readLine() {
        let answer: KVReceiverAnswer
        do {
            let request = try JSONDecoder().decode(
                KVReceiverRequest.self, from: Data(line.utf8))
            answer = try receiver.answer(request)
        } catch {
            answer = .failed("\(error)")
        }
        try answers.write(contentsOf: encoder.encode(answer) + Data("\n".utf8))
    }
}

/// The receiving ends of all contenders, over one memory.
private struct KVReceiver {
    let place: KVPlace
    private var open: [String: any KVReceivingEnd] = [:]

    init(place: KVPlace) { self.place = place }

    mutating func answer(_ request: KVReceiverRequest) throws -> KVReceiverAnswer {
        switch request {
        case .open(let name):
            guard let contender = KVContenders.named(name) else {
                return .failed("no contender has the name \(name)")
            }
            let end = try contender.openReceiver(place)
            open[name] = end
            return .listening(port: end.port)
        case .close(let name):
            open.removeValue(forKey: name)?.close()
            return .done
        case .processorSeconds:
            return .processorSeconds(ProcessorClock.process.seconds)
        case .clear:
            copyOut()
            place.region.clear()
            return .done
        case .checksum:
            copyOut()
            return .checksum(place.region.checksum)
        }
    }

    private func copyOut() {
        for end in open.values { end.copyOut() }
    }
}

extension TransferRegion {
    var checksum: UInt32 {
        unsafe withBytes(0..<byteCount) { unsafe CRC32C.checksum(UnsafeRawBufferPointer($0)) }
    }
}

/// Time that was computed, not waited.
enum ProcessorClock {
    /// All threads of this process, those that have ended too.
    case process
    case thread

    var seconds: Double {
        var time = timespec()
        let clock = self == .process ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_THREAD_CPUTIME_ID
        unsafe clock_gettime(clock, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}

/// The sender's hold of the receiving process.
final class KVReceiverProcess {
    private let program: ChildProgram
    private let isInterrupted: () -> Bool

    /// - Parameter certificates: the folder of `KVIdentities`.
    init(
        _ settings: KVMeasurementSettings, certificates: String, errors: URL,
        isInterrupted: @escaping () -> Bool
    ) throws {
        self.isInterrupted = isInterrupted
        program = try ChildProgram(
            executable: settings.receiver.executable,
            arguments: settings.receiver.arguments + [
                "--folder", certificates, "--mebibytes", "\(settings.regionMebibytes)",
            ],
            errors: errors, outputLimitBytes: .max)
    }

    func ask(_ request: KVReceiverRequest) throws -> KVReceiverAnswer {
        let line = String(decoding: try JSONEncoder().encode(request), as: UTF8.self)
        do {
            try program.write(line: line)
            let end = ContinuousClock.now + KVMeasurementLimits.transferDeadline
            guard let text = try program.nextLine(before: end, isInterrupted: isInterrupted)
            else { throw MeasurementError.receiverLost("it ended. \(program.lastWords)") }
            let answer = try JSONDecoder().decode(KVReceiverAnswer.self, from: Data(text.utf8))
            if case .failed(let reason) = answer { throw MeasurementError.receiverLost(reason) }
            return answer
        } catch ChildProgram.ReadingError.interrupted {
            throw CancellationError()
        } catch let error as MeasurementError {
            throw error
        } catch {
            throw MeasurementError.receiverLost("\(error). \(program.lastWords)")
        }
    }

    func open(_ contender: String) throws -> Int {
        guard case .listening(let port) = try ask(.open(contender: contender)) else {
            throw Self.misunderstood
        }
        return port
    }

    func processorSeconds() throws -> Double {
        guard case .processorSeconds(let seconds) = try ask(.processorSeconds) else {
            throw Self.misunderstood
        }
        return seconds
    }

    func checksum() throws -> UInt32 {
        guard case .checksum(let checksum) = try ask(.checksum) else { throw Self.misunderstood }
        return checksum
    }

    func end() { program.end() }

    private static let misunderstood = MeasurementError.receiverLost("it answered something else")
}
