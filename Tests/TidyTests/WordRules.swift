/// Rules about words that do not occur.
let wordRules: [Rule] = [
    Rule(
        description: "the compiler's checks are not switched off",
        check: absence(of: ["@unchecked", "nonisolated(unsafe)", "try!", "as!"]),
        bad: [
            .init(text: "final class Box: @unchecked Sendable {}"),
            .init(text: "nonisolated(unsafe) var count = 0"),
            .init(text: "let a = try! load()"),
            .init(text: "let a = b as! Int"),
        ],
        good: [.init(text: "// try! is not used\nlet a = \"try!\"\nlet retry = !b")]),
    Rule(
        description: "nothing is forced out of an optional",
        check: { file, _ in
            guard file.isSwift, file.isSource else { return [] }
            return file.code.indices.filter { forcesOptional(file.code[$0]) }
                .map { file.finding(line: $0, "'!' forces an optional") }
        },
        bad: [
            .init(text: "let a = b!"), .init(text: "let a = b[0]!.c"),
            .init(text: "var a: Int!"), .init(text: "call(f(1)!, 2)"),
            .init(text: "let a = \"\\(b!)\""),
        ],
        good: [
            .init(text: "if !a, a != b, c!=d, (!e) {}"),
            .init(text: "let a = \"Stop!\" // now!\n#if !os(Linux)\n#endif"),
            .init(path: "Tests/RolesTests/Sample.swift", text: "let a = b!"),
        ]),
    Rule(
        description: "nothing is public: modules share by package access",
        check: absence(of: ["public", "open class"], where: { $0.isSource || $0.isTest }),
        bad: [.init(text: "public struct A {}"), .init(text: "open class A {}")],
        good: [.init(text: "package struct A {}\n// public\nlet publicKey = 1")]),
    Rule(
        description: "only executables print",
        check: absence(
            of: ["print(", "debugPrint(", "dump(", "NSLog("],
            where: { $0.isSource && !$0.isExecutable }),
        bad: [.init(text: "print(a)"), .init(text: "if a { debugPrint(b) }")],
        good: [
            .init(text: "page.print(a)\nfingerprint(a)\nlet a = \"print(a)\""),
            .init(path: "Sources/Executables/pdserve/Sample.swift", text: "print(a)"),
        ]),
    Rule(
        description: "what is left to do has a number",
        check: { file, _ in
            guard !file.isGenerated else { return [] }
            return file.linesWithComments.indices.compactMap { index in
                let line = file.linesWithComments[index]
                let mark = Marks.open.first { Word(text: $0).occurs(in: line) }
                guard let mark, !line.contains(#/\(#\d+\)/#) else { return nil }
                return file.finding(line: index, "'\(mark)' without a number like (#12)")
            }
        },
        bad: Marks.open.map { .init(text: "let a = 1 // \($0): more") }
            + [.init(path: "Scripts/sample.sh", text: "# \(Marks.open[0])")],
        good: [.init(text: "// \(Marks.open[0])(#12): more\nlet a = \"\(Marks.open[1])\"")]),
    Rule(
        description: "no merge is left half done",
        check: { file, _ in
            file.lines.indices.filter { index in
                Marks.conflicts.contains { file.lines[index].hasPrefix($0) }
            }.map { file.finding(line: $0, "marks of a merge conflict") }
        },
        bad: Marks.conflicts.map { .init(text: "let a = 1\n\($0)main") },
        good: [.init(text: "let a = b << 7\n// =======")]),
    Rule(
        description: "Core has no clock, chance, task, lock, logger, file or socket of its own",
        check: { file, manifest in
            guard file.isCore, file.module != nil else { return [] }
            let found = absence(of: Purity.words)(file, manifest)
            let exceptions = Purity.exceptions.filter { $0.path == file.path }.map(\.word)
            return found.filter { !exceptions.contains($0.what) } + ownChance(in: file)
        },
        bad: [
            .init(path: Purity.sample, text: "let now = ContinuousClock.now"),
            .init(path: Purity.sample, text: "Task { await run() }"),
            .init(path: Purity.sample, text: "let a = Int.random(in: 0..<9)"),
            .init(path: Purity.sample, text: "let lock = Mutex(0)"),
            .init(path: Purity.sample, text: "package actor Machine {}"),
        ],
        good: [
            .init(path: Purity.sample, text: "let a = Int.random(in: 0..<9, using: &generator)"),
            .init(path: Purity.sample, text: "items.randomElement(\n    using: &generator)"),
            .init(path: Purity.sample, text: "let task = TaskID(1)"),
            .init(text: "let now = ContinuousClock.now"),
        ]),
    Rule(
        description: "tests of Core do not sleep",
        check: { file, manifest in
            let tested = file.module.flatMap { manifest[$0.removingSuffix("Tests")] }
            guard file.isTest, tested?.layer == "core" else { return [] }
            return absence(of: ["sleep(", "usleep("])(file, manifest)
        },
        bad: [
            .init(
                path: "Tests/ServingTypesTests/Sample.swift",
                text: "try await Task.sleep(for: .seconds(1))")
        ],
        good: [.init(path: "Tests/TransportTests/Sample.swift", text: "usleep(1)")]),
]

/// Marks that people leave behind.
private enum Marks {
    static let open = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]
    static let conflicts = ["<<<<<<< ", ">>>>>>> ", "||||||| "]
}

/// What Core has no need of.
private enum Purity {
    static let sample = "Sources/Core/Roles/Sample.swift"
    static let words = [
        "ContinuousClock", "SuspendingClock", "Date(", "Date.now", "clock_gettime", "Task {",
        "Task(", "Task.detached", "Task.sleep", "withTaskGroup(", "actor", "DispatchQueue",
        "Thread", "Mutex", "NSLock", "Atomic", "SystemRandomNumberGenerator", "Logger",
        "FileManager", "FileHandle", "getenv(", "ProcessInfo", "fopen(", "socket(",
    ]
    /// KV memory is handed from thread to thread; its lock is the one of Core.
    static let exceptions = [
        (path: "Sources/Core/InferenceEngine/KVBuffer.swift", word: "'Mutex'")
    ]
}

/// A check that none of the words occurs in code of Swift files.
private func absence(
    of words: [String], where applies: @escaping @Sendable (SourceFile) -> Bool = { _ in true }
) -> @Sendable (SourceFile, Manifest) -> [Finding] {
    let words = words.map { Word(text: $0, asMember: !$0.hasSuffix("print(")) }
    return { file, _ in
        guard file.isSwift, applies(file) else { return [] }
        return file.code.indices.flatMap { index in
            words.filter { $0.occurs(in: file.code[index]) }
                .map { file.finding(line: index, "'\($0.text)'") }
        }
    }
}

/// Whether `!` follows a value or a type.
private func forcesOptional(_ line: String) -> Bool {
    let bytes = Array(line.utf8)
    return bytes.indices.dropFirst().contains { index in
        guard bytes[index] == UInt8(ascii: "!") else { return false }
        let before = bytes[index - 1]
        let after = index + 1 < bytes.count ? bytes[index + 1] : 0
        let closing: [UInt8] = [UInt8(ascii: ")"), UInt8(ascii: "]"), UInt8(ascii: "\"")]
        return (before.isNameByte || closing.contains(before)) && after != UInt8(ascii: "=")
    }
}

/// Random numbers that come from no given generator.
private func ownChance(in file: SourceFile) -> [Finding] {
    let calls = [".random(", ".randomElement(", ".shuffled(", ".shuffle("]
    return file.code.indices.compactMap { index in
        let call = file.code[index...].prefix(3).joined()
        guard calls.contains(where: file.code[index].contains), !call.contains("using:") else {
            return nil
        }
        return file.finding(line: index, "chance without a given generator")
    }
}

extension String {
    func removingSuffix(_ suffix: String) -> String {
        hasSuffix(suffix) ? String(dropLast(suffix.count)) : self
    }
}
