import Foundation
import MQTT
import Testing

@testable import Settings

@Suite("Files")
struct FileTests {
    @Test("A named file that is missing is an error")
    func missing() {
        let error = SettingsError(
            file: "/nowhere/t.yaml", place: nil, wrong: "the file cannot be read: No such file or directory",
            write: "the path of a file that exists, or no --config at all to run with the defaults")
        #expect(throws: SettingsErrors([error])) { try Settings.load(path: "/nowhere/t.yaml") }
    }

    @Test("A directory is no file")
    func directory() {
        let error = SettingsError(
            file: "/tmp", place: nil, wrong: "the file cannot be read: it is a directory", write: nil)
        #expect(throws: SettingsErrors([error])) { try Settings.load(path: "/tmp") }
    }

    @Test("A file is read whole")
    func whole() throws {
        let path = NSTemporaryDirectory() + "settings-\(UUID().uuidString).yaml"
        defer { unlink(path) }
        // More than one read(2), so that the pieces are joined in order.
        let padding = String(repeating: "# \(String(repeating: "x", count: 100))\n", count: 2000)
        try (padding + wholeFile).write(toFile: path, atomically: true, encoding: .utf8)
        #expect(try Settings.load(path: path) == parse(wholeFile))
    }

    @Test(
        "A password file loses one line end",
        arguments: [("a b\n", "a b"), ("x\r\n", "x"), ("y\n\n", "y\n"), ("z", "z")])
    func password(content: String, password: String) throws {
        let path = NSTemporaryDirectory() + "password-\(UUID().uuidString)"
        defer { unlink(path) }
        try content.write(toFile: path, atomically: true, encoding: .utf8)
        #expect(try CredentialSettings.Password.file(path).bytes() == Array(password.utf8))
    }

    @Test("An empty password file is an error")
    func emptyPassword() throws {
        let path = NSTemporaryDirectory() + "password-\(UUID().uuidString)"
        defer { unlink(path) }
        try "\n".write(toFile: path, atomically: true, encoding: .utf8)
        #expect(throws: SettingsErrors.self) { try CredentialSettings.Password.file(path).bytes() }
    }

    @Test("--listen takes port 0 and keeps the rule about other machines")
    func commandLine() throws {
        #expect(
            try ListenerSettings(commandLine: "127.0.0.1:0", isAnonymous: false)
                == ListenerSettings(.tcp(host: "127.0.0.1", port: 0)))
        #expect(throws: SettingsErrors.self) {
            try ListenerSettings(commandLine: "0.0.0.0:1883", isAnonymous: false)
        }
        #expect(
            try ListenerSettings(commandLine: "[::]:1883", isAnonymous: true).endpoint
                == .tcp(host: "::", port: 1883))
        #expect(
            try ListenerSettings(commandLine: "unix:/run/a.sock", isAnonymous: false)
                == ListenerSettings(.unix(path: "/run/a.sock", mode: 0o660)))
    }

    @Test("A machine's name is made fit for topics")
    func hostNames() {
        #expect(Address.gatewayName(from: "plant-7.example.com") == "plant-7")
        #expect(Address.gatewayName(from: "a+b#") == "a-b-")
        #expect(Address.gatewayName(from: "") == "tidegate")
    }
}

@Suite("Foreign bytes")
struct MutationTests {
    @Test("A mutated file is accepted or refused, and never traps", arguments: 1...8)
    func mutations(seed: UInt64) {
        var random = SplitMix(state: seed)
        let pieces = [
            "{", "}", "[", "]", ":", "- ", "\n", "\n  ", "#", "\"", "0", "never", "${", "$", "&a ", "*a", "!",
            "\u{0}", "é", ",",
        ]
        var refused = 0
        for _ in 0..<500 {
            var bytes = Array(wholeFile.utf8)
            for _ in 0...random.below(4) {
                let at = random.below(bytes.count)
                switch random.below(5) {
                case 0: bytes[at] = UInt8(random.below(256))
                case 1: bytes.remove(at: at)
                case 2: bytes.insert(contentsOf: pieces[random.below(pieces.count)].utf8, at: at)
                case 3: bytes.removeSubrange(at..<min(bytes.count, at + random.below(40)))
                default:
                    bytes.insert(
                        contentsOf: bytes[at..<min(bytes.count, at + random.below(60))],
                        at: random.below(bytes.count))
                }
            }
            do throws(SettingsErrors) {
                let settings = try Settings.parse(bytes, file: "m", hostName: "box")
                for route in settings.uplinks.flatMap(\.routes) {
                    if let rename = route.rename { #expect(rename.dropping <= route.filter.bytes.count) }
                }
            } catch {
                refused += 1
                #expect(!error.errors.isEmpty)
                #expect(error.errors.allSatisfy { !$0.wrong.isEmpty && $0.place != nil })
            }
        }
        // Were all accepted or all refused, the mutations would reach nothing.
        #expect(refused > 125 && refused < 500)
    }

    private struct SplitMix {
        var state: UInt64
        mutating func below(_ bound: Int) -> Int {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return Int((z ^ (z >> 31)) % UInt64(bound))
        }
    }
}
