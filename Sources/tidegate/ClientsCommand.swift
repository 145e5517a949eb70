import ArgumentParser
import GatewayCore
import MQTT
import Operations

/// `tidegate clients`: who is known to the running gateway.
struct Clients: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Lists the clients of the running gateway, each with its profile.",
        discussion: """
            A line has the client identifier, whether it is connected, its version of MQTT, its profile, what waits for it, \
            and of one that is connected its listener and user name; with a tab between.
            """)

    @OptionGroup var store: StoreOptions

    func run() throws { try store.ask(.clients) }
}

extension ClientSummary {
    /// For people and for `cut`.
    func line(_ listeners: [String]) -> String {
        var words = [
            clientIdentifier.printable, isConnected ? "connected" : "away", "MQTT \(version.text)",
            profile.isEmpty ? "no profile" : "profile \(profile)",
            "\(queuedMessages) waiting (\(queuedBytes) bytes)\(bounds?.words ?? "")",
            "\(subscriptions) subscription\(subscriptions == 1 ? "" : "s")"
                + (restingSubscriptions > 0 ? ", \(restingSubscriptions) of them not allowed any more" : ""),
        ]
        if let listener, listeners.indices.contains(listener) { words.append(listeners[listener]) }
        if let username { words.append("user \(username.printable)") }
        return words.joined(separator: "\t")
    }
}

extension QueueBounds {
    fileprivate var words: String {
        let most = [messagesMax.map { "\($0) messages" }, bytesMax.map { "\($0) bytes" }].compactMap { $0 }
        return most.isEmpty ? "" : " of at most " + most.joined(separator: " and ")
    }
}

extension ProtocolVersion {
    fileprivate var text: String {
        switch self {
        case .v3_1: "3.1"
        case .v3_1_1: "3.1.1"
        case .v5_0: "5.0"
        }
    }
}

extension String {
    /// Without what would move a terminal's cursor, or end a line.
    fileprivate var printable: String {
        String(
            String.UnicodeScalarView(
                unicodeScalars.map { $0.properties.generalCategory == .control ? "?" : $0 }))
    }
}
