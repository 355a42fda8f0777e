import FoundationEssentials
import ServiceRuntime
import ServingTypes
import Testing

private struct Sample: Equatable {
    var port = 0
    var ratio = 0.0
    var name = ""
    var isOn = false
    var wait = Duration.zero
    var room = 0
    var listen = NetworkAddress(host: "", port: 0)
    var peers: [String] = []
    var key: String?
    var level = LogLevel.info

    init(_ reader: inout SettingsReader) throws(SettingsError) {
        port = try reader.integer("port", default: 8080, in: 0...65535, "Port clients use.")
        ratio = try reader.number("ratio", default: 0.5, in: 0...1, "A part.")
        name = try reader.text("name", default: "anna", "A name.")
        isOn = try reader.bool("is-on", default: false, "A switch.")
        wait = try reader.duration(
            "wait", default: .seconds(2), in: .zero ... .seconds(60), "Wait.")
        room = try reader.bytes("room", default: 64 << 20, in: 1...(1 << 30), "Room.")
        listen = try reader.address(
            "listen", default: NetworkAddress(host: "127.0.0.1", port: 7000), "Where.")
        peers = try reader.list("peers", "Who.")
        key = try reader.optionalText("key-file", "A file.")
        level = try reader.choice("level", default: .info, "A level.")
    }
}

private func sample(
    _ arguments: [String] = [], _ environment: [String: String] = [:]
) throws(SettingsError) -> Sample {
    var reader = try SettingsReader(
        service: "gateway", version: "1.2.3", arguments: arguments, environment: environment)
    let sample = try Sample(&reader)
    try reader.finish()
    return sample
}

private func failure(
    _ arguments: [String] = [], _ environment: [String: String] = [:]
) -> SettingsError? {
    do throws(SettingsError) {
        _ = try sample(arguments, environment)
        return nil
    } catch {
        return error
    }
}

private func withFile<Result>(_ text: String, _ use: (String) throws -> Result) throws -> Result {
    let name = "settings-\(UInt64.random(in: 0 ... .max)).yaml"
    let file = FileManager.default.temporaryDirectory.appending(path: name)
    try Data(text.utf8).write(to: file)
    defer { try? FileManager.default.removeItem(at: file) }
    return try use(file.path())
}

@Suite struct SettingsTests {
    @Test func `every type is read from flags`() throws {
        let sample = try sample([
            "--port", "1", "--ratio=0.25", "--name", "a=b, c", "--is-on", "--wait", "1.5s",
            "--room", "1.5KiB", "--listen", "[::1]:80", "--peers", "a, b,,c", "--key-file", "k",
            "--level", "debug",
        ])
        #expect(sample.port == 1 && sample.ratio == 0.25 && sample.name == "a=b, c")
        #expect(sample.isOn && sample.wait == .milliseconds(1500) && sample.room == 1536)
        #expect(sample.listen == NetworkAddress(host: "::1", port: 80))
        #expect(sample.peers == ["a", "b", "c"] && sample.key == "k" && sample.level == .debug)
    }

    @Test func `defaults hold for what is not set`() throws {
        let sample = try sample()
        #expect(sample.port == 8080 && sample.wait == .seconds(2) && sample.room == 64 << 20)
        #expect(sample.key == nil && sample.peers.isEmpty && !sample.isOn)
    }

    @Test func `flags win over environment, environment over file, section over top`() throws {
        let text = """
            port: 1
            name: top
            ratio: 0.1
            wait: 3s
            peers: [x, y]
            is-on: yes
            gateway:
              port: 2
              name: section
            scheduler:
              nonsense: 5
            """
        try withFile(text) { path in
            let environment = ["PDSERVE_CONFIG": path, "PDSERVE_NAME": "environment"]
            let sample = try sample(["--ratio", "0.9"], environment)
            #expect(sample.port == 2 && sample.name == "environment" && sample.ratio == 0.9)
            #expect(sample.wait == .seconds(3) && sample.peers == ["x", "y"] && sample.isOn)
        }
        try withFile(#"{"port": 3, "gateway": {"name": "json", "is-on": true}}"#) { path in
            let sample = try sample(["--config", path], ["PDSERVE_IS_ON": "off"])
            #expect(sample.port == 3 && sample.name == "json" && !sample.isOn)
        }
    }

    @Test(arguments: [
        (["--port", "70000"], "--port must be a whole number in 0…65535, but it is '70000'"),
        (["--port", "x"], "--port must be a whole number in 0…65535, but it is 'x'"),
        (["--port"], "--port must be a whole number in 0…65535, but it is ''"),
        (["--ratio", "1.1"], "--ratio must be a number in 0.0…1.0, but it is '1.1'"),
        (["--is-on", "maybe"], "--is-on must be true or false, but it is 'maybe'"),
        (
            ["--wait", "61s"],
            "--wait must be a duration in 0…1m such as 500ms, 2s or 5m, but it is '61s'"
        ),
        (
            ["--wait", "5"],
            "--wait must be a duration in 0…1m such as 500ms, 2s or 5m, but it is '5'"
        ),
        (
            ["--room", "2GiB"],
            "--room must be a size in 1…1GiB such as 512KiB or 64MiB, but it is '2GiB'"
        ),
        (
            ["--listen", "here"],
            "--listen must be an address such as 127.0.0.1:8080, but it is 'here'"
        ),
        (
            ["--level", "loud"],
            "--level must be one of trace, debug, info, notice, warning, error, critical, "
                + "but it is 'loud'"
        ),
        (["--prot", "1"], "--prot is unknown; did you mean --port?"),
        (["--zzzzzzzzzz", "1"], "--zzzzzzzzzz is unknown; --help shows what there is"),
        (["serve"], "the argument 'serve' belongs to no flag; settings are given as --key value"),
        (
            ["--port", "1", "2"],
            "the argument '2' belongs to no flag; settings are given as --key value"
        ),
        (["--port", "1", "--port", "2"], "--port must be given only once, but it is '1,2'"),
    ]) func `a wrong flag is told in one sentence`(arguments: [String], message: String) {
        let error = failure(arguments)
        #expect(error?.description == message)
        #expect(error?.exitCode == .usage)
    }

    @Test func `the place of a wrong value is told`() throws {
        #expect(
            failure([], ["PDSERVE_PORT": "-1"])?.description
                == "PDSERVE_PORT must be a whole number in 0…65535, but it is '-1'")
        try withFile("port: many") { path in
            #expect(
                failure(["--config", path])?.description
                    == "port in \(path) must be a whole number in 0…65535, but it is 'many'")
        }
        try withFile("gateway:\n  prot: 1") { path in
            #expect(
                failure(["--config", path])?.description
                    == "'prot' in \(path) is unknown; did you mean port?")
        }
    }

    @Test func `files that can't be read or understood are told apart`() throws {
        let missing = failure(["--config", "/nowhere/x.yaml"])
        #expect(
            missing
                == .unreadableFile(path: "/nowhere/x.yaml", reason: "there is no such file"))
        #expect(missing?.exitCode == .unavailable)
        for text in [
            "a: [", "- 1\n- 2", "just text", "peers: [[1]]", "port: {a: {b: 1}}\nx:\n- {}",
        ] {
            try withFile(text) { path in
                guard case .malformedFile? = failure(["--config", path]) else {
                    Issue.record("\(text) gave \(String(describing: failure(["--config", path])))")
                    return
                }
            }
        }
        try withFile("") { path in #expect(failure(["--config", path]) == nil) }
    }

    @Test func `help shows every key and hides no wrong value behind it`() {
        guard case .textRequested(let text)? = failure(["--port", "x", "--help"]) else {
            Issue.record("no help")
            return
        }
        #expect(text.hasPrefix("gateway 1.2.3\n"))
        #expect(
            text.contains("  --port <a whole number in 0…65535>\n      Port clients use. [8080]"))
        #expect(text.contains("--room <a size in 1…1GiB such as 512KiB or 64MiB>"))
        #expect(text.contains("[64MiB]") && text.contains("[127.0.0.1:7000]"))
        #expect(failure(["-h"]) == .textRequested(text))
        #expect(failure(["--version"]) == .textRequested("gateway 1.2.3"))
        #expect(failure(["--help"])?.exitCode == .success)
    }

    @Test func `a key without default is required`() throws {
        func read(_ arguments: [String]) throws(SettingsError) -> (String, NetworkAddress, Int) {
            var reader = try SettingsReader(
                service: "s", version: "1", arguments: arguments, environment: [:])
            let values = (
                try reader.text("model", default: nil, "Model file."),
                try reader.address("scheduler", default: nil, "Scheduler."),
                try reader.integer("slots", default: nil, in: 1...9, "Slots.")
            )
            try reader.finish()
            return values
        }
        #expect(throws: SettingsError.missing(key: "model", expected: "text")) { try read([]) }
        #expect(throws: SettingsError.missing(key: "slots", expected: "a whole number in 1…9")) {
            try read(["--model", "m", "--scheduler", "h:1"])
        }
        let values = try read(["--model", "m", "--scheduler", "h:1", "--slots", "3"])
        #expect(values.0 == "m" && values.1.port == 1 && values.2 == 3)
        #expect(throws: SettingsError.self) { try read(["--help"]) }
    }

    @Test func `durations and sizes are read and refused`() throws {
        let durations: [(String, Duration?)] = [
            ("0", .zero), ("250ms", .milliseconds(250)), ("1m", .seconds(60)),
            ("1us", .microseconds(1)), ("7ns", .nanoseconds(7)), ("0.5h", nil), ("1", nil),
            ("", nil), ("s", nil), ("-1s", nil), ("1e3s", nil), ("1 s", nil), ("nans", nil),
            ("99999999999s", nil),
        ]
        for (text, duration) in durations {
            #expect((try? sample(["--wait=\(text)"]))?.wait == duration, "\(text)")
        }
        let sizes: [(String, Int?)] = [
            ("1", 1), ("512KiB", 512 << 10), ("1MB", 1_000_000), ("1GiB", 1 << 30), ("8B", 8),
            ("0", nil), ("-1", nil), ("1.5", nil), ("KiB", nil), ("1 MiB", nil), ("x", nil),
            ("99999999999999TiB", nil),
        ]
        for (text, size) in sizes {
            #expect((try? sample(["--room=\(text)"]))?.room == size, "\(text)")
        }
    }
}
