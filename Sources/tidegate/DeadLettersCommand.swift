import ArgumentParser
import Disk
import GatewayCore
import Glibc
import Journal
import MQTT
import Operations
import Settings

/// `tidegate deadletters …`: what a cloud refused, and what becomes of it.
struct DeadLettersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "deadletters",
        abstract: "Shows the messages that a cloud refused, sends them again, or forgets them.",
        discussion: """
            `list` and `show` read the files, also while the gateway runs or is stopped; what was refused in the last \
            seconds may be missing. `replay` and `purge` are carried out by the gateway, which must be running.
            """,
        subcommands: [List.self, Show.self, Replay.self, Purge.self])

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lists them: uplink, number, when, QoS, bytes, reason and topic.")

        @OptionGroup var store: StoreOptions
        @Option(help: "Only those of the uplink of this name.") var uplink: String?

        func run() throws {
            let settings = try store.settings()
            let letters = try looking { () throws(StoreError) in
                try ReadOnlyStore.look(at: settings.state) { (reader) throws(RecoveryError) in
                    try DeadLetter.list(&reader, uplink: uplink)
                }
            }
            for letter in letters { print(letter.line) }
            if letters.isEmpty { print("no dead letters") }
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Prints one with its properties and its payload.",
            discussion:
                "The payload is text where it is, else hexadecimal; with --raw it is all that is written.")

        @OptionGroup var store: StoreOptions
        @Argument(help: "The uplink's name.") var uplink: String
        @Argument(help: "The number that `list` shows.") var number: UInt64
        @Flag(help: "Write the payload's bytes and nothing else.") var raw = false

        func run() throws {
            let settings = try store.settings()
            let found = try looking { () throws(StoreError) in
                try ReadOnlyStore.look(at: settings.state) { (reader) throws(RecoveryError) in
                    try DeadLetter.find(number, uplink: uplink, &reader)
                }
            }
            guard let (letter, message) = found else {
                complain("uplink \"\(uplink)\" has no dead letter \(number)")
                throw ExitCode(ExitStatus.failed.rawValue)
            }
            guard !raw else {
                guard let error = writeOut(Array(message.payload)) else { return }
                complain("cannot write all of the payload: \(error)")
                throw ExitCode(ExitStatus.failed.rawValue)
            }
            for line in letter.lines + message.lines { print(line) }
        }
    }

    struct Replay: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Sends them to the cloud once more, behind what waits.",
            discussion: "What is refused again is a dead letter again, with a new number.")

        @OptionGroup var store: StoreOptions
        @OptionGroup var chosen: ChosenLetters

        func run() throws { try store.ask(.replay(uplink: chosen.uplink, numbers: chosen.choice)) }
    }

    struct Purge: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Forgets them; the books count them as dropped because the operator said so.")

        @OptionGroup var store: StoreOptions
        @OptionGroup var chosen: ChosenLetters

        func run() throws { try store.ask(.purge(uplink: chosen.uplink, numbers: chosen.choice)) }
    }
}

/// Which dead letters are meant: to mean all takes a word.
struct ChosenLetters: ParsableArguments {
    @Argument(help: "The uplink's name.") var uplink: String
    @Argument(help: "The numbers that `list` shows.") var numbers: [UInt64] = []
    @Flag(help: "All of this uplink.") var all = false

    func validate() throws {
        guard all == numbers.isEmpty else {
            throw ValidationError("say which: numbers as `tidegate deadletters list` shows them, or --all")
        }
        guard !uplink.isEmpty, !uplink.contains(where: { $0.isWhitespace }) else {
            throw ValidationError("\"\(uplink)\" is not the name of an uplink")
        }
    }

    /// nil for all.
    var choice: [UInt64]? { all ? nil : numbers }
}

extension DeadLetter {
    fileprivate var line: String {
        "\(uplink) \(number)  \(when)  QoS \(qos.rawValue)  \(bytes) bytes  \(reason.words)  \(Self.shown(cloudTopic))"
    }

    fileprivate var lines: [String] {
        [
            "uplink    \(uplink)", "number    \(number)", "refused   \(when)", "reason    \(reason.words)",
            "topic     \(Self.shown(topic))",
        ] + (topic == cloudTopic ? [] : ["sent as   \(Self.shown(cloudTopic))"]) + [
            "QoS       \(qos.rawValue)"
        ]
    }

    /// By the wall clock where that is proven.
    private var when: String { wallMilliseconds.map { UTC.text($0) } ?? "at an unproven time" }

    private static func shown(_ topic: [UInt8]) -> String {
        LogLine.harmless(String(decoding: topic, as: UTF8.self))
    }
}

extension ApplicationMessage {
    fileprivate var lines: [String] {
        let properties = ForwardedProperties(properties)
        var lines: [String] = []
        if let type = properties.contentType { lines.append("type      \(LogLine.harmless(type))") }
        if let topic = properties.responseTopic { lines.append("answer to \(LogLine.harmless(topic))") }
        for property in properties.userProperties {
            lines.append("property  \(LogLine.harmless("\(property.name): \(property.value)"))")
        }
        let text = String(decoding: payload, as: UTF8.self)
        // What a terminal would not take as text is not shown as text.
        let isText =
            UTF8Rules.areValid(payload)
            && text.split(separator: "\n").allSatisfy { LogLine.harmless(String($0)) == $0 }
        lines.append("payload   \(payload.count) bytes\(isText ? "" : ", hexadecimal")")
        return lines + [isText ? text : payload.map { Self.hexadecimal($0) }.joined()]
    }

    private static func hexadecimal(_ byte: UInt8) -> String {
        (byte < 0x10 ? "0" : "") + String(byte, radix: 16)
    }
}

/// Bytes to stdout as they are.
///
/// - Returns: why not all of them could be written.
private func writeOut(_ bytes: [UInt8]) -> SystemError? {
    var written = 0
    while written < bytes.count {
        let count = bytes.withUnsafeBytes {
            write(STDOUT_FILENO, $0.baseAddress?.advanced(by: written), bytes.count - written)
        }
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return SystemError(number: count < 0 ? errno : EIO) }
        written += count
    }
    return nil
}
