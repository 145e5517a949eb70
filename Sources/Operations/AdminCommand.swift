/// What an operator asks of the running gateway.
///
/// It travels as one line of words, the answer as lines that begin with `- ` and one that says `ok` or `failed`: enough
/// for `socat`, and nothing that needs a parser.
package enum AdminCommand: Hashable, Sendable {
    /// Read the configuration again.
    case reload
    /// Send dead letters of an uplink again: these, or all.
    case replay(uplink: String, numbers: [UInt64]?)
    /// Forget dead letters of an uplink: these, or all.
    case purge(uplink: String, numbers: [UInt64]?)
    /// Say which clients there are, and how each is treated.
    case clients
    /// Say what the device profiles have done.
    case profiles

    /// As it is sent, without the line end.
    package var line: String {
        switch self {
        case .reload: "reload"
        case .clients: "clients"
        case .profiles: "profiles"
        case .replay(let uplink, let numbers): "replay \(uplink) \(Self.text(numbers))"
        case .purge(let uplink, let numbers): "purge \(uplink) \(Self.text(numbers))"
        }
    }

    /// nil for a line that is not one of these.
    package init?(line: some Sequence<UInt8>) {
        let words = Array(line).split(separator: UInt8(ascii: " ")).map {
            String(decoding: $0, as: UTF8.self)
        }
        switch words.first {
        case "reload" where words.count == 1:
            self = .reload
        case "clients" where words.count == 1:
            self = .clients
        case "profiles" where words.count == 1:
            self = .profiles
        case "replay" where words.count > 2:
            guard let numbers = Self.numbers(words[2...]) else { return nil }
            self = .replay(uplink: words[1], numbers: numbers.isEmpty ? nil : numbers)
        case "purge" where words.count > 2:
            guard let numbers = Self.numbers(words[2...]) else { return nil }
            self = .purge(uplink: words[1], numbers: numbers.isEmpty ? nil : numbers)
        case .some, nil:
            return nil
        }
    }

    private static func text(_ numbers: [UInt64]?) -> String {
        numbers.map { $0.map { "\($0)" }.joined(separator: " ") } ?? "all"
    }

    /// None for `all`, nil where one is no number.
    private static func numbers(_ words: ArraySlice<String>) -> [UInt64]? {
        if words.elementsEqual(["all"]) { return [] }
        let numbers = words.compactMap { UInt64($0) }
        return numbers.count == words.count ? numbers : nil
    }
}

/// What became of a command, in plain words.
package struct AdminAnswer: Hashable, Sendable {
    package var isGood: Bool
    /// For the operator; without line ends.
    package var lines: [String]

    package init(isGood: Bool, lines: [String]) {
        self.isGood = isGood
        self.lines = lines
    }

    package static func failed(_ line: String) -> AdminAnswer { AdminAnswer(isGood: false, lines: [line]) }

    /// As it is sent.
    var bytes: [UInt8] {
        let text = lines.map { "- " + String($0.map { $0.isNewline ? " " : $0 }) + "\n" }.joined()
        return Array((text + (isGood ? Self.good : Self.bad) + "\n").utf8)
    }

    /// nil for bytes that do not end as an answer does: the gateway was stopped in between.
    init?(_ bytes: [UInt8]) {
        var lines = bytes.split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) }
        guard bytes.last == UInt8(ascii: "\n"), let last = lines.popLast(),
            [Self.good, Self.bad].contains(last),
            lines.allSatisfy({ $0.hasPrefix("- ") })
        else { return nil }
        self.init(isGood: last == Self.good, lines: lines.map { String($0.dropFirst(2)) })
    }

    private static let good = "ok"
    private static let bad = "failed"
}

/// Bounds for what comes by the control socket: its owner is trusted, a mistake of theirs is not.
enum AdminLimits {
    /// A longer line is refused; some thousand numbers of dead letters.
    static let lineBytesMax = 32_768
    /// More at once are told that there are too many.
    static let connectionsMax = 4
    /// Seconds from connecting to the end of the line.
    static let lineSeconds: Int64 = 10
    /// A longer answer is not believed.
    static let answerBytesMax = 16 << 20
    /// Seconds for the gateway to answer: reading the configuration waits for its disk.
    static let answerSeconds = 60
}
