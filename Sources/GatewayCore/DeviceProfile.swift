import MQTT

/// How a class of device is treated. A setting that is nil leaves things as they are without profiles.
///
/// Which profile a client gets is decided at its CONNECT: the first in the order of `GatewayPlan.profiles` that one of
/// its `matches` agrees with, or else the default.
package struct DeviceProfile: Hashable, Sendable {
    /// Unique among the profiles; the value of `${profile}`. Durable with a Session.
    package var name: String
    /// Any of them is enough. The default has none; it is the last, and there is one at most.
    package var matches: [DeviceMatch]

    /// Session Expiry of 3.1 and 3.1.1 clients with Clean Session 0, in seconds; `UInt32.max` is never.
    package var sessionExpirySecondsBefore5: UInt32?
    /// The longest Session Expiry an MQTT 5 client gets, in seconds; `UInt32.max` is no bound.
    package var sessionExpirySecondsMax: UInt32?
    /// A shorter Keep Alive is lengthened: MQTT 5 clients are told by Server Keep Alive [MQTT5-3.2.2-21], of older ones
    /// silence is borne for longer than they asked for.
    package var keepAliveSecondsMin: UInt16?
    /// A longer Keep Alive, or none, is shortened, at least 1: MQTT 5 clients are told, and older ones that stay silent
    /// for one and a half times as long are closed, as a server may at any time (MQTT 3.1.1, 3.1.2.10). So it is for
    /// classes of device that are known to say something in time.
    package var keepAliveSecondsMax: UInt16?
    /// The highest QoS of what it publishes, its Will included, and of what it is granted at SUBSCRIBE. Told in CONNACK
    /// [MQTT5-3.2.2-9]; beyond it 0x9B [MQTT5-3.2.2-12], and older clients are closed.
    package var maximumQoS: QoS?
    /// Instead of `Limits.inFlightMax`, at least 1.
    package var receiveMaximum: UInt16?
    /// Bytes of a whole packet, of whatever kind, where that is less than its listener takes: told in CONNACK
    /// [MQTT5-3.2.2.3.6]. Beyond it 0x95, in CONNACK for a CONNECT; older clients are closed.
    package var packetBytesMax: UInt32?
    /// Topics it may publish to, its Will's included.
    package var publish = TopicRights()
    /// Topic Filters it may subscribe to.
    package var subscribe = TopicRights()
    package var rate: PublishRate?
    /// What may wait for it, here or away.
    package var queue: QueueBounds?
    package var durability: DurabilityWindow?
    package var messageExpiry: MessageExpiry?
    package var uplink = UplinkChoice()
    package var liveness: Liveness?
    /// The first whose filter matches a topic decides.
    package var reportByException: [ReportByException] = []
    /// What it publishes to these is kept as if it had RETAIN 1, but for empty payloads; its receivers see RETAIN 0 as
    /// before. It is written at whatever QoS, so that the flash is spared none of it (rule E1).
    package var keepsLastValue: [TopicTemplate] = []

    package init(name: String, matches: [DeviceMatch] = []) {
        self.name = name
        self.matches = matches
    }

    package var isDefault: Bool { matches.isEmpty }

    /// What there is where no profile says otherwise: everything as without profiles.
    package static let builtIn = DeviceProfile(name: "default")
}

/// One way to belong to a profile: all that is given must agree.
package struct DeviceMatch: Hashable, Sendable {
    package var clientIdentifier: Glob?
    package var username: Glob?
    package var certificateSubject: Glob?
    package var certificateIssuer: Glob?
    /// As in `Input.opened`.
    package var listener: Int?

    package init(
        clientIdentifier: Glob? = nil, username: Glob? = nil, certificateSubject: Glob? = nil,
        certificateIssuer: Glob? = nil, listener: Int? = nil
    ) {
        self.clientIdentifier = clientIdentifier
        self.username = username
        self.certificateSubject = certificateSubject
        self.certificateIssuer = certificateIssuer
        self.listener = listener
    }
}

/// The names in a client's certificate, as RFC 4514 writes them: `CN=press-12,O=Plant 7`.
package struct CertificateNames: Hashable, Sendable {
    package var subject: String
    package var issuer: String

    package init(subject: String, issuer: String) {
        self.subject = subject
        self.issuer = issuer
    }
}

/// `*` stands for any characters, `?` for any one; everything else for itself, capitals apart from small letters.
package struct Glob: Hashable, Sendable, CustomStringConvertible {
    private let pattern: [UInt8]

    package init(_ text: String) { pattern = Array(text.utf8) }

    package var description: String { String(decoding: pattern, as: UTF8.self) }

    /// - Complexity: O(bytes) with one `*` at most, else O(bytes · bytes of the pattern); nothing is allocated
    package func matches(_ text: String) -> Bool {
        let inPlace = text.utf8.withContiguousStorageIfAvailable { matches($0) }
        return inPlace ?? Array(text.utf8).withUnsafeBufferPointer { matches($0) }
    }

    private func matches(_ text: UnsafeBufferPointer<UInt8>) -> Bool {
        pattern.withUnsafeBufferPointer { Self.matches($0, text) }
    }

    /// The same of a pattern that is kept elsewhere.
    static func matches(_ pattern: UnsafeBufferPointer<UInt8>, _ text: UnsafeBufferPointer<UInt8>) -> Bool {
        var (p, t) = (0, 0)
        // Where to go on when it does not fit: behind the last `*`, which takes one more.
        var retry: (p: Int, t: Int)?
        while t < text.count {
            if p < pattern.count, pattern[p] == UInt8(ascii: "*") {
                p += 1
                t = next(of: pattern, p, in: text, from: t)
                retry = (p, t)
            } else if p < pattern.count, pattern[p] == UInt8(ascii: "?") {
                p += 1
                t += 1
                while t < text.count, text[t] & 0xC0 == 0x80 { t += 1 }
            } else if p < pattern.count, pattern[p] == text[t] {
                p += 1
                t += 1
            } else if let last = retry {
                (p, t) = (last.p, next(of: pattern, last.p, in: text, from: last.t + 1))
                retry = (p, t)
            } else {
                return false
            }
        }
        while p < pattern.count, pattern[p] == UInt8(ascii: "*") { p += 1 }
        return p == pattern.count
    }

    /// The pattern's bytes, to be kept elsewhere.
    func append(to bytes: inout [UInt8]) { bytes += pattern }

    /// The first place, not before `start`, where what follows a `*` may begin; most bytes of most texts are passed over
    /// here.
    private static func next(
        of pattern: UnsafeBufferPointer<UInt8>, _ p: Int, in text: UnsafeBufferPointer<UInt8>, from start: Int
    ) -> Int {
        guard p < pattern.count, pattern[p] != UInt8(ascii: "*"), pattern[p] != UInt8(ascii: "?") else {
            return start
        }
        let byte = pattern[p]
        var t = start
        while t < text.count, text[t] != byte { t += 1 }
        return t
    }
}

/// Where a class of device may publish or subscribe. What `deny` matches is refused whatever `allow` says.
///
/// A Topic Filter is allowed when one of `allow` matches every topic that it matches, and refused when any of `deny`
/// matches one of them: `#` is refused where anything is denied but names that begin with `$`, which it does not match. A
/// leading wildcard in `deny` is about those as well, so that `#` denies everything; one in `allow` is not. MQTT 5 clients
/// get 0x87; of older ones a SUBSCRIBE gets 0x80, and with a PUBLISH, which has no answer for that, they are closed
/// [MQTT311-3.3.5-2].
///
/// They are looked at when a packet comes, and anew when they have changed: what becomes of a subscription that was
/// granted and is not allowed any more is told in `Withdrawing.swift`. A Will that is not any more is not published.
package struct TopicRights: Hashable, Sendable {
    /// nil where everything is allowed that is not denied.
    package var allow: [TopicTemplate]?
    package var deny: [TopicTemplate]

    package init(allow: [TopicTemplate]? = nil, deny: [TopicTemplate] = []) {
        self.allow = allow
        self.deny = deny
    }
}

/// Beyond it the client is not read until it may publish again: it is slowed down, and nothing is lost.
package struct PublishRate: Hashable, Sendable {
    package var messagesPerSecond: UInt32?
    /// Of topics, properties and payloads.
    package var bytesPerSecond: UInt32?
    /// How many may come at once after a quiet time; what comes in one second where it is nil.
    package var messagesBurst: UInt32?
    package var bytesBurst: UInt32?

    package init(
        messagesPerSecond: UInt32? = nil, bytesPerSecond: UInt32? = nil, messagesBurst: UInt32? = nil,
        bytesBurst: UInt32? = nil
    ) {
        self.messagesPerSecond = messagesPerSecond
        self.bytesPerSecond = bytesPerSecond
        self.messagesBurst = messagesBurst
        self.bytesBurst = bytesBurst
    }
}

/// How long what it publishes may wait for its Record, and so its publisher for the acknowledgement.
package enum DurabilityWindow: UInt8, CaseIterable, Sendable {
    /// 20 ms at most: each message may cost a page of flash.
    case latency
    /// As the journal does for all.
    case balanced
    /// Up to a second, in company: it never begins a commit before.
    case flashSaver
}

/// Message Expiry of what a client publishes, its Will included, in seconds.
package struct MessageExpiry: Hashable, Sendable {
    /// Of what comes without; also from before MQTT 5.
    package var defaultSeconds: UInt32?
    /// Instead of a longer one.
    package var secondsMax: UInt32?

    package init(defaultSeconds: UInt32? = nil, secondsMax: UInt32? = nil) {
        self.defaultSeconds = defaultSeconds
        self.secondsMax = secondsMax
    }
}

/// Which uplinks carry what a client publishes, and how soon.
package struct UplinkChoice: Hashable, Sendable {
    /// By name; nil for all that have a route. The routes still decide what is carried.
    package var names: [String]?
    /// Instead of its route's. Order between topics of different priority is not kept.
    package var priority: UplinkRoutes.Priority?

    package init(names: [String]? = nil, priority: UplinkRoutes.Priority? = nil) {
        self.names = names
        self.priority = priority
    }
}

/// A retained message tells whether a device says anything. Its topic is the gateway's: what else is retained there is
/// taken for its own.
package struct Liveness: Hashable, Sendable {
    /// Any packet ends the silence; connected or not does not matter. At least 1.
    package var silentSeconds: UInt32
    /// Without `${clientid}` or `${username}` all share one.
    package var stateTopic: TopicTemplate
    package var online: String
    package var offline: String

    package init(
        silentSeconds: UInt32, stateTopic: TopicTemplate, online: String = "online",
        offline: String = "offline"
    ) {
        self.silentSeconds = silentSeconds
        self.stateTopic = stateTopic
        self.online = online
        self.offline = offline
    }
}

/// Of a value that is published again and again, uplinks get what is news. Who subscribes here gets everything.
///
/// A value is news when it is the first, or when it differs from the last one that went up by more than the deadband and
/// that was at least the minimum interval before, or when the last one is older than the maximum interval. What is no
/// number is always news. What comes too soon after the last goes up when the minimum interval is over, if nothing newer has
/// come meanwhile.
package struct ReportByException: Hashable, Sendable {
    package var filter: TopicTemplate
    package var value: JSONPointer?
    package var deadband: Deadband
    package var intervalMillisecondsMin: UInt64
    /// nil where silence may last.
    package var intervalMillisecondsMax: UInt64?

    /// - Parameter value: where the number is; nil where the payload is one.
    package init(
        filter: TopicTemplate, value: JSONPointer? = nil, deadband: Deadband,
        intervalMillisecondsMin: UInt64 = 0,
        intervalMillisecondsMax: UInt64? = nil
    ) {
        self.filter = filter
        self.value = value
        self.deadband = deadband
        self.intervalMillisecondsMin = intervalMillisecondsMin
        self.intervalMillisecondsMax = intervalMillisecondsMax
    }

    package enum Deadband: Hashable, Sendable {
        /// In the value's own unit; 0 for any change.
        case absolute(Double)
        /// Of the last value that went up: 0.05 is 5 %.
        case relative(Double)
    }
}

/// A place in a JSON text (RFC 6901).
package struct JSONPointer: Hashable, Sendable, CustomStringConvertible {
    /// Names of members or numbers of elements, as bytes, with `~0` and `~1` read.
    package let tokens: [[UInt8]]

    /// nil unless it is empty or begins with `/`, with no `~` but in `~0` and `~1`, and no more than 32 tokens.
    package init?(_ text: String) {
        var tokens: [[UInt8]] = []
        var isTilde = false
        for byte in text.utf8 {
            if isTilde {
                guard byte == UInt8(ascii: "0") || byte == UInt8(ascii: "1") else { return nil }
                tokens[tokens.count - 1].append(
                    byte == UInt8(ascii: "0") ? UInt8(ascii: "~") : UInt8(ascii: "/"))
                isTilde = false
            } else if byte == UInt8(ascii: "/") {
                tokens.append([])
            } else if tokens.isEmpty {
                return nil
            } else if byte == UInt8(ascii: "~") {
                isTilde = true
            } else {
                tokens[tokens.count - 1].append(byte)
            }
        }
        guard !isTilde, tokens.count <= 32 else { return nil }
        self.tokens = tokens
    }

    package var description: String {
        tokens.reduce("") { text, token in
            let escaped = token.flatMap { byte -> [UInt8] in
                switch byte {
                case UInt8(ascii: "~"): Array("~0".utf8)
                case UInt8(ascii: "/"): Array("~1".utf8)
                default: [byte]
                }
            }
            return text + "/" + String(decoding: escaped, as: UTF8.self)
        }
    }
}
