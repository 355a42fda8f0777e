import RequestTraces
import Testing

@Suite("Traces of every format")
struct TraceReaderTests {
    typealias Entry = RequestTrace.Entry
    typealias Failure = RequestTrace.Failure

    static let azure = """
        TIMESTAMP,ContextTokens,GeneratedTokens
        2023-11-16 18:17:03.9799600,4808,10
        2023-11-16 18:17:04.0319600,3180,8\r
        2024-03-01T00:00:00.5+00:00,7,1
        """
    static let splitwise = """
        request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size
        0,2,0,0.1989686270407775,1,2414,22
        1,2,0,4,1,2048,8
        """
    static let mooncake = """
        {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}
        {"timestamp": 0, "input_length": 500, "output_length": 1, "hash_ids": [0]}
        {"timestamp": 0, "output_length": 9,"input_length": 5, "hash_ids": []}
        {"timestamp": 3000, "input_length": 50, "output_length": 6, "hash_ids": [7]}
        {"timestamp": 4000, "input_length": 51, "output_length": 7, "hash_ids": [8]}
        {"timestamp": 4000, "input_length": 52, "output_length": 8, "hash_ids": [9]}
        """

    @Test("Azure's dates become seconds since the first request, over a leap day too")
    func azureTimes() throws {
        let entries = try RequestTrace(text: Self.azure).entries
        let days = 14.0 + 31 + 31 + 29 + 1  // 16 November 2023 … 1 March 2024
        let wanted = days * 86_400 - (18 * 3600 + 17 * 60 + 3.979_96) + 0.5
        #expect(entries.map(\.promptTokens) == [4808, 3180, 7])
        #expect(entries.map(\.outputTokens) == [10, 8, 1])
        #expect(entries[0].arrivalSeconds == 0)
        #expect(entries[1].arrivalSeconds == 0.052)
        #expect(abs(entries[2].arrivalSeconds - wanted) < 1e-6)
    }

    @Test("SplitwiseSim's columns are found by their names")
    func splitwiseColumns() throws {
        let entries = try RequestTrace(text: Self.splitwise).entries
        #expect(
            entries == [
                Entry(
                    arrivalSeconds: 0.1989686270407775, promptTokens: 2414, outputTokens: 22),
                Entry(arrivalSeconds: 4, promptTokens: 2048, outputTokens: 8),
            ])
        let moved = "prompt_size,arrival_timestamp,token_size,request_type,batch_size\n9,1.5,3,2,1"
        #expect(
            try RequestTrace(text: moved).entries == [
                Entry(arrivalSeconds: 1.5, promptTokens: 9, outputTokens: 3)
            ])
    }

    @Test("requests of one coarse time are spread until the next, in their order")
    func mooncakeBuckets() throws {
        let even = try RequestTrace(text: Self.mooncake).entries
        #expect(even.map(\.arrivalSeconds) == [0, 1, 2, 3, 4, 5.5])
        #expect(even.map(\.prefixHashes) == [[0, 1], [0], [], [7], [8], [9]])
        #expect(even.map(\.promptTokens) == [600, 500, 5, 50, 51, 52])
        let whole = try RequestTrace(text: Self.mooncake, spread: .none).entries
        #expect(whole.map(\.arrivalSeconds) == [0, 0, 0, 3, 4, 4])
        let random = try RequestTrace(text: Self.mooncake, spread: .random(seed: 5)).entries
        let times = random.map(\.arrivalSeconds)
        #expect(times == times.sorted() && times[3] == 3 && times[5] < 7 && times[1] != 1)
        #expect(random == (try RequestTrace(text: Self.mooncake, spread: .random(seed: 5)).entries))
    }

    @Test(
        "a trace read in pieces is the trace read at once",
        arguments: [Self.azure, Self.splitwise, Self.mooncake, "# a\n0.5,1,2\n\n1,3,4\n"])
    func pieces(text: String) throws {
        let whole = try RequestTrace(text: text).entries
        let bytes = Array(text.utf8)
        for size in [1, 7, 64] {
            var reader = TraceReader()
            var entries: [Entry] = []
            for begin in stride(from: 0, to: bytes.count, by: size) {
                entries += try reader.read(bytes[begin..<min(begin + size, bytes.count)])
            }
            entries += try reader.finish()
            #expect(entries == whole)
        }
    }

    @Test("what is wrong is named with its line")
    func failures() {
        func failure(_ text: String) -> Failure? {
            do throws(Failure) {
                _ = try RequestTrace(text: text)
                return nil
            } catch {
                return error
            }
        }
        #expect(
            failure("1,5,3\n2,x,3")
                == Failure(
                    problem: .malformed(.plain, text: "2,x,3"), line: 2))
        #expect(failure("# none\n") == Failure(problem: .noRequest))
        #expect(failure("\u{1F}\u{8B}") == Failure(problem: .unknownFormat, line: 1))
        #expect(failure("1,5,3\n# b\n0.5,5,3") == Failure(problem: .timeGoesBack, line: 3))
        #expect(failure("-1,5,3") == Failure(problem: .timeGoesBack, line: 1))
        #expect(failure("1,0,3") == Failure(problem: .tokensOutOfRange(0), line: 1))
        #expect(failure("nan,5,3")?.line == 1)
        let day = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-16 18:17:03.9,1,1"
        #expect(failure(day)?.line == 2)
        #expect(
            failure("a,arrival_timestamp,prompt_size\n")
                == Failure(
                    problem: .missingColumn("token_size"), line: 1))
        let batch = Self.splitwise + "\n2,2,0,5,8,100,10"
        #expect(failure(batch) == Failure(problem: .notOneGeneration, line: 4))
        #expect(failure(#"{"timestamp": 1, "input_length": 5}"#)?.line == 1)
        let long = String(repeating: "1", count: RequestTrace.Limits.lineBytes + 1)
        #expect(failure("1,2,3\n" + long) == Failure(problem: .lineTooLong, line: 2))
        #expect("\(Failure(problem: .timeGoesBack, line: 3))".hasPrefix("line 3: "))
    }

    @Test("lengths are drawn in pairs or apart")
    func draws() throws {
        let trace = RequestTrace(
            entries: (1...50).map {
                Entry(arrivalSeconds: 0, promptTokens: $0, outputTokens: 1000 + $0)
            })
        let paired = trace.poisson(perSecond: 100, seconds: 20, seed: 3).entries
        let apart = trace.poisson(perSecond: 100, seconds: 20, seed: 3, lengths: .independent)
            .entries
        #expect(paired.allSatisfy { $0.outputTokens == $0.promptTokens + 1000 })
        #expect(apart.filter { $0.outputTokens == $0.promptTokens + 1000 }.count < 100)
        for entries in [paired, apart] {
            #expect((1800...2200).contains(entries.count))
            #expect(entries.last.map { $0.arrivalSeconds < 20 } == true)
        }
    }
}
