import Foundation
import Testing
import Workbench

/// `tidegate audit` and `tidegate journal` on stores that the shipped binary wrote.
@Suite("audit and journal, the commands", .serialized)
struct AuditTests {
    @Test("P3: published, drained in part and killed: the books balance, while it runs and afterwards")
    func balances() throws {
        let rig = try Rig()
        let gateway = try filled(rig, messages: 400)
        try rig.run(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(gateway.port)", "-i", "archive", "-c", "-q", "1", "-t", "sensors/#", "-C", "250"])
        // What was acknowledged is recorded within seconds; until then it counts as queued.
        let isDelivered = waitUpTo(30) {
            guard let audit = try? rig.command("audit", "--config", gateway.configurationPath) else {
                return false
            }
            return audit.ending == .exited(0) && numbers(audit.text, "total").map { $0[2] > 0 } ?? false
        }
        #expect(isDelivered, "\(gateway.log.suffix(500))")
        gateway.kill()
        let (ending, text) = try rig.command("audit", "--config", gateway.configurationPath)
        #expect(ending == .exited(0), "\(text)")
        let total = try #require(numbers(text, "total"))
        // received, taken over, delivered, queued, expired, dropped, handed over
        #expect(total[0] == 400 && total[2] + total[3] == 400 && total[4] + total[5] == 0, "\(text)")
        #expect(text.hasSuffix("balanced\n"))
        #expect(
            try rig.command("journal", "verify", "--config", gateway.configurationPath).ending == .exited(0))

        try gateway.start()
        #expect(gateway.stop() == .exited(0))
        #expect(gateway.log.contains("books: 400 received"))
    }

    @Test(
        "P6: verify says which bytes are damaged, the books call them so, and after repair a start finds nothing"
    )
    func findsDamage() throws {
        let rig = try Rig()
        let gateway = try filled(rig, messages: 300)
        gateway.kill()
        let name = "seg-0000000000000001.log"
        let path = URL(fileURLWithPath: gateway.statePath).appendingPathComponent(name)
        var bytes = try Data(contentsOf: path)
        let place = try #require(bytes.range(of: Data("number 150 ".utf8))).lowerBound
        bytes[place] ^= 1
        try bytes.write(to: path)

        let verify = try rig.command("journal", "verify", "--config", gateway.configurationPath)
        #expect(verify.ending == .exited(1))
        let found = try #require(
            verify.text.firstMatch(of: /damaged: seg-0000000000000001\.log, bytes (\d+) to (\d+)/),
            "\(verify.text)")
        let range = try #require(Int(found.1))..<(try #require(Int(found.2)))
        #expect(range.contains(place) && range.lowerBound % 4096 == 0)

        let audit = try rig.command("audit", "--config", gateway.configurationPath)
        #expect(audit.ending == .exited(0), "what is damaged is accounted for: \(audit.text)")
        #expect(audit.text.contains("dropped, the bytes on disk were damaged"))

        let repair = try rig.command("journal", "repair", "--config", gateway.configurationPath)
        #expect(repair.ending == .exited(0) && repair.text.contains("repaired"), "\(repair.text)")
        // The segment is still needed, and the damage still in it.
        let again = try rig.command("journal", "verify", "--config", gateway.configurationPath)
        #expect(again.ending == .exited(0), "\(again.text)")
        #expect(
            again.text.contains(
                "damaged: \(name), bytes \(found.1) to \(found.2), put aside as quarantine/\(name).\(found.1)-\(found.2)"
            )
                && again.text.contains("as was known"), "\(again.text)")
        // More of it is news.
        bytes = try Data(contentsOf: path)
        bytes[range.lowerBound + 100] ^= 1
        try bytes.write(to: path)
        let worse = try rig.command("journal", "verify", "--config", gateway.configurationPath)
        #expect(worse.ending == .exited(1) && worse.text.hasSuffix("\ndamaged\n"), "\(worse.text)")

        let before = gateway.log.count
        try gateway.start()
        #expect(gateway.stop() == .exited(0))
        #expect(!gateway.log.dropFirst(before).contains("damaged"), "\(gateway.log.suffix(1000))")
    }

    @Test("repair refuses a store in use, and looking at it disturbs nobody")
    func leavesRunningStoreAlone() throws {
        let rig = try Rig()
        let gateway = try filled(rig, messages: 20)
        let repair = try rig.command("journal", "repair", "--config", gateway.configurationPath)
        #expect(repair.ending == .exited(1) && repair.text.contains("in use"), "\(repair.text)")
        let stats = try rig.command(
            "journal", "stats", "--config", gateway.configurationPath, "--endurance", "8 TB", "--json")
        #expect(stats.ending == .exited(0))
        let json = try JSONSerialization.jsonObject(with: Data(stats.text.utf8)) as? [String: Any]
        #expect(json?["messages"] as? Int == 20, "\(stats.text)")
        let dump = try rig.command(
            "journal", "dump", "--config", gateway.configurationPath, "--payload")
        #expect(dump.text.contains("\"number 20 of the test\""), "\(dump.text.suffix(500))")
        #expect(gateway.isRunning)
        #expect(gateway.stop() == .exited(0))
    }

    @Test("a state directory that is not there is named, and not made")
    func namesMissingStore() throws {
        let rig = try Rig()
        let path = rig.place.file("nothing")
        for command in Self.commands {
            let (ending, text) = try rig.command(arguments: command + ["--state", path])
            #expect(ending == .exited(1) && text.contains(path), "\(command): \(text)")
        }
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test("a directory that is no store is called so, and left as it is")
    func namesForeignDirectory() throws {
        let rig = try Rig()
        let file = try rig.place.write("mine", to: "other/notes")
        let path = URL(filePath: file).deletingLastPathComponent().path
        for command in Self.commands {
            let (ending, text) = try rig.command(arguments: command + ["--state", path])
            #expect(ending == .exited(1) && text.contains("\(path) holds no store"), "\(command): \(text)")
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: path) == ["notes"])
    }

    private static let commands = [
        ["audit"], ["journal", "verify"], ["journal", "stats"], ["journal", "dump"], ["journal", "repair"],
    ]

    @Test("what root repairs still belongs to the gateway's user")
    func repairedByRoot() throws {
        let rig = try Rig()
        guard geteuid() == 0 else { return print("skipped what only root can do: repairing another's store") }
        let gateway = try filled(rig, messages: 300)
        gateway.kill()
        let nobody = "65534:65534"
        try rig.run("/bin/chown", ["-R", nobody, gateway.statePath])
        // FORMAT is written anew, and what is damaged of the segment goes to quarantine.
        for (name, text) in [("FORMAT", nil), ("seg-0000000000000001.log", "number 150 ")] {
            let file = URL(filePath: gateway.statePath + "/" + name)
            var bytes = try Data(contentsOf: file)
            let place = try text.map { try #require(bytes.range(of: Data($0.utf8))).lowerBound } ?? 0
            bytes[place] ^= 1
            try bytes.write(to: file)
        }
        let (ending, text) = try rig.command("journal", "repair", "--config", gateway.configurationPath)
        #expect(ending == .exited(0), "\(text)")
        #expect(FileManager.default.fileExists(atPath: gateway.statePath + "/quarantine"))
        let foreign = try rig.run("/usr/bin/find", [gateway.statePath, "!", "-user", "65534"])
        #expect(foreign == "")
    }

    @Test("a repair that could not be written down says so")
    func repairOnReadOnlyDisk() throws {
        let rig = try Rig()
        guard let disk = SmallDisk(megabytes: 64) else { return }
        let home = try Workplace("state", under: disk.mountPoint)
        let gateway = try filled(rig, messages: 20, stateIn: home)
        #expect(gateway.stop() == .exited(0))
        try #require(disk.remount(readOnly: true))
        let (ending, text) = try rig.command("journal", "repair", "--config", gateway.configurationPath)
        #expect(ending == .exited(1), "\(text)")
        #expect(
            text.contains("cannot write a checkpoint") && text.contains("Read-only file system"), "\(text)")
        try #require(disk.remount(readOnly: false))
        let again = try rig.command("journal", "repair", "--config", gateway.configurationPath)
        #expect(again.ending == .exited(0) && again.text.contains("20 messages wait"), "\(again.text)")
    }

    /// A running gateway with messages for a client that is away.
    private func filled(_ rig: Rig, messages: Int, stateIn home: Workplace? = nil) throws -> Gateway {
        let gateway = try rig.gateway(stateIn: home)
        try gateway.start()
        let port = "\(gateway.port)"
        try rig.run(
            "/usr/bin/mosquitto_sub",
            ["-p", port, "-i", "archive", "-c", "-q", "1", "-t", "sensors/#", "-E"])
        let lines = (1...messages).map { "number \($0) of the test\n" }.joined()
        let file = try rig.place.write(lines, to: "lines")
        try rig.run(
            "/bin/sh",
            ["-c", "mosquitto_pub -p \(port) -i press -q 1 -t sensors/press -l < \(file)"])
        return gateway
    }

    /// The numbers in the line that begins with `name`.
    private func numbers(_ text: String, _ name: String) -> [Int]? {
        text.split(separator: "\n").first { $0.hasPrefix(name) }?
            .split(separator: " ").compactMap { Int($0) }
    }
}
