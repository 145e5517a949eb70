// swift-tools-version: 6.1
import PackageDescription

let swift6: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
]

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let nioTLS = Target.Dependency.product(name: "NIOTLS", package: "swift-nio")
let nioHTTP = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioWebSocket = Target.Dependency.product(name: "NIOWebSocket", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")
let heap = Target.Dependency.product(name: "HeapModule", package: "swift-collections")
let argumentParser = Target.Dependency.product(
    name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "tidegate",
    products: [
        .executable(name: "tidegate", targets: ["tidegate"]),
        .executable(name: "drill", targets: ["drill"]),
        .executable(name: "powercut", targets: ["powercut"]),
        .executable(name: "simulate", targets: ["simulate"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.0"),
        .package(url: "https://github.com/apple/swift-collections.git", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.0"),
    ],
    targets: [
        // What is shipped. The arrows are those of the house: see README.md, "Where things live".
        .target(name: "MQTT", swiftSettings: swift6),
        .target(name: "GatewayCore", dependencies: ["MQTT", deque, heap], swiftSettings: swift6),
        .target(name: "CChecksum"),
        .target(
            name: "Journal", dependencies: ["MQTT", "GatewayCore", "CChecksum", deque],
            exclude: ["Format.md"], swiftSettings: swift6),
        .target(name: "CLinux"),
        .target(name: "Disk", dependencies: ["Journal", "GatewayCore", "CLinux"], swiftSettings: swift6),
        .target(
            name: "Transport",
            dependencies: ["MQTT", nioCore, nioPosix, nioTLS, nioSSL, nioHTTP, nioWebSocket],
            swiftSettings: swift6),
        .systemLibrary(
            name: "CMosquitto", pkgConfig: "libmosquitto",
            providers: [.apt(["libmosquitto-dev"])]),
        .target(
            name: "Uplink",
            dependencies: [
                "MQTT", "GatewayCore", "CMosquitto", nioCore, nioPosix, nioTLS, nioSSL, nioHTTP, nioWebSocket,
            ],
            swiftSettings: swift6),
        .systemLibrary(
            name: "CYaml", pkgConfig: "yaml-0.1", providers: [.apt(["libyaml-dev"])]),
        .target(
            name: "Settings", dependencies: ["MQTT", "GatewayCore", "CYaml"], swiftSettings: swift6),
        .target(
            name: "Operations", dependencies: ["MQTT", "GatewayCore", nioCore, nioPosix],
            swiftSettings: swift6),
        .executableTarget(
            name: "tidegate",
            dependencies: [
                "MQTT", "GatewayCore", "Journal", "Disk", "Transport", "Uplink", "Settings",
                "Operations", nioCore, nioPosix, argumentParser,
            ],
            swiftSettings: swift6),

        // What is not shipped.
        .testTarget(name: "MQTTTests", dependencies: ["MQTT"], swiftSettings: swift6),
        .testTarget(
            name: "GatewayCoreTests", dependencies: ["MQTT", "GatewayCore"], swiftSettings: swift6),
        .testTarget(
            name: "TransportTests",
            dependencies: ["Transport", "MQTT", "Workbench", nioCore, nioPosix, nioHTTP],
            swiftSettings: swift6),
        .testTarget(
            name: "UplinkTests",
            dependencies: [
                "Uplink", "MQTT", "GatewayCore", "Workbench", nioCore, nioPosix, nioEmbedded, nioSSL,
                nioWebSocket,
            ],
            swiftSettings: swift6),
        .testTarget(
            name: "SettingsTests", dependencies: ["MQTT", "GatewayCore", "Settings"],
            swiftSettings: swift6),
        .testTarget(
            name: "OperationsTests",
            dependencies: ["MQTT", "GatewayCore", "Operations", nioCore, nioPosix],
            swiftSettings: swift6),
        .testTarget(name: "PackagingTests", dependencies: ["Workbench"], swiftSettings: swift6),
        .testTarget(
            name: "JournalTests", dependencies: ["Journal", "MQTT", "GatewayCore", "CChecksum"],
            swiftSettings: swift6),
        .testTarget(
            name: "DiskTests", dependencies: ["Disk", "Journal", "MQTT", "GatewayCore", "Workbench"],
            swiftSettings: swift6),
        .testTarget(name: "TidyTests", dependencies: ["mutate"], swiftSettings: swift6),
        .executableTarget(name: "mutate", path: "Tests/Mutate", swiftSettings: swift6),

        // Real processes: the shipped binary between real clients and a real broker.
        .target(
            name: "Workbench", dependencies: ["CMosquitto"], path: "Tests/Workbench",
            swiftSettings: swift6),
        .executableTarget(
            name: "drill", dependencies: ["Workbench"], path: "Tests/Drill", swiftSettings: swift6),
        .executableTarget(
            name: "bench", dependencies: ["Workbench"], path: "Tests/Bench", swiftSettings: swift6),
        // A disk that is cut off from its power: the shipped binary on ext4 on a FUSE file system that records.
        .systemLibrary(
            name: "CFuse", path: "Tests/CFuse", pkgConfig: "fuse3", providers: [.apt(["libfuse3-dev"])]),
        .executableTarget(
            name: "powercut", dependencies: ["MQTT", "Workbench", "CFuse"], path: "Tests/PowerCut",
            swiftSettings: swift6),
        .testTarget(
            name: "ProcessTests", dependencies: ["MQTT", "Workbench", "drill", "powercut", "tidegate"],
            path: "Tests/ProcessTests",
            exclude: ["Paho", "PahoC"], swiftSettings: swift6),
        .testTarget(
            name: "ConversationTests", dependencies: ["MQTT", "Workbench", "tidegate"],
            swiftSettings: swift6),
        .testTarget(name: "TraceabilityTests", swiftSettings: swift6),

        // The whole gateway, its disk, its links and its peers, from one seed.
        .target(
            name: "Simulation", dependencies: ["MQTT", "GatewayCore", "Journal", "Uplink"],
            path: "Tests/Simulation", swiftSettings: swift6),
        .executableTarget(
            name: "simulate", dependencies: ["Simulation"], path: "Tests/Simulate", swiftSettings: swift6),
        .testTarget(
            name: "SimulationTests", dependencies: ["Simulation", "MQTT", "GatewayCore"],
            swiftSettings: swift6),
    ]
)
