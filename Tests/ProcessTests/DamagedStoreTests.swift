import Foundation
import Testing
import Workbench

/// Promise P6 with the shipped binary: whatever became of one of its files, the gateway starts, serves what is left, and
/// says what is not.
@Suite("damaged stores", .serialized)
struct DamagedStoreTests {
    /// What is done to a file.
    enum Harm: CaseIterable {
        case bitFlipped, truncated, removed, replacedByDirectory
    }

    @Test(
        "P6: each file of a killed gateway in turn is damaged: it starts, and delivers all whose bytes were not",
        arguments: [Seed.ofThisRun])
    func oneFileDamaged(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let rig = try Rig()
        let store = try KilledStore(rig)
        let files = try store.files()
        for prefix in ["seg-", "ckpt-", "FORMAT", "LOCK", "reserve"] {
            #expect(files.contains { $0.hasPrefix(prefix) }, "the store is worth testing: \(files)")
        }
        for file in files {
            // A segment gets all of it; of the rest, which holds no messages, a part each time.
            let harms =
                file.hasPrefix("seg-")
                ? Harm.allCases : Array(Harm.allCases.shuffled(using: &random).prefix(2))
            for harm in harms { try store.survives(harm, to: file, &random) }
        }
        try store.survivesFileNamedQuarantine()
    }
}

/// A store with messages for two clients that are away, as SIGKILL left it, and its copies that come to harm.
private final class KilledStore {
    private let rig: Rig
    private let gateway: Gateway
    private let original: String
    private let batches: [Batch]
    private let messages: Set<Int>

    /// What is written and damaged as one.
    private struct Batch {
        var file: String
        var offset: Int
        var messages: Set<Int> = []
    }

    private static let count = 400
    private static let clients: [(id: String, arguments: [String])] = [
        ("archive-311", ["-V", "mqttv311", "-c"]), ("archive-5", ["-V", "mqttv5", "-c", "-x", "86400"]),
    ]

    /// Four lives: a checkpoint and what is settled before it; messages that the last checkpoint stands for; messages
    /// behind it; and a segment behind those, so that what comes to harm in them is proven to have been there.
    init(_ rig: Rig) throws {
        self.rig = rig
        gateway = try rig.gateway(journal: ["segment-size: 256 KiB", "durability: latency"])
        original = rig.place.file("original")
        try gateway.start()
        for client in Self.clients { try Self.subscribe(client.id, client.arguments, gateway, rig) }
        try Self.publish(10_001...10_100, gateway, rig)
        for client in Self.clients {
            try rig.run(
                "/usr/bin/mosquitto_sub",
                ["-p", "\(gateway.port)", "-i", client.id, "-q", "1", "-t", "t/#", "-C", "100"]
                    + client.arguments)
        }
        usleep(1_500_000)
        #expect(gateway.stop() == .exited(0))
        try gateway.start()
        try Self.publish(1...Self.count / 2, gateway, rig)
        #expect(gateway.stop() == .exited(0))
        try gateway.start()
        try Self.publish(Self.count / 2 + 1...Self.count, gateway, rig)
        gateway.kill()
        try gateway.start()
        try Self.subscribe("newcomer", ["-V", "mqttv5", "-c", "-x", "86400"], gateway, rig)
        gateway.kill()
        // A socket cannot be copied, and is made anew at each start.
        try FileManager.default.removeItem(atPath: gateway.statePath + "/control.sock")
        try FileManager.default.copyItem(atPath: gateway.statePath, toPath: original)
        messages = Set(1...Self.count)
        batches = try Self.batches(gateway, rig)
        #expect(batches.reduce(into: Set()) { $0.formUnion($1.messages) } == messages)
    }

    func files() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: original).sorted() }

    // MARK: Harm

    func survives(_ harm: DamagedStoreTests.Harm, to file: String, _ random: inout SplitMix64) throws {
        try restore()
        let path = gateway.statePath + "/" + file
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        let place = Int.random(in: 0..<max(bytes.count, 1), using: &random)
        let hit: [Batch]
        switch harm {
        case .bitFlipped:
            if bytes.isEmpty { return }
            bytes[place] ^= 1 << Int.random(in: 0..<8, using: &random)
            try bytes.write(to: URL(fileURLWithPath: path))
            hit = Array(batches.filter { $0.file == file && $0.offset <= place }.suffix(1))
        case .truncated:
            try bytes.prefix(place).write(to: URL(fileURLWithPath: path))
            let whole = batches.filter { $0.file == file && $0.offset < place }.dropLast()
            hit = batches.filter { batch in
                batch.file == file && !whole.contains { $0.offset == batch.offset }
            }
        case .removed, .replacedByDirectory:
            try FileManager.default.removeItem(atPath: path)
            hit = batches.filter { $0.file == file }
        }
        if harm == .replacedByDirectory {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        }
        let excused = hit.reduce(into: Set<Int>()) { $0.formUnion($1.messages) }
        try serves(excused: excused, of: file, after: harm, "\(file) \(harm) at byte \(place)")
    }

    func survivesFileNamedQuarantine() throws {
        try restore()
        #expect(
            FileManager.default.createFile(atPath: gateway.statePath + "/quarantine", contents: Data([1])))
        #expect(
            FileManager.default.createFile(
                atPath: gateway.statePath + "/ckpt-00000000000000ff", contents: Data([1, 2, 3])))
        try serves(excused: [], of: "ckpt-00000000000000ff", after: nil, "a file named quarantine")
    }

    private func restore() throws {
        try FileManager.default.removeItem(atPath: gateway.statePath)
        try FileManager.default.copyItem(atPath: original, toPath: gateway.statePath)
    }

    // MARK: What must hold

    private func serves(
        excused: Set<Int>, of file: String, after harm: DamagedStoreTests.Harm?, _ what: String
    ) throws {
        let comment = Comment(rawValue: what)
        let verify = try rig.command("journal", "verify", "--config", gateway.configurationPath)
        let logged = gateway.log.utf8.count
        try gateway.start(within: 10)
        defer { gateway.kill() }
        for client in Self.clients {
            #expect(try SessionProbe.isPresent(client.id, on: gateway.port), comment)
        }
        #expect(try !SessionProbe.isPresent("stranger", on: gateway.port), comment)
        try rig.run(
            "/usr/bin/mosquitto_pub", ["-p", "\(gateway.port)", "-q", "1", "-t", "t/end", "-m", "end"])
        var lost = 0
        for client in Self.clients {
            let received = try drained(client.id, client.arguments, comment)
            let missing = messages.subtracting(received)
            #expect(
                missing.isSubset(of: excused),
                "\(what): \(client.id) misses \(missing.subtracting(excused).sorted())")
            lost += missing.count
        }
        gateway.kill()
        let log = String(decoding: gateway.log.utf8.dropFirst(logged), as: UTF8.self)
        let audit = try rig.command("audit", "--config", gateway.configurationPath)
        #expect(audit.ending == .exited(0), "\(what):\n\(audit.text)")
        guard lost > 0 else { return }
        #expect(verify.ending == .exited(1), "\(what):\n\(verify.text)")
        // What is damaged behind the checkpoint is found at the start, the rest as it is read.
        let isFoundAtStart = log.contains(/records \d+ to \d+ are lost/)
        #expect(isFoundAtStart || log.contains("dropped: damaged on disk"), "\(what):\n\(log)")
        let counted = audit.text.firstMatch(of: /dropped, the bytes on disk were damaged: (\d+)\n/)
            .flatMap { Int($0.1) }
        #expect(
            counted == lost || isFoundAtStart && audit.text.contains(/records \d+ to \d+ are lost/),
            "\(what): \(lost) lost\n\(audit.text)")
        if harm == .removed {
            #expect(verify.text.contains(/(lost|missing): records/), "\(what):\n\(verify.text)")
        } else {
            #expect(verify.text.contains(file), "\(what):\n\(verify.text)")
            #expect(log.contains(file) || !isFoundAtStart, "\(what):\n\(log)")
        }
    }

    /// The numbers of the messages that a client gets up to the one that was published last.
    private func drained(_ id: String, _ arguments: [String], _ what: Comment) throws -> Set<Int> {
        let tool = try rig.tool(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(gateway.port)", "-i", id, "-q", "1", "-t", "t/#"] + arguments)
        #expect(waitUpTo(15) { tool.output.hasSuffix("end\n") }, what)
        tool.process.kill()
        return Set(tool.output.split(separator: "\n").compactMap { Int($0.prefix { $0 != " " }) })
    }

    // MARK: Making it

    private static func subscribe(_ id: String, _ arguments: [String], _ gateway: Gateway, _ rig: Rig) throws
    {
        try rig.run(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(gateway.port)", "-i", id, "-q", "1", "-t", "t/#", "-E"] + arguments)
    }

    private static func publish(_ numbers: ClosedRange<Int>, _ gateway: Gateway, _ rig: Rig) throws {
        let rest = String(repeating: ".", count: 300)
        let file = try rig.place.write(numbers.map { "\($0) \(rest)\n" }.joined(), to: "lines")
        try rig.run(
            "/bin/sh", ["-c", "mosquitto_pub -p \(gateway.port) -i press -q 1 -t t/press -l < \(file)"])
    }

    /// By the dump of the records: `17 seg-….log@8192 message … "17 ....`.
    private static func batches(_ gateway: Gateway, _ rig: Rig) throws -> [Batch] {
        let dump = try rig.command(
            "journal", "dump", "--payload", "--config", gateway.configurationPath, seconds: 60)
        var batches: [Batch] = []
        for line in dump.text.split(separator: "\n") {
            guard let found = line.firstMatch(of: /^\d+ ([^@ ]+)@(\d+) (.*)$/), let offset = Int(found.2)
            else {
                continue
            }
            if batches.last?.file != String(found.1) || batches.last?.offset != offset {
                batches.append(Batch(file: String(found.1), offset: offset))
            }
            if let payload = found.3.firstMatch(of: /"(\d+) \.\.\./), let number = Int(payload.1),
                number <= count
            {
                batches[batches.count - 1].messages.insert(number)
            }
        }
        return batches
    }
}

/// Says what CONNACK says of a Session, and is gone again.
enum SessionProbe {
    /// - Throws: `WorkbenchError` when there is no CONNACK with success.
    static func isPresent(_ id: String, on port: UInt16) throws -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var patience = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        guard Loopback.connect(descriptor, port: port) == 0 else {
            throw WorkbenchError("cannot connect: errno \(errno)")
        }
        // MQTT 3.1.1 with Clean Session 0 for who is expected; whoever else is gone with its connection.
        let flags: UInt8 = id == "stranger" ? 2 : 0
        let name = Array(id.utf8)
        let body = [0, 4] + Array("MQTT".utf8) + [4, flags, 0, 60, 0, UInt8(name.count)] + name
        let packet = [0x10, UInt8(body.count)] + body
        guard send(descriptor, packet, packet.count, Int32(MSG_NOSIGNAL)) == packet.count else {
            throw WorkbenchError("cannot send CONNECT: errno \(errno)")
        }
        var answer = [UInt8](repeating: 0, count: 4)
        guard recv(descriptor, &answer, 4, Int32(MSG_WAITALL)) == 4, answer[0] == 0x20,
            answer[3] == 0
        else {
            throw WorkbenchError("\(id) is answered with \(answer)")
        }
        return answer[2] & 1 == 1
    }
}
