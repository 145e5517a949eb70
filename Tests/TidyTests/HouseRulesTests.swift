import Foundation
import Testing

@Suite("House rules")
struct HouseRulesTests {
    /// What each module may import, and nothing else: the arrows of the house.
    private static let imports: [String: Set<String>] = [
        "MQTT": [],
        "GatewayCore": ["MQTT", "DequeModule", "HeapModule"],
        "Journal": ["MQTT", "GatewayCore", "CChecksum", "DequeModule"],
        "Disk": ["MQTT", "GatewayCore", "Journal", "CLinux", "Glibc"],
        "Transport": [
            "MQTT", "NIOCore", "NIOPosix", "NIOTLS", "NIOSSL", "NIOHTTP1", "NIOWebSocket", "Glibc",
        ],
        "Uplink": [
            "MQTT", "GatewayCore", "CMosquitto", "NIOCore", "NIOPosix", "NIOTLS", "NIOSSL", "NIOHTTP1",
            "NIOWebSocket", "Glibc",
        ],
        "Settings": ["MQTT", "GatewayCore", "CYaml", "Glibc"],
        "Operations": ["MQTT", "GatewayCore", "NIOCore", "NIOPosix", "NIOHTTP1", "Glibc"],
        "tidegate": [
            "MQTT", "GatewayCore", "Journal", "Disk", "Transport", "Uplink", "Settings", "Operations",
            "NIOCore", "NIOPosix", "NIOSSL", "ArgumentParser", "Logging", "Glibc",
        ],
    ]
    /// Modules of C: headers and a few lines, no Swift.
    private static let ofC: Set<String> = ["CChecksum", "CLinux", "CMosquitto", "CYaml"]

    private static let sources = SourceTree.swiftFiles(under: "Sources")

    @Test("The sources are found, and every module is in the table")
    func modules() {
        #expect(Self.sources.count > 30)
        for module in SourceTree.folders(in: "Sources") {
            #expect(Self.imports[module] != nil || Self.ofC.contains(module), "\(module) is not in the table")
        }
    }

    @Test("A module imports what the table allows, and Foundation nowhere")
    func importsPerModule() throws {
        let pattern = try Regex(
            #"^\s*(?:@[\w(),: ]+\s+)?(?:\w+\s+)?import\s+(?:(?:struct|class|enum|func|let|var|protocol|typealias)\s+)?(\w+)"#
        )
        for file in Self.sources {
            let module = String(file.path.split(separator: "/")[1])
            for line in file.code {
                guard let name = line.firstMatch(of: pattern)?.output[1].substring.map(String.init) else {
                    continue
                }
                #expect(Self.imports[module]?.contains(name) == true, "\(file.path): import \(name)")
            }
        }
    }

    @Test(
        "The core is deterministic and has no threads: it does not even have the words",
        arguments: [
            #"\basync\b"#, #"\bawait\b"#, #"\bTask\b"#, #"\bany [A-Z]"#, #"\bDispatchQueue\b"#, #"Lock\b"#,
            #"\bMutex\b"#, #"\bactor\b"#, #"\bObjectIdentifier\b"#, #"\bprint\("#, #"\bDate\b"#,
            #"\bContinuousClock\b"#, #"\bSuspendingClock\b"#, #"[rR]andom"#, #"\bHasher\b"#,
            #"\bhashValue\b"#,
        ])
    func coreVocabulary(word: String) throws {
        let pattern = try Regex(word)
        for file in Self.sources where file.path.hasPrefix("Sources/GatewayCore/") {
            for line in file.lines(matching: pattern) {
                Issue.record("\(file.path):\(line.number): \(line.text)")
            }
        }
    }

    @Test(
        "Nothing is public, and no failure is thrown away",
        arguments: [#"\bpublic\b"#, #"\btry\?"#, #"\btry!"#, #"\bas!"#, #"\bopen class\b"#])
    func forbidden(word: String) throws {
        let pattern = try Regex(word)
        for file in Self.sources {
            for line in file.lines(matching: pattern) {
                Issue.record("\(file.path):\(line.number): \(line.text)")
            }
        }
    }

    @Test(
        "Whatever the compiler takes on our word is explained on its line or the one above",
        arguments: [
            #"@unchecked Sendable"#, #"nonisolated\(unsafe\)"#, #"[\w)\]]!(?![=\w])(?!\s*\()"#,
            #"unsafeBitCast"#, #"@exclusivity\(unchecked\)"#,
        ])
    func explained(word: String) throws {
        let pattern = try Regex(word)
        for file in Self.sources {
            for line in file.lines(matching: pattern) where !file.isExplained(line.number) {
                Issue.record("\(file.path):\(line.number): \(line.text)")
            }
        }
    }

    // Tests of all targets run side by side in one process, and SwiftNIO accepts sockets without SOCK_CLOEXEC: a child
    // that inherits one keeps the connection of somebody else's test from ending.
    @Test("A test starts a process through ChildProcess, which hands down no socket")
    func childrenInheritNothing() throws {
        let pattern = try Regex(#"\bposix_spawn\b|\bProcess\(\)|\bfork\(|\bpopen\("#)
        for file in SourceTree.swiftFiles(under: "Tests")
        where file.path.split(separator: "/")[1].hasSuffix("Tests") {
            for (line, text) in file.code.enumerated() where text.contains(pattern) {
                Issue.record("\(file.path):\(line + 1): \(text)")
            }
        }
    }

    @Test("A file is one idea: at most 600 lines")
    func length() {
        for file in Self.sources + SourceTree.swiftFiles(under: "Tests") {
            #expect(file.lines.count <= 601, "\(file.path) has \(file.lines.count) lines")
        }
    }

    @Test("Nothing is left for later")
    func noStubs() throws {
        let pattern = try Regex(#"\b(TODO|FIXME|XXX|HACK)\b"#)
        for file in Self.sources {
            for (i, line) in file.lines.enumerated() where line.firstMatch(of: pattern) != nil {
                Issue.record("\(file.path):\(i + 1): \(line)")
            }
        }
    }

    @Test("The top level holds what is indispensable, and nothing else")
    func topLevel() throws {
        let allowed: Set = [
            "Package.swift", "Package.resolved", "Sources", "Tests", "device-profiles", "systemd",
            "README.md",
            "Makefile", "LICENSE", ".ci", ".gitignore", ".swift-format",
            // Not in the repository.
            ".git", ".build", ".swiftpm",
        ]
        let there = try FileManager.default.contentsOfDirectory(atPath: SourceTree.root.path)
        #expect(Set(there).subtracting(allowed) == [])
    }
}
