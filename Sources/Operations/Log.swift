import Glibc

/// How much a line matters; the raw values are syslog's priorities.
package enum LogLevel: UInt8, Sendable, Comparable, CaseIterable {
    case error = 3
    case warning = 4
    case notice = 5
    case info = 6
    case debug = 7

    /// Rises with detail: `.error < .debug`.
    package static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }

    package var name: String {
        switch self {
        case .error: "error"
        case .warning: "warning"
        case .notice: "notice"
        case .info: "info"
        case .debug: "debug"
        }
    }
}

/// What a line is about: lines of one kind share a rate, so that a misbehaving client cannot flood flash with
/// log, nor hide what else happens.
package enum LogKind: Int, Sendable, CaseIterable {
    case gateway, connected, refused, disconnected, sessionEnded, subscriptions, dropped, uplink, pressure,
        storage

    /// For "… more lines about …".
    var plural: String {
        switch self {
        case .gateway: "the gateway"
        case .connected: "clients connecting"
        case .refused: "clients refused"
        case .disconnected: "clients disconnecting"
        case .sessionEnded: "sessions ending"
        case .subscriptions: "subscriptions that are not allowed"
        case .dropped: "dropped messages"
        case .uplink: "uplinks"
        case .pressure: "room for messages"
        case .storage: "storage"
        }
    }
}

/// One line for a person, not yet in the form its reader wants.
package struct LogLine: Hashable, Sendable {
    package var level: LogLevel
    package var kind: LogKind
    package var text: String

    package init(_ level: LogLevel, _ kind: LogKind, _ text: String) {
        self.level = level
        self.kind = kind
        self.text = text
    }

    /// `<6>text` as the systemd journal reads it (sd-daemon(3)).
    package var forJournal: String { "<\(level.rawValue)>\(text)\n" }

    /// `2026-11-23T00:00:00Z info text`.
    ///
    /// - Parameter unixSeconds: wall clock, which may be wrong: it is only for people.
    package func forTerminal(unixSeconds: Int) -> String {
        "\(Self.time(unixSeconds)) \(level.name) \(text)\n"
    }

    /// Foreign text made harmless: control characters, line ends among them, and the characters that turn the
    /// direction of writing are escaped; beyond `lengthMax` characters it is cut.
    package static func harmless(_ text: String) -> String {
        var result = ""
        var count = 0
        for scalar in text.unicodeScalars {
            count += 1
            if count > lengthMax {
                result += "…"
                break
            }
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned:
                result += "\\u{\(String(scalar.value, radix: 16))}"
            default:
                if scalar == "\\" { result += "\\\\" } else { result.unicodeScalars.append(scalar) }
            }
        }
        return result
    }

    /// The most characters of one client identifier or other foreign text in a line.
    static let lengthMax = 200

    private static func time(_ unixSeconds: Int) -> String {
        var seconds = time_t(unixSeconds)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        var buffer = [CChar](repeating: 0, count: 32)
        let count = strftime(&buffer, buffer.count, "%Y-%m-%dT%H:%M:%SZ", &parts)
        return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// Holds each kind of line to `linesPerSecond`; what was held back is told in one line when its second is over.
package struct LogRate: Sendable {
    package static let linesPerSecond = 20

    private struct Second {
        var number: UInt64 = 0
        var written = 0
        var heldBack = 0
    }

    private var seconds = [Second](repeating: Second(), count: LogKind.allCases.count)

    package init() {}

    /// What to write for `line` now: nothing, the line, or the line after a word on what was held back.
    ///
    /// - Parameter milliseconds: a clock that never goes back.
    package mutating func admit(_ line: LogLine, atMilliseconds milliseconds: UInt64) -> [LogLine] {
        let now = milliseconds / 1000
        var lines: [LogLine] = []
        let index = line.kind.rawValue
        if seconds[index].number != now {
            lines += takeSummary(of: line.kind)
            seconds[index] = Second(number: now)
        }
        if seconds[index].written < Self.linesPerSecond {
            seconds[index].written += 1
            lines.append(line)
        } else {
            seconds[index].heldBack += 1
        }
        return lines
    }

    /// What is still to be said about lines held back in seconds that are over: for a timer, and at the end.
    ///
    /// - Parameter milliseconds: as for `admit`; nil at the end, when every second is over.
    package mutating func summaries(atMilliseconds milliseconds: UInt64?) -> [LogLine] {
        LogKind.allCases.flatMap { kind in
            seconds[kind.rawValue].number == milliseconds.map { $0 / 1000 } ? [] : takeSummary(of: kind)
        }
    }

    private mutating func takeSummary(of kind: LogKind) -> [LogLine] {
        let count = seconds[kind.rawValue].heldBack
        seconds[kind.rawValue].heldBack = 0
        guard count > 0 else { return [] }
        let (lines, are) = count == 1 ? ("line", "is") : ("lines", "are")
        let text = "\(count) more \(lines) about \(kind.plural) in one second \(are) not shown"
        return [LogLine(.warning, kind, text)]
    }
}

/// Writes lines to stderr, each with one write(2), so that lines of several writers never mix.
///
/// A write that fails is not repeated, and none is made while whoever reads takes nothing: a log must not stop the
/// gateway. Owned by one thread.
package struct Log: ~Copyable {
    private let descriptor: CInt
    private let isJournal: Bool
    private let levelMax: LogLevel
    private var rate = LogRate()
    /// Lines that were not taken, and not yet told of.
    private var leftOut = 0

    /// - Parameters:
    ///   - descriptor: stderr unless a test looks.
    ///   - isJournal: whether stderr is the systemd journal.
    ///   - levelMax: lines with more detail are not written.
    package init(
        descriptor: CInt = STDERR_FILENO,
        isJournal: Bool = Log.isJournal(STDERR_FILENO, ServiceNotifier.processEnvironment("JOURNAL_STREAM")),
        levelMax: LogLevel = .info
    ) {
        self.descriptor = descriptor
        self.isJournal = isJournal
        self.levelMax = levelMax
    }

    package mutating func write(_ line: LogLine) {
        guard line.level <= levelMax else { return }
        for line in rate.admit(line, atMilliseconds: Self.milliseconds()) { put(line) }
    }

    /// Tells what was held back and not yet told: once a second or so, if convenient, and before the end.
    package mutating func flush(isEnd: Bool) {
        for line in rate.summaries(atMilliseconds: isEnd ? nil : Self.milliseconds()) { put(line) }
    }

    /// Nobody waits for whoever reads the log: what it does not take now is left out, and counted.
    private mutating func put(_ line: LogLine) {
        guard isTakingLines else {
            leftOut += 1
            return
        }
        if leftOut > 0 {
            let count = leftOut
            leftOut = 0
            put(LogLine(.warning, .gateway, "\(count) lines were left out: nobody read the log"))
        }
        let bytes = Array((isJournal ? line.forJournal : line.forTerminal(unixSeconds: Glibc.time(nil))).utf8)
        var written = Glibc.write(descriptor, bytes, bytes.count)
        while written < 0, errno == EINTR { written = Glibc.write(descriptor, bytes, bytes.count) }
    }

    private var isTakingLines: Bool {
        var state = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        // Where it cannot be told a write will.
        return poll(&state, 1, 0) != 0
    }

    private static func milliseconds() -> UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec) / 1_000_000
    }

    /// Whether `descriptor` is the stream that JOURNAL_STREAM names as `device:inode` (systemd.exec(5)); the
    /// variable alone is inherited by children whose stderr goes elsewhere.
    package static func isJournal(_ descriptor: CInt, _ journalStream: String?) -> Bool {
        var status = stat()
        guard let journalStream, fstat(descriptor, &status) == 0 else { return false }
        return journalStream == "\(status.st_dev):\(status.st_ino)"
    }
}
