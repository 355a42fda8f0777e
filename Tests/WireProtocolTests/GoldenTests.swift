import Foundation
import ServingTypes
import Testing
import WireProtocol

/// Frames of this version in bytes; the file changes only with `REWRITE=1`, and that diff is read.
@Suite(.serialized) struct GoldenTests {
    private static let file = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "Golden/frames.txt")

    @Test func `there is a golden message of every kind`() {
        #expect(GoldenMessages.all.map(\.kind) == MessageKind.allCases)
    }

    @Test func `frames have their golden bytes`() throws {
        var text =
            "# One frame a line: kind, then header and control bytes; see GoldenTests.swift.\n"
        for message in GoldenMessages.all {
            let frame = try encodeFrame(
                message, stream: 5, payloadBytes: message.kind.carriesPayload ? 20 : 0)
            text += "\(message.kind) \(hexadecimal(frame))\n"
        }
        if ProcessInfo.processInfo.environment["REWRITE"] == "1" {
            try FileManager.default.createDirectory(
                at: Self.file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(text.utf8).write(to: Self.file)
        }
        #expect(try String(contentsOf: Self.file, encoding: .utf8) == text)
    }

    @Test func `golden bytes are read as their message`() throws {
        let lines = try String(contentsOf: Self.file, encoding: .utf8).split(separator: "\n")
            .filter { !$0.hasPrefix("#") }
        #expect(lines.count == GoldenMessages.all.count)
        for (line, message) in zip(lines, GoldenMessages.all) {
            let frame = try bytes(line.split(separator: " ")[1])
            let header = try header(frame)
            #expect(header.stream == 5)
            let control = Array(frame[FrameHeader.byteCount...])
            #expect(
                try unsafe control.withUnsafeBytes { unsafe try header.message(control: $0) }
                    == message)
        }
    }

    /// Fields are added, never renumbered: what a process without groups and changing roles writes
    /// is read, with the meaning that absent fields have.
    @Test func `earlier bytes are read`() throws {
        let file = Self.file.deletingLastPathComponent().appending(path: "earlier.txt")
        let lines = try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
            .filter { !$0.hasPrefix("#") }
        #expect(lines.count == 32)
        for line in lines {
            let frame = try bytes(line.split(separator: " ")[1])
            let header = try header(frame)
            let control = Array(frame[FrameHeader.byteCount...])
            let message = try unsafe control.withUnsafeBytes {
                unsafe try header.message(control: $0)
            }
            #expect("\(message.kind)" == line.split(separator: " ")[0])
            if case .groupView(let view) = message {
                #expect(view.groups.isEmpty && !view.isPartial)
                #expect(view.members.map(\.role) == [.decode])
                #expect(view.members.map(\.status.role) == [.spare])
            }
            if case .prefillOffer(let offer) = message { #expect(offer.target?.heldTokens == 128) }
        }
    }

    private func hexadecimal(_ bytes: [UInt8]) -> String {
        bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }

    private func bytes(_ hexadecimal: Substring) throws -> [UInt8] {
        let digits = try hexadecimal.map { try #require($0.hexDigitValue) }
        return stride(from: 0, to: digits.count, by: 2).map {
            UInt8(digits[$0] << 4 | digits[$0 + 1])
        }
    }
}
