/// Rules about who imports whom.
let importRules: [Rule] = [
    Rule(
        description: "each C library has its importers",
        check: { file, manifest in
            guard let module = file.module else { return [] }
            return imports(of: file).compactMap { line, imported in
                guard manifest[imported]?.layer == "cLibrary" else { return nil }
                guard let owners = cLibraryOwners[imported] else {
                    return file.finding(line: line, "\(imported) has no owner in the table")
                }
                let isOwner = owners.contains(module.removingSuffix("Tests"))
                return isOwner ? nil : file.finding(line: line, "\(imported) belongs to \(owners)")
            }
        },
        bad: [
            .init(text: "import COpenSSL"), .init(text: "import CNobodysLibrary"),
            .init(path: "Tests/RolesTests/Sample.swift", text: "import CZstd"),
        ],
        good: [
            .init(path: "Sources/Adapters/Transport/Sample.swift", text: "import COpenSSL"),
            .init(path: "Tests/TransportTests/Sample.swift", text: "import COpenSSL"),
        ]),
    Rule(
        description: "modules import what their row in Package.swift names",
        check: { file, manifest in
            guard file.isSource, let module = file.module else { return [] }
            return imports(of: file).compactMap { line, imported in
                guard manifest[imported] != nil, imported != module else { return nil }
                let isDeclared = manifest[module]?.uses.contains(imported) == true
                return isDeclared
                    ? nil : file.finding(line: line, "\(module) does not declare \(imported)")
            }
        },
        bad: [
            .init(path: "Sources/Core/ServingTypes/Sample.swift", text: "import Scheduling"),
            .init(text: "package import struct Scheduling.Choice"),
        ],
        good: [
            .init(path: "Sources/Core/Roles/Sample.swift", text: "package import Scheduling"),
            .init(text: "// import Scheduling\nimport Logging"),
        ]),
    Rule(
        description: "modules import no layer above their own",
        check: { file, manifest in
            guard file.isSource, let module = file.module.flatMap({ manifest[$0] }) else {
                return []
            }
            return imports(of: file).compactMap { line, imported in
                guard let layer = manifest[imported]?.layer, imported != module.name else {
                    return nil
                }
                let isAllowed = manifest.imports[module.layer]?.contains(layer) == true
                return isAllowed
                    ? nil : file.finding(line: line, "\(module.layer) imports \(layer)")
            }
        },
        bad: [
            .init(path: "Sources/Core/Roles/Sample.swift", text: "import Transport"),
            .init(text: "import WorkerService"),
        ],
        good: [.init(text: "import Transport\ninternal import Roles")]),
    Rule(
        description: "Core imports nothing from outside",
        check: { file, manifest in
            guard file.isCore, let module = file.module else { return [] }
            return imports(of: file).compactMap { line, imported in
                guard manifest[imported] == nil,
                    coreImports[module]?.contains(imported) != true
                else { return nil }
                return file.finding(line: line, "Core imports \(imported)")
            }
        },
        bad: [
            .init(path: "Sources/Core/Roles/Sample.swift", text: "import Foundation"),
            .init(path: "Sources/Core/Roles/Sample.swift", text: "import Logging"),
        ],
        good: [
            .init(path: "Sources/Core/Roles/Sample.swift", text: "import ServingTypes"),
            .init(
                path: "Sources/Core/InferenceEngine/Sample.swift", text: "import Synchronization"),
        ]),
]

/// C libraries and the only modules that may import them.
let cLibraryOwners: [String: [String]] = [
    "CBuildInformation": ["ServiceStart"],
    "CBytePlanes": ["KVTransfer"],
    "CChecksums": ["WireProtocol"],
    "CLlama": ["LlamaEngine"],
    "CLlamaCommon": ["LlamaEngine"],
    "CMemoryPages": ["InferenceEngine"],
    "CNVML": ["HostProbe"],
    "COpenSSL": ["Transport"],
    "CProtobufC": ["WireProtocol"],
    "CSharedMemory": ["SharedMemory"],
    "CWireMessages": ["WireProtocol"],
    "CZstd": ["KVTransfer"],
]

/// What modules of Core may import from outside the package.
private let coreImports: [String: [String]] = [
    // The lock of KVBuffer.
    "InferenceEngine": ["Synchronization"]
]

/// Imported modules with the lines of their import.
private func imports(of file: SourceFile) -> [(line: Int, module: String)] {
    guard file.isSwift else { return [] }
    return file.code.indices.compactMap { index in
        var words = file.code[index].split(separator: " ").map(String.init)
        while let first = words.first, first.hasPrefix("@") || accessLevels.contains(first) {
            words.removeFirst()
        }
        guard words.first == "import", words.count > 1 else { return nil }
        let isKind = importKinds.contains(words[1]) && words.count > 2
        let name = words[isKind ? 2 : 1]
        return (index, String(name.prefix { $0 != "." && $0 != ";" }))
    }
}

private let accessLevels: Set<String> = ["package", "internal", "private", "fileprivate"]
private let importKinds: Set<String> = [
    "struct", "class", "enum", "protocol", "func", "var", "let", "typealias",
]
