// swift-tools-version: 6.1
import PackageDescription

// What `make fuzz` tries to break recovery with. It stands apart from the package that is built and tested, because
// every module in it is built with the sanitizers, and none of it is built in any other way. Modules/ and most of
// Recovery/ are links.
let swift6: [SwiftSetting] = [.swiftLanguageMode(.v6), .enableUpcomingFeature("ExistentialAny")]
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")
let heap = Target.Dependency.product(name: "HeapModule", package: "swift-collections")

let package = Package(
    name: "tidegate-fuzz",
    dependencies: [.package(url: "https://github.com/apple/swift-collections.git", from: "1.6.0")],
    targets: [
        .target(name: "MQTT", path: "Modules/MQTT", swiftSettings: swift6),
        .target(
            name: "GatewayCore", dependencies: ["MQTT", deque, heap], path: "Modules/GatewayCore",
            swiftSettings: swift6),
        .target(name: "CChecksum", path: "Modules/CChecksum"),
        .target(
            name: "Journal", dependencies: ["MQTT", "GatewayCore", "CChecksum", deque],
            path: "Modules/Journal", exclude: ["Format.md"], swiftSettings: swift6),
        .systemLibrary(name: "Sanitizer", path: "Modules/Sanitizer"),
        .executableTarget(
            name: "fuzz-recovery", dependencies: ["Journal", "GatewayCore", "MQTT", "Sanitizer"],
            path: "Recovery", swiftSettings: swift6 + [.unsafeFlags(["-parse-as-library"])]),
    ]
)
