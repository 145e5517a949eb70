import Foundation

/// A copy of the sources in which every mutant can be chosen when it runs, and its build.
struct Workshop {
    /// Of the repository.
    let root: URL
    let place: URL

    /// What the simulator is built of: the product's own modules less everything that needs a network, and itself.
    private static let folders = [
        "Sources/MQTT", "Sources/GatewayCore", "Sources/CChecksum", "Sources/Journal", "Sources/CMosquitto",
        "Tests/Simulation", "Tests/Simulate",
    ]
    private static let files = [
        "AddressOrder", "Conversation", "Engine", "HandshakeLedger", "UplinkAddress", "UplinkNotice",
        "UplinkPlan",
    ].map { "Sources/Uplink/\($0).swift" }

    /// Of the environment, by which a run is told which rule to break.
    static let variable = "TIDEGATE_MUTANT"

    var simulator: String { place.appendingPathComponent(".build/release/simulate").path }

    /// Copies the sources and puts the mutants into them. What has not changed since the last time is left alone, so that
    /// it is not built anew.
    func prepare(_ mutants: [Mutant]) throws {
        var paths = Self.files
        for folder in Self.folders { paths += try Self.listing(root, folder) }
        var texts = try paths.reduce(into: [String: String]()) { texts, path in
            texts[path] = try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
        }
        try Self.rewrite(&texts, mutants)
        texts["Package.swift"] = Self.package
        texts["Sources/MQTT/Mutation.swift"] = Self.choice
        for (path, text) in texts { try Self.write(text, to: place.appendingPathComponent(path)) }
        for folder in Self.folders + ["Sources/Uplink"] {
            for path in try Self.listing(place, folder) where texts[path] == nil {
                try FileManager.default.removeItem(at: place.appendingPathComponent(path))
            }
        }
    }

    /// Puts the mutants into the texts of the files.
    ///
    /// - Throws: `Mistake` when what a mutant changes is not there exactly once, or two change the same.
    static func rewrite(_ texts: inout [String: String], _ mutants: [Mutant]) throws {
        struct Change {
            let range: Range<String.Index>
            let text: String
            let mutant: String
        }
        var changes: [String: [Change]] = [:]
        for (number, mutant) in mutants.enumerated() {
            for edit in mutant.edits {
                guard let text = texts[edit.file] else {
                    throw Mistake("\(mutant.name): there is no \(edit.file)")
                }
                let found = text.ranges(of: edit.text)
                guard found.count == 1, let range = found.first else {
                    throw Mistake(
                        "\(mutant.name): stands \(found.count) times in \(edit.file): \(edit.text)")
                }
                if let other = changes[edit.file]?.first(where: { $0.range.overlaps(range) }) {
                    throw Mistake("\(mutant.name) and \(other.mutant) change the same in \(edit.file)")
                }
                let instead = edit.instead.replacing("MUTANT", with: "(Mutation.chosen == \(number + 1))")
                changes[edit.file, default: []].append(
                    Change(range: range, text: instead, mutant: mutant.name))
            }
        }
        for (file, list) in changes {
            guard var text = texts[file] else { continue }
            for change in list.sorted(by: { $0.range.lowerBound > $1.range.lowerBound }) {
                text.replaceSubrange(change.range, with: change.text)
            }
            texts[file] = "import MQTT\n" + text
        }
    }

    /// Builds the simulator, optimised.
    func build(jobs: Int) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [
            "swift", "build", "-c", "release", "--package-path", place.path, "--product", "simulate", "-j",
            "\(jobs)",
        ]
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw Mistake("the mutants cannot be built") }
    }

    static func listing(_ root: URL, _ folder: String) throws -> [String] {
        let base = root.appendingPathComponent(folder)
        guard let found = FileManager.default.enumerator(atPath: base.path) else {
            throw Mistake("there is no \(folder)")
        }
        var paths: [String] = []
        while let name = found.nextObject() as? String {
            var isFolder: ObjCBool = false
            let path = base.appendingPathComponent(name).path
            guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), !isFolder.boolValue
            else { continue }
            paths.append("\(folder)/\(name)")
        }
        return paths.sorted()
    }

    private static func write(_ text: String, to url: URL) throws {
        if let old = FileManager.default.contents(atPath: url.path), old == Data(text.utf8) { return }
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(text.utf8).write(to: url)
    }

    private static let choice = """
        import Glibc

        /// Which rule this run breaks; 0 for none.
        package enum Mutation {
            package static let chosen = getenv("\(variable)").flatMap { Int(String(cString: $0)) } ?? 0
        }

        """

    private static let package = """
        // swift-tools-version: 6.1
        import PackageDescription

        let swift6: [SwiftSetting] = [.swiftLanguageMode(.v6), .enableUpcomingFeature("ExistentialAny")]
        let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")
        let heap = Target.Dependency.product(name: "HeapModule", package: "swift-collections")

        let package = Package(
            name: "tidegate-mutants",
            dependencies: [.package(url: "https://github.com/apple/swift-collections.git", from: "1.6.0")],
            targets: [
                .target(name: "MQTT", swiftSettings: swift6),
                .target(name: "GatewayCore", dependencies: ["MQTT", deque, heap], swiftSettings: swift6),
                .target(name: "CChecksum"),
                .target(
                    name: "Journal", dependencies: ["MQTT", "GatewayCore", "CChecksum", deque], exclude: ["Format.md"],
                    swiftSettings: swift6),
                .systemLibrary(name: "CMosquitto", pkgConfig: "libmosquitto"),
                .target(
                    name: "Uplink", dependencies: ["MQTT", "GatewayCore", "CMosquitto"], swiftSettings: swift6),
                .target(
                    name: "Simulation", dependencies: ["MQTT", "GatewayCore", "Journal", "Uplink"],
                    path: "Tests/Simulation", swiftSettings: swift6),
                .executableTarget(
                    name: "simulate", dependencies: ["Simulation"], path: "Tests/Simulate", swiftSettings: swift6),
            ]
        )

        """
}

/// What is wrong with the list of mutants or with the copy, in words.
struct Mistake: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
