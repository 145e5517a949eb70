import GatewayCore
import MQTT

/// What the core observed, in plain words.
extension LogLine {
    package init(_ observation: Observation) {
        switch observation {
        case .connected(let client, let version, let sessionPresent):
            let session = sessionPresent ? "its session goes on" : "new session"
            self.init(.info, .connected, "\(Self.quoted(client)) connected with \(version.words), \(session)")
        case .refused(let client, let reason):
            self.init(.warning, .refused, "\(Self.quoted(client)) was refused: \(reason.words)")
        case .disconnected(let client, let cause):
            self.init(cause.level, .disconnected, "\(Self.quoted(client)) \(cause.words)")
        case .sessionEnded(let client, let end, let undelivered):
            let rest = undelivered == 0 ? "" : ", with \(Self.messages(undelivered)) undelivered"
            self.init(
                undelivered == 0 ? .info : .warning, .sessionEnded,
                "the session of \(Self.quoted(client)) ended: \(end.words)\(rest)")
        case .subscriptionsRest(let client, let profile, let count):
            let what = count == 1 ? "1 subscription" : "\(count) subscriptions"
            self.init(
                .warning, .subscriptions,
                "\(what) of \(Self.quoted(client)) \(count == 1 ? "is" : "are") not allowed any more by profile "
                    + "\(Self.quoted(profile)): nothing comes by \(count == 1 ? "it" : "them") until \(count == 1 ? "it is" : "they are") again"
            )
        case .dropped(let owner, let reason, let count):
            self.init(
                .warning, .dropped, "\(Self.messages(count)) for \(owner.words) dropped: \(reason.words)")
        case .uplinkConnected(let name, let sessionPresent, let waiting):
            let session = sessionPresent ? "the cloud kept its session" : "the cloud began a new session"
            self.init(
                .notice, .uplink,
                "uplink \(Self.quoted(name)) connected, \(session), \(Self.messages(waiting)) waiting")
        case .uplinkDisconnected(let name, let waiting):
            self.init(
                .notice, .uplink,
                "uplink \(Self.quoted(name)) disconnected, \(Self.messages(waiting)) waiting")
        case .deadLetter(let name, let reason):
            self.init(
                .warning, .dropped,
                "1 message for uplink \(Self.quoted(name)) was refused and is kept as a dead letter: \(reason.words)"
            )
        case .uplinkLacksQoS2(let name):
            self.init(
                .warning, .uplink,
                "the cloud of uplink \(Self.quoted(name)) answers QoS 2 as QoS 1: what is published here at QoS 2 can "
                    + "arrive there twice; write qos: 1 at every route with out")
        case .uplinkRemoved(let name, let waiting):
            self.init(
                waiting == 0 ? .notice : .warning, .uplink,
                "uplink \(Self.quoted(name)) is not configured any more, \(Self.messages(waiting)) waiting in the journal"
            )
        case .pressure(true):
            self.init(.warning, .pressure, "no room for new messages: publishers wait or are told so")
        case .pressure(false):
            self.init(.notice, .pressure, "there is room for new messages again")
        case .stuck(true):
            self.init(
                .error, .pressure,
                "the disk is full to the last byte: nothing can be kept, and clients with sessions that outlive their "
                    + "connection are refused, until something else on it is deleted; QoS 0 flows on")
        case .stuck(false): self.init(.notice, .pressure, "there is room on the disk to go on")
        case .full(let store): self.init(.warning, .pressure, store.fullWords)
        case .drained(let store): self.init(.notice, .pressure, "\(store.name) has room again")
        case .storageFailed:
            self.init(
                .error, .storage,
                "the disk fails: nothing that must be kept is accepted until it works again; QoS 0 flows on")
        case .storageRecovered:
            self.init(.notice, .storage, "the disk works again: everything is accepted")
        case .wasOff(let milliseconds):
            self.init(
                .notice, .gateway,
                "was off for \(Duration.words(Int64(clamping: milliseconds))) by the wall clock, which is synchronised "
                    + "and steady; deadlines from before the start count it")
        }
    }

    private static func messages(_ count: Int) -> String { count == 1 ? "1 message" : "\(count) messages" }

    fileprivate static func quoted(_ text: String) -> String {
        text.isEmpty ? "a client without identifier" : "\"\(harmless(text))\""
    }
}

extension Duration {
    /// A time as people say it, without its sign: "3 d 4 h", "1 min 30 s", "12 s".
    package static func words(_ milliseconds: Int64) -> String {
        let seconds = milliseconds.magnitude / 1000
        let parts = [
            (seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min"),
            (seconds % 60, "s"),
        ]
        let first = parts.firstIndex { $0.0 > 0 } ?? 3
        return parts[first...].prefix(2).filter { $0.0 > 0 || first == 3 }.map { "\($0.0) \($0.1)" }
            .joined(separator: " ")
    }
}

extension ProtocolVersion {
    fileprivate var words: String {
        switch self {
        case .v3_1: "MQTT 3.1"
        case .v3_1_1: "MQTT 3.1.1"
        case .v5_0: "MQTT 5"
        }
    }
}

extension SessionOwner {
    fileprivate var words: String {
        switch self {
        case .client(let identifier): LogLine.quoted(identifier)
        case .uplink(let name): "uplink \(LogLine.quoted(name))"
        case .lane(let name, _, let label): "uplink \(LogLine.quoted(name)), \(label)"
        case .deadLetters(let name): "the dead letters of uplink \(LogLine.quoted(name))"
        case .group(let filter):
            "the shared subscription \(LogLine.quoted(String(decoding: filter.bytes, as: UTF8.self)))"
        }
    }
}

extension Store {
    fileprivate var name: String {
        switch self {
        case .queue(let owner, _): "the queue of \(owner.words)"
        case .retained: "the store of retained messages"
        }
    }

    /// What is full, what that means for whom, and what to do about it.
    fileprivate var fullWords: String {
        switch self {
        case .queue(let owner, let messagesMax):
            let remedy =
                switch owner {
                case .client: "Connect it, end its session with a clean start"
                case .uplink, .lane: "Bring its link up"
                case .deadLetters: "Replay or purge them"
                case .group: "Connect its subscribers"
                }
            return "\(name) is full with \(messagesMax) messages: who publishes what it is owed is refused "
                + "(MQTT 5) or waits. \(remedy), or raise limits: queue-messages, or the route's own queue"
        case .retained(let bytesMax):
            return "\(name) is full with \(bytesMax) bytes: new topics are refused (MQTT 5) or wait. "
                + "Clear some with an empty retained message"
        }
    }
}

extension SessionEnd {
    fileprivate var words: String {
        switch self {
        case .cleanStart: "the client asked for a clean start"
        case .expired: "its expiry interval passed"
        case .disconnected: "it ends with its connection"
        case .administrative: "an operator removed it"
        case .lastMemberLeft: "its last subscriber left"
        }
    }
}

extension DropReason {
    fileprivate var words: String {
        switch self {
        case .messageExpired: "the message expiry interval passed"
        case .refusedByReceiver: "the receiver refused"
        case .tooLarge: "larger than the receiver accepts"
        case .damaged: "damaged on disk"
        case .queueFull: "the queue was full"
        case .noRoute: "no route asks for them any more"
        case .largerThanTaken: "from the cloud, and larger than packet-size allows"
        case .purged: "the operator said so"
        case .loop: "sent by this gateway, and come back another way"
        case .notAllowed: "its device profile does not allow that topic any more"
        case .sessionEnded: "the session ended"
        }
    }
}

extension DisconnectCause {
    fileprivate var words: String {
        switch self {
        case .byClient(let reason):
            reason == .normalDisconnection ? "disconnected" : "disconnected, saying: \(reason.words)"
        case .connectionLost: "is gone: the connection was lost"
        case .keepAliveTimeout: "is gone: silent for longer than its keep-alive"
        case .takenOver: "was taken over by a new connection with the same client identifier"
        case .malformed(let rule): "was disconnected: malformed packet (\(rule))"
        case .protocolError(let reason): "was disconnected: \(reason.words)"
        case .connectTimeout: "was disconnected: no CONNECT came in time"
        case .stopping: "was disconnected: the gateway stops"
        }
    }

    fileprivate var level: LogLevel {
        switch self {
        case .byClient, .connectionLost, .keepAliveTimeout, .stopping: .info
        case .takenOver: .notice
        case .malformed, .protocolError, .connectTimeout: .warning
        }
    }
}

extension ReasonCode {
    /// The specification's name in lower case with the number it has on the wire [MQTT5-2.4].
    package var words: String {
        let hexadecimal = "0x" + (rawValue < 0x10 ? "0" : "") + String(rawValue, radix: 16, uppercase: true)
        return Self.names[rawValue].map { "\($0) (\(hexadecimal))" } ?? "reason code \(hexadecimal)"
    }

    private static let names: [UInt8: String] = [
        0x00: "success", 0x01: "granted QoS 1", 0x02: "granted QoS 2", 0x04: "disconnect with will message",
        0x10: "no matching subscribers", 0x11: "no subscription existed", 0x18: "continue authentication",
        0x19: "re-authenticate", 0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error",
        0x83: "implementation specific error", 0x84: "unsupported protocol version",
        0x85: "client identifier not valid", 0x86: "bad user name or password", 0x87: "not authorized",
        0x88: "server unavailable", 0x89: "server busy", 0x8A: "banned", 0x8B: "server shutting down",
        0x8C: "bad authentication method", 0x8D: "keep alive timeout", 0x8E: "session taken over",
        0x8F: "topic filter invalid", 0x90: "topic name invalid", 0x91: "packet identifier in use",
        0x92: "packet identifier not found", 0x93: "receive maximum exceeded", 0x94: "topic alias invalid",
        0x95: "packet too large", 0x96: "message rate too high", 0x97: "quota exceeded",
        0x98: "administrative action", 0x99: "payload format invalid", 0x9A: "retain not supported",
        0x9B: "QoS not supported", 0x9C: "use another server", 0x9D: "server moved",
        0x9E: "shared subscriptions not supported", 0x9F: "connection rate exceeded",
        0xA0: "maximum connect time",
        0xA1: "subscription identifiers not supported", 0xA2: "wildcard subscriptions not supported",
    ]
}
