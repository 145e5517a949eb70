import Foundation
import GatewayCore
import MQTT
import Testing

@testable import Operations

@Suite("Log lines")
struct LogTests {
    @Test("The journal gets a priority, a terminal the time")
    func forms() {
        let line = LogLine(.warning, .gateway, "low on space")
        #expect(line.forJournal == "<4>low on space\n")
        #expect(line.forTerminal(unixSeconds: 1_795_392_000) == "2026-11-23T00:00:00Z warning low on space\n")
    }

    @Test("Foreign text cannot forge a line or turn the terminal")
    func foreign() {
        #expect(LogLine.harmless("a\n<0>b\u{1b}[2J\\") == "a\\u{a}<0>b\\u{1b}[2J\\\\")
        #expect(LogLine.harmless("x\u{202E}y\u{7F}") == "x\\u{202e}y\\u{7f}")
        #expect(LogLine.harmless("grün") == "grün")
        #expect(LogLine.harmless(String(repeating: "a", count: 1000)).count == LogLine.lengthMax + 1)
    }

    @Test("A kind of line is held to 20 a second, the others are not, and what was held back is told")
    func rate() {
        var rate = LogRate()
        let refused = LogLine(.warning, .refused, "no")
        let shown = (0..<50).flatMap { rate.admit(refused, atMilliseconds: 5000 + $0) }
        #expect(shown.count == 20)
        let other = LogLine(.info, .connected, "yes")
        #expect(rate.admit(other, atMilliseconds: 5100) == [other])
        #expect(rate.summaries(atMilliseconds: 5999) == [])
        let summary = LogLine(
            .warning, .refused, "30 more lines about clients refused in one second are not shown")
        #expect(rate.admit(refused, atMilliseconds: 6000) == [summary, refused])
        #expect(rate.summaries(atMilliseconds: nil) == [])
        for _ in 0..<21 { _ = rate.admit(refused, atMilliseconds: 7000) }
        #expect(
            rate.summaries(atMilliseconds: 8000)
                == [
                    LogLine(
                        .warning, .refused, "1 more line about clients refused in one second is not shown")
                ])
    }

    @Test(
        "What is full is named, with its limit, what that means and what to do; and once more when it has room"
    )
    func full() {
        let queue = Store.queue(.client(identifier: "archive"), messagesMax: 5)
        #expect(
            LogLine(.full(queue))
                == LogLine(
                    .warning, .pressure,
                    "the queue of \"archive\" is full with 5 messages: who publishes what it is owed is refused "
                        + "(MQTT 5) or waits. Connect it, end its session with a clean start, or raise limits: "
                        + "queue-messages, or the route's own queue"))
        #expect(
            LogLine(.drained(queue))
                == LogLine(.notice, .pressure, "the queue of \"archive\" has room again"))
        #expect(
            LogLine(.full(.queue(.uplink(name: "cloud"), messagesMax: 5))).text.contains("uplink \"cloud\""))
        #expect(
            LogLine(.full(.retained(bytesMax: 7))).text.hasPrefix(
                "the store of retained messages is full with 7 bytes"))
    }

    @Test("A line is written whole, and one with too much detail is not")
    func writing() throws {
        var pipe: [CInt] = [0, 0]
        try #require(Glibc.pipe(&pipe) == 0)
        defer { close(pipe[0]) }
        do {
            var log = Log(descriptor: pipe[1], isJournal: true, levelMax: .info)
            log.write(LogLine(.info, .gateway, "one"))
            log.write(LogLine(.debug, .gateway, "two"))
            log.write(LogLine(.error, .gateway, "three"))
            for _ in 0..<LogRate.linesPerSecond * 3 { log.write(LogLine(.notice, .uplink, "flap")) }
            log.flush(isEnd: true)
        }
        close(pipe[1])
        var buffer = [UInt8](repeating: 0, count: 8192)
        // Two statements: an argument read before the call would be the buffer as it was.
        let count = read(pipe[0], &buffer, buffer.count)
        let lines = String(decoding: buffer.prefix(max(0, count)), as: UTF8.self).split(separator: "\n")
        #expect(lines.prefix(2) == ["<6>one", "<3>three"])
        #expect(lines.contains { $0.hasSuffix("more lines about uplinks in one second are not shown") })
    }

    @Test("Nobody reads the log: it waits for nobody, and tells how much is missing")
    func nobodyReads() throws {
        var pipe: [CInt] = [0, 0]
        try #require(Glibc.pipe(&pipe) == 0)
        defer { pipe.forEach { _ = close($0) } }
        let setPipeSize: CInt = 1031  // F_SETPIPE_SZ of fcntl(2), which Glibc's module leaves out.
        try #require(fcntl(pipe[1], setPipeSize, 4096) == 4096)
        var log = Log(descriptor: pipe[1], isJournal: true, levelMax: .info)
        let kinds = LogKind.allCases
        for n in 0..<20 {
            log.write(LogLine(.info, kinds[n % kinds.count], String(repeating: "x", count: 1000)))
        }
        var buffer = [UInt8](repeating: 0, count: 8192)
        let count = read(pipe[0], &buffer, buffer.count)
        #expect(count > 0 && count <= 4096)
        log.write(LogLine(.error, .gateway, "here again"))
        let rest = read(pipe[0], &buffer, buffer.count)
        let lines = String(decoding: buffer.prefix(max(0, rest)), as: UTF8.self).split(separator: "\n")
        let missing = 20 - count / 1004
        #expect(lines == ["<4>\(missing) lines were left out: nobody read the log", "<3>here again"])
    }

    @Test("Only the stream that JOURNAL_STREAM names is the journal")
    func journalStream() throws {
        var pipe: [CInt] = [0, 0]
        try #require(Glibc.pipe(&pipe) == 0)
        defer { pipe.forEach { _ = close($0) } }
        var status = stat()
        try #require(fstat(pipe[1], &status) == 0)
        #expect(Log.isJournal(pipe[1], "\(status.st_dev):\(status.st_ino)"))
        #expect(!Log.isJournal(pipe[1], "\(status.st_dev):1"))
        #expect(!Log.isJournal(pipe[1], nil))
    }
}

@Suite("Observations in plain words")
struct ObservationTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var observation: Observation
        var level: LogLevel
        var text: String
        init(_ observation: Observation, _ level: LogLevel, _ text: String) {
            self.observation = observation
            self.level = level
            self.text = text
        }
        var testDescription: String { text }
    }

    private static let workers =
        TopicFilter("$share/workers/t/#").map { SessionOwner.group($0) } ?? .uplink(name: "")

    @Test(
        "Each has a sentence",
        arguments: [
            Case(
                .connected(clientIdentifier: "press-12", version: .v5_0, sessionPresent: true), .info,
                "\"press-12\" connected with MQTT 5, its session goes on"),
            Case(
                .connected(clientIdentifier: "a\nb", version: .v3_1_1, sessionPresent: false), .info,
                "\"a\\u{a}b\" connected with MQTT 3.1.1, new session"),
            Case(
                .refused(clientIdentifier: "", .quotaExceeded), .warning,
                "a client without identifier was refused: quota exceeded (0x97)"),
            Case(.disconnected(clientIdentifier: "a", .byClient(.success)), .info, "\"a\" disconnected"),
            Case(
                .disconnected(clientIdentifier: "a", .byClient(.disconnectWithWill)), .info,
                "\"a\" disconnected, saying: disconnect with will message (0x04)"),
            Case(
                .disconnected(clientIdentifier: "a", .malformed(.overlongVariableByteInteger)), .warning,
                "\"a\" was disconnected: malformed packet (a length is written in more bytes than it may take)"
            ),
            Case(
                .disconnected(clientIdentifier: "a", .protocolError(ReasonCode(rawValue: 0xEE))), .warning,
                "\"a\" was disconnected: reason code 0xEE"),
            Case(
                .sessionEnded(clientIdentifier: "a", .expired, undelivered: 1), .warning,
                "the session of \"a\" ended: its expiry interval passed, with 1 message undelivered"),
            Case(
                .dropped(owner: .uplink(name: "cloud"), .tooLarge, count: 3), .warning,
                "3 messages for uplink \"cloud\" dropped: larger than the receiver accepts"),
            Case(
                .dropped(owner: workers, .sessionEnded, count: 1), .warning,
                "1 message for the shared subscription \"$share/workers/t/#\" dropped: the session ended"),
            Case(
                .uplinkConnected(name: "cloud", sessionPresent: false, waiting: 7), .notice,
                "uplink \"cloud\" connected, the cloud began a new session, 7 messages waiting"),
            Case(
                .uplinkDisconnected(name: "cloud", waiting: 0), .notice,
                "uplink \"cloud\" disconnected, 0 messages waiting"),
            Case(
                .uplinkRemoved(name: "cloud", waiting: 1), .warning,
                "uplink \"cloud\" is not configured any more, 1 message waiting in the journal"),
            Case(
                .uplinkRemoved(name: "cloud", waiting: 0), .notice,
                "uplink \"cloud\" is not configured any more, 0 messages waiting in the journal"),
            Case(.pressure(false), .notice, "there is room for new messages again"),
            Case(
                .storageFailed, .error,
                "the disk fails: nothing that must be kept is accepted until it works again; QoS 0 flows on"),
            Case(.storageRecovered, .notice, "the disk works again: everything is accepted"),
            Case(
                .wasOff(milliseconds: 93_784_000), .notice,
                "was off for 1 d 2 h by the wall clock, which is synchronised and steady; deadlines from before the "
                    + "start count it"),
        ])
    func sentences(_ c: Case) {
        let line = LogLine(c.observation)
        #expect(line.text == c.text)
        #expect(line.level == c.level)
    }

    @Test(
        "a time is told in its two largest units",
        arguments: [
            (Int64(0), "0 s"), (999, "0 s"), (12_000, "12 s"), (90_000, "1 min 30 s"), (3_600_000, "1 h"),
            (-7_260_000, "2 h 1 min"), (34_560_000_000, "400 d"), (86_430_000, "1 d"),
        ] as [(Int64, String)])
    func durations(milliseconds: Int64, words: String) {
        #expect(Duration.words(milliseconds) == words)
    }
}
