// swift-tools-version: 6.2
import PackageDescription

/// The layers, bottom to top.
///
/// A module imports only the layers listed here, never upward.
enum Layer: String {
    case cLibrary = "CLibraries"
    case core = "Core"
    case simulation = "Simulation"
    case adapter = "Adapters"
    case service = "Services"
    case executable = "Executables"

    var imports: [Layer] {
        switch self {
        case .cLibrary: [.cLibrary]
        case .core: [.cLibrary, .core]
        case .simulation: [.core, .simulation]
        case .adapter: [.cLibrary, .core, .adapter]
        case .service: [.core, .adapter]
        case .executable: [.core, .adapter, .simulation, .service]
        }
    }
}

/// One row of the module table.
struct Module {
    var layer: Layer
    var name: String
    var uses: [String] = []
    var products: [Target.Dependency] = []
    /// Libraries without a pkg-config file of their own.
    var linkedLibraries: [String] = []
    /// Name of the pkg-config file, for modules that only import a system library.
    var pkgConfig: String?
    /// Debian package that brings the system library.
    var debianPackage: String?

    var path: String { "Sources/\(layer.rawValue)/\(name)" }
}

let argumentParser = Target.Dependency.product(
    name: "ArgumentParser", package: "swift-argument-parser")
let asyncHTTPClient = Target.Dependency.product(
    name: "AsyncHTTPClient", package: "async-http-client")
let configuration = Target.Dependency.product(
    name: "Configuration", package: "swift-configuration")
let coreMetrics = Target.Dependency.product(name: "CoreMetrics", package: "swift-metrics")
let grdb = Target.Dependency.product(name: "GRDB", package: "GRDB.swift")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let metrics = Target.Dependency.product(name: "Metrics", package: "swift-metrics")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let serviceLifecycle = Target.Dependency.product(
    name: "ServiceLifecycle", package: "swift-service-lifecycle")
let unixSignals = Target.Dependency.product(
    name: "UnixSignals", package: "swift-service-lifecycle")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

let modules: [Module] = [
    // C libraries: each has exactly one importing Swift module.
    Module(
        layer: .cLibrary, name: "CProtobufC", pkgConfig: "libprotobuf-c",
        debianPackage: "libprotobuf-c-dev"),
    Module(layer: .cLibrary, name: "CWireMessages", uses: ["CProtobufC"]),
    Module(layer: .cLibrary, name: "CChecksums"),
    Module(layer: .cLibrary, name: "CBytePlanes"),
    Module(layer: .cLibrary, name: "CMemoryPages"),
    Module(layer: .cLibrary, name: "CSharedMemory", uses: ["CMemoryPages"]),
    Module(layer: .cLibrary, name: "CNVML"),
    Module(layer: .cLibrary, name: "CZstd", pkgConfig: "libzstd", debianPackage: "libzstd-dev"),
    Module(layer: .cLibrary, name: "COpenSSL", pkgConfig: "openssl", debianPackage: "libssl-dev"),
    Module(layer: .cLibrary, name: "CLlama", pkgConfig: "llama"),
    Module(
        layer: .cLibrary, name: "CLlamaCommon", uses: ["CLlama"],
        linkedLibraries: ["llama-common"]),

    Module(layer: .cLibrary, name: "CBuildInformation"),

    // Core: pure.
    Module(layer: .core, name: "ServingTypes"),
    Module(layer: .core, name: "DeviceProfile", uses: ["ServingTypes"]),
    Module(layer: .core, name: "InferenceEngine", uses: ["ServingTypes", "CMemoryPages"]),
    Module(layer: .core, name: "KVHandOver", uses: ["ServingTypes"]),
    Module(layer: .core, name: "ClusterRules", uses: ["ServingTypes"]),
    Module(layer: .core, name: "Scheduling", uses: ["ServingTypes", "ClusterRules"]),
    Module(layer: .core, name: "Grouping", uses: ["ServingTypes", "ClusterRules"]),
    Module(
        layer: .core, name: "Roles",
        uses: [
            "ServingTypes", "ClusterRules", "Scheduling", "Grouping", "InferenceEngine",
            "KVHandOver",
        ]),
    Module(layer: .core, name: "ChatAPI", uses: ["ServingTypes"]),
    Module(
        layer: .core, name: "WireProtocol",
        uses: ["ServingTypes", "CWireMessages", "CProtobufC", "CChecksums"]),
    Module(
        layer: .core, name: "KVTransfer",
        uses: ["ServingTypes", "WireProtocol", "CZstd", "CBytePlanes"]),

    // Simulation: all roles in virtual time.
    Module(
        layer: .simulation, name: "ClusterSimulation",
        uses: [
            "ServingTypes", "ClusterRules", "Scheduling", "InferenceEngine", "KVHandOver",
            "Grouping", "Roles",
        ]),
    Module(layer: .simulation, name: "RequestTraces", uses: ["ServingTypes"]),
    Module(
        layer: .simulation, name: "SplitwiseSimulation",
        uses: ["ServingTypes", "Provisioning", "RequestTraces"]),
    Module(layer: .simulation, name: "Provisioning"),
    Module(
        layer: .simulation, name: "ServingSimulation",
        uses: [
            "ServingTypes", "DeviceProfile", "ClusterRules", "ClusterSimulation", "Grouping",
            "InferenceEngine", "KVHandOver", "RequestTraces", "Roles", "Scheduling",
        ]),

    Module(
        layer: .simulation, name: "Planning",
        uses: [
            "ServingTypes", "ClusterRules", "DeviceProfile", "RequestTraces", "ServingSimulation",
        ]),

    // Adapters: move bytes, call C, read the host.
    Module(layer: .adapter, name: "Waiting"),
    Module(
        layer: .adapter, name: "EngineRuntime",
        uses: ["ServingTypes", "InferenceEngine", "WireProtocol", "Waiting"]),
    Module(
        layer: .adapter, name: "LlamaEngine",
        uses: [
            "ServingTypes", "DeviceProfile", "InferenceEngine", "EngineRuntime", "CLlama",
            "CLlamaCommon",
        ]),
    Module(
        layer: .adapter, name: "Calibration",
        uses: ["ServingTypes", "DeviceProfile", "InferenceEngine"]),
    Module(
        layer: .adapter, name: "SimulatedEngine",
        uses: ["ServingTypes", "DeviceProfile", "InferenceEngine", "EngineRuntime"]),
    Module(layer: .adapter, name: "FileBudget", products: [logging, nioCore]),
    Module(
        layer: .adapter, name: "ServiceRuntime", uses: ["ServingTypes", "FileBudget"],
        products: [
            configuration, coreMetrics, logging, serviceLifecycle, unixSignals, yams,
        ]),
    Module(
        layer: .adapter, name: "HTTPServer",
        uses: ["ServingTypes", "ChatAPI", "FileBudget", "ServiceRuntime"],
        products: [hummingbird, logging, nioCore, nioPosix, serviceLifecycle]),
    Module(
        layer: .adapter, name: "HTTPClient", uses: ["ServingTypes"],
        products: [nioCore, nioPosix, nioHTTP1]),
    Module(
        layer: .adapter, name: "Transport",
        uses: ["ServingTypes", "FileBudget", "Waiting", "WireProtocol", "COpenSSL"],
        products: [logging, metrics, nioCore, nioPosix]),
    Module(
        layer: .adapter, name: "SharedMemory",
        uses: ["InferenceEngine", "FileBudget", "Waiting", "CSharedMemory"],
        products: [logging]),
    Module(
        layer: .adapter, name: "KVCarriers",
        uses: [
            "ServingTypes", "InferenceEngine", "KVTransfer", "WireProtocol", "Transport",
            "ServiceRuntime",
        ],
        products: [logging, metrics]),
    Module(
        layer: .adapter, name: "ClusterFile",
        uses: ["ServingTypes", "ClusterRules", "ServiceRuntime"], products: [yams]),
    Module(
        layer: .adapter, name: "DeviceProfileFile", uses: ["ClusterFile", "DeviceProfile"]),
    Module(
        layer: .adapter, name: "DeviceDiscovery",
        uses: ["ServingTypes", "DeviceProfile", "HostProbe", "LlamaEngine"]),
    Module(
        layer: .adapter, name: "ClusterStore",
        products: [asyncHTTPClient, grdb, logging, nioCore, nioHTTP1, nioSSL]),
    Module(layer: .adapter, name: "HostProbe", uses: ["ServingTypes", "Waiting", "CNVML"]),
    Module(
        layer: .adapter, name: "ServiceStart",
        uses: [
            "ServingTypes", "InferenceEngine", "ServiceRuntime", "Transport", "HTTPServer",
            "CBuildInformation",
        ],
        products: [logging, serviceLifecycle]),
    Module(
        layer: .adapter, name: "LocalCluster",
        uses: ["ServingTypes", "ServiceRuntime", "ServiceStart", "Transport"]),
    Module(layer: .adapter, name: "Reports"),
    Module(
        layer: .adapter, name: "Measurement",
        uses: [
            "Reports",
            "ServingTypes", "InferenceEngine", "ChatAPI", "ClusterRules", "FileBudget",
            "KVTransfer", "Roles", "Scheduling", "WireProtocol", "LlamaEngine", "HTTPClient",
            "KVCarriers",
            "LocalCluster", "ServiceRuntime", "ServiceStart", "SharedMemory", "SimulatedEngine",
            "Transport",
        ],
        products: [logging, nioCore, nioHTTP1, nioPosix]),

    Module(
        layer: .adapter, name: "Chaos",
        uses: [
            "ServingTypes", "HTTPClient", "LocalCluster", "Measurement", "Reports", "ServiceStart",
        ],
        products: [nioCore, nioPosix]),

    // Services: the shell of each role.
    Module(
        layer: .service, name: "SchedulerService",
        uses: [
            "ServingTypes", "ClusterRules", "ClusterFile", "ClusterStore", "Grouping", "Roles",
            "Transport", "WireProtocol", "FileBudget", "HTTPServer", "ServiceRuntime",
            "ServiceStart",
        ],
        products: [logging, metrics, serviceLifecycle]),
    Module(
        layer: .service, name: "HealthService",
        uses: [
            "ServingTypes", "Roles", "Transport", "WireProtocol", "ServiceRuntime", "ServiceStart",
            "HostProbe",
        ],
        products: [logging, metrics, serviceLifecycle, yams]),
    Module(
        layer: .service, name: "WorkerService",
        uses: [
            "ServingTypes", "InferenceEngine", "KVHandOver", "Roles", "KVCarriers", "KVTransfer",
            "WireProtocol", "Transport", "SharedMemory", "ServiceRuntime", "ServiceStart",
            "LlamaEngine", "SimulatedEngine", "Waiting", "Calibration", "DeviceProfile",
            "DeviceProfileFile",
        ],
        products: [logging, metrics, serviceLifecycle]),
    Module(
        layer: .service, name: "GatewayService",
        uses: [
            "ServingTypes", "ClusterRules", "ClusterFile", "InferenceEngine", "Roles", "ChatAPI",
            "WireProtocol", "Transport", "HTTPServer", "ServiceRuntime", "ServiceStart",
            "LlamaEngine", "SimulatedEngine",
        ],
        products: [logging, metrics, nioCore, serviceLifecycle]),

    // Executables.
    Module(
        layer: .executable, name: "gateway",
        uses: ["GatewayService", "ServiceStart", "ServingTypes"]),
    Module(
        layer: .executable, name: "scheduler",
        uses: ["SchedulerService", "ServiceStart", "ServingTypes"]),
    Module(
        layer: .executable, name: "prefill-worker",
        uses: ["WorkerService", "ServiceStart", "ServiceRuntime", "ServingTypes"]),
    Module(
        layer: .executable, name: "decode-worker",
        uses: ["WorkerService", "ServiceStart", "ServiceRuntime", "ServingTypes"]),
    Module(
        layer: .executable, name: "health-agent",
        uses: ["HealthService", "ServiceStart", "ServingTypes"]),
    Module(
        layer: .executable, name: "pdserve",
        uses: [
            "ServingTypes", "Calibration", "ClusterRules", "ClusterFile", "DeviceDiscovery",
            "DeviceProfile", "DeviceProfileFile", "HTTPClient", "InferenceEngine", "LlamaEngine",
            "LocalCluster", "Planning", "Reports", "RequestTraces", "Roles", "ServiceRuntime",
            "ServiceStart", "ServingSimulation", "Transport", "WireProtocol",
        ],
        products: [argumentParser, logging]),
    Module(
        layer: .executable, name: "benchmark",
        uses: [
            "ServingTypes", "Calibration", "Chaos", "ClusterRules", "ClusterStore",
            "DeviceProfile", "HTTPClient", "InferenceEngine", "LocalCluster", "Measurement",
            "Provisioning", "Reports", "RequestTraces", "ServiceRuntime", "ServiceStart",
            "ServingSimulation", "SplitwiseSimulation",
        ],
        products: [argumentParser, logging]),
    // Nothing but pure modules, so that it is built in little time.
    Module(
        layer: .executable, name: "simulate", uses: ["ClusterSimulation"],
        products: [argumentParser]),
]

/// Executables of a cluster.
let services = ["gateway", "scheduler", "prefill-worker", "decode-worker", "health-agent"]

/// Test targets: the tested module and what else the tests use.
let tests: [(name: String, uses: [String])] = [
    ("ServingTypesTests", ["ServingTypes"]),
    ("DeviceProfileTests", ["DeviceProfile"]),
    (
        "CalibrationTests",
        [
            "Calibration", "DeviceProfile", "InferenceEngine", "LlamaEngine", "ServingTypes",
            "SimulatedEngine",
        ]
    ),
    ("WireProtocolTests", ["WireProtocol", "ServingTypes", "CChecksums"]),
    ("KVHandOverTests", ["KVHandOver", "ServingTypes"]),
    ("KVTransferTests", ["KVTransfer", "WireProtocol", "ServingTypes", "CBytePlanes"]),
    ("ChatAPITests", ["ChatAPI", "ServingTypes"]),
    ("FileBudgetTests", ["FileBudget"]),
    ("WaitingTests", ["Waiting"]),
    ("ServiceRuntimeTests", ["ServiceRuntime", "ServingTypes"]),
    ("HTTPServerTests", ["HTTPServer", "ServiceRuntime", "ChatAPI", "ServingTypes"]),
    (
        "SharedMemoryTests",
        ["SharedMemory", "CSharedMemory", "InferenceEngine", "ServingTypes", "SimulatedEngine"]
    ),
    ("TransportTests", ["ServingTypes", "Transport", "WireProtocol"]),
    (
        "KVCarriersTests",
        [
            "KVCarriers", "KVTransfer", "InferenceEngine", "ServingTypes", "Transport",
            "WireProtocol", "ServiceRuntime",
        ]
    ),
    (
        "IntegrationTests",
        [
            "HTTPClient", "LocalCluster", "LlamaEngine", "EngineRuntime", "InferenceEngine",
            "ServiceStart", "ServingTypes", "Transport", "pdserve",
        ] + services
    ),
    (
        "WorkerServiceTests",
        [
            "WorkerService", "InferenceEngine", "Roles", "KVCarriers", "KVHandOver", "KVTransfer",
            "LlamaEngine", "ServiceRuntime", "ServiceStart", "ServingTypes", "SharedMemory",
            "SimulatedEngine", "Transport", "WireProtocol",
        ]
    ),
    ("HostProbeTests", ["HostProbe", "ServingTypes"]),
    ("HealthServiceTests", ["HealthService", "Roles", "ServingTypes"]),
    ("TidyTests", []),
    ("DeploymentTests", ["pdserve"] + services),
    ("InferenceEngineTests", ["InferenceEngine", "ServingTypes"]),
    ("EngineRuntimeTests", ["EngineRuntime", "InferenceEngine", "ServingTypes"]),
    ("LlamaEngineTests", ["LlamaEngine", "EngineRuntime", "InferenceEngine", "ServingTypes"]),
    (
        "SimulatedEngineTests",
        ["SimulatedEngine", "DeviceProfile", "EngineRuntime", "InferenceEngine", "ServingTypes"]
    ),
    (
        "MeasurementTests",
        [
            "Measurement", "FileBudget", "LocalCluster", "Reports", "Roles", "ClusterRules",
            "ServiceRuntime", "ServingTypes", "benchmark",
        ] + services
    ),
    (
        "ChaosTests",
        ["Chaos", "LocalCluster", "Measurement", "Reports", "ServingTypes"] + services
    ),
    ("ClusterStoreTests", ["ClusterStore", "benchmark"]),
    ("SchedulerServiceTests", ["SchedulerService", "ClusterStore", "Grouping", "ServingTypes"]),
    ("ClusterRulesTests", ["ClusterRules", "ServingTypes"]),
    ("ClusterFileTests", ["ClusterFile", "ClusterRules", "ServingTypes"]),
    ("DeviceProfileFileTests", ["DeviceProfile", "DeviceProfileFile"]),
    ("DeviceDiscoveryTests", ["DeviceDiscovery", "DeviceProfile", "ServingTypes"]),
    ("SchedulingTests", ["Scheduling", "ClusterRules", "ServingTypes"]),
    ("GroupingTests", ["Grouping", "ClusterRules", "ServingTypes"]),
    ("SimulationTests", ["ClusterSimulation", "ServingTypes"]),
    ("RequestTracesTests", ["RequestTraces"]),
    ("ProvisioningTests", ["Provisioning"]),
    ("SplitwiseSimulationTests", ["Provisioning", "RequestTraces", "SplitwiseSimulation"]),
    (
        "ServingSimulationTests",
        ["ServingSimulation", "DeviceProfile", "RequestTraces", "ClusterRules", "ServingTypes"]
    ),
    (
        "PlanningTests",
        ["Planning", "DeviceProfile", "RequestTraces", "ServingSimulation", "pdserve"]
    ),
    ("ReportsTests", ["Reports"]),
    (
        "ScenarioTests",
        ["Roles", "ClusterRules", "Grouping", "KVHandOver", "InferenceEngine", "ServingTypes"]
    ),
    (
        "RolesTests",
        [
            "Roles", "ClusterRules", "Grouping", "KVHandOver", "Scheduling", "InferenceEngine",
            "ServingTypes", "WireProtocol",
        ]
    ),
]

/// What test targets use from outside.
let testProducts: [String: [Target.Dependency]] = ["DeploymentTests": [yams]]

/// Folders of test targets with files that a test reads.
let comparedFolders = [
    "WireProtocolTests": ["Golden"], "ScenarioTests": ["Scenarios"], "LlamaEngineTests": ["Models"],
    "ServingSimulationTests": ["Traces"], "HostProbeTests": ["Recorded"],
    "SplitwiseSimulationTests": ["Reference"],
]

for module in modules {
    for used in modules where module.uses.contains(used.name) {
        precondition(
            module.layer.imports.contains(used.layer),
            "\(module.name) may not import \(used.name)")
    }
}

let swiftSettings: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

/// The commit for `--version`, if whoever builds names one: letters and digits, possibly `-dirty`.
let buildInformation: [CSetting] =
    Context.environment["PDSERVE_COMMIT"].map { commit in
        let isSafe = commit.utf8.allSatisfy { byte in
            [UInt8(ascii: "-"), UInt8(ascii: ".")].contains(byte)
                || UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte
                || UInt8(ascii: "A")...UInt8(ascii: "Z") ~= byte
                || UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte
        }
        precondition(isSafe, "PDSERVE_COMMIT is no commit: \(commit)")
        return [.define("PDSERVE_COMMIT", to: "\"\(commit)\"")]
    } ?? []

func target(for module: Module) -> Target {
    if let pkgConfig = module.pkgConfig {
        return .systemLibrary(
            name: module.name, path: module.path, pkgConfig: pkgConfig,
            providers: module.debianPackage.map { [.apt([$0])] })
    }
    let dependencies = module.uses.map { Target.Dependency.target(name: $0) } + module.products
    if module.layer == .cLibrary {
        return .target(
            name: module.name, dependencies: dependencies, path: module.path,
            cSettings: module.name == "CBuildInformation" ? buildInformation : [],
            linkerSettings: module.linkedLibraries.map { .linkedLibrary($0) })
    }
    if module.layer == .executable {
        return .executableTarget(
            name: module.name, dependencies: dependencies, path: module.path,
            swiftSettings: swiftSettings)
    }
    return .target(
        name: module.name, dependencies: dependencies, path: module.path,
        swiftSettings: swiftSettings)
}

let package = Package(
    name: "pdserve",
    platforms: [.macOS(.v15)],
    dependencies: [
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(
            url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(
            url: "https://github.com/apple/swift-configuration", from: "1.4.0",
            traits: ["CommandLineArguments"]),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
        .package(
            url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(
            url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: modules.map(target(for:))
        + tests.map { test in
            .testTarget(
                name: test.name,
                dependencies: test.uses.map { .target(name: $0) }
                    + testProducts[test.name, default: []],
                path: "Tests/\(test.name)",
                exclude: comparedFolders[test.name] ?? [],
                swiftSettings: swiftSettings)
        },
    cxxLanguageStandard: .cxx17
)
