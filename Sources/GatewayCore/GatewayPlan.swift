import MQTT

/// What the operator decided, as values: the core reads no file.
package struct GatewayPlan: Sendable {
    package var limits = Limits()
    /// Session Expiry of 3.1 and 3.1.1 clients with Clean Session 0, in seconds; `UInt32.max` is never.
    package var expirySecondsBefore5: UInt32 = .max
    /// The longest Session Expiry an MQTT 5 client gets, in seconds; `UInt32.max` is no bound.
    package var expirySecondsMax: UInt32 = .max
    /// How often the `$SYS/broker/…` tree is brought up to date; nil when there is none.
    package var systemTopicsMilliseconds: UInt64?
    /// What the gateway is called, in `$SYS/broker/connection/<gateway>.<uplink>/state`.
    package var gateway = "tidegate"
    /// The value of `$SYS/broker/version`.
    package var version = "tidegate"
    /// What a listener takes where that is less than `limits.packetBytesMax`, by the index it is told with.
    package var packetBytesMaxByListener: [Int: UInt32] = [:]
    /// In the order of their `UplinkIndex`.
    package var uplinks: [UplinkRoutes] = []
    /// In the order in which they are tried; the default, where there is one, is the last. Names are unique.
    package var profiles: [DeviceProfile] = []

    package init() {}
}

/// One uplink as the core sees it: a name for its state, and its routes.
package struct UplinkRoutes: Hashable, Sendable {
    package var name: String
    /// Local to cloud; for a message that several routes match, the first decides.
    package var out: [Route]
    /// Cloud to local; the first match decides.
    package var `in`: [Route]
    /// How fast what waits may leave.
    package var drain = Drain()
    /// What is added to a message on its way up; nil for nothing.
    package var provenance: Provenance?
    /// How many messages that the cloud refused are kept, and their bytes; beyond either the oldest go, counted.
    package var deadLettersMax = 100_000
    package var deadLetterBytesMax = 64 << 20

    package init(name: String, out: [Route], in inbound: [Route]) {
        self.name = name
        self.out = out
        self.in = inbound
    }

    package struct Route: Hashable, Sendable {
        /// The Topic Filter on the side the messages come from.
        package var filter: TopicFilter
        package var rename: TopicRename?
        /// The highest QoS the route carries.
        package var maximumQoS: QoS
        /// Of what the filter matches, this is not carried by this route; a later one may.
        package var except: [TopicFilter] = []
        /// Whether RETAIN is carried; without it every message arrives with RETAIN 0.
        package var carriesRetain = true
        /// Of `out` routes: what leaves first when more waits than may leave.
        package var priority = Priority.normal
        /// Of `out` routes: new messages leave ahead of this route's own backlog.
        package var isLiveFirst = false
        /// Of `out` routes: a bound of its own for what waits; nil where only that of the whole uplink counts.
        package var queue: QueueBounds?

        package init(filter: TopicFilter, rename: TopicRename?, maximumQoS: QoS) {
            self.filter = filter
            self.rename = rename
            self.maximumQoS = maximumQoS
        }

        /// Whether it carries messages of this topic, unless one before it does.
        package func carries(_ topic: ArraySlice<UInt8>) -> Bool {
            filter.matches(topic) && !except.contains { $0.matches(topic) }
        }
    }

    package enum Priority: UInt8, Comparable, CaseIterable, Sendable {
        case high = 0
        case normal = 1
        case low = 2

        /// The higher priority is the smaller.
        package static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    }

    /// nil where there is no bound.
    package struct Drain: Hashable, Sendable {
        package var messagesPerSecond: UInt32?
        /// Of topics, properties and payloads.
        package var bytesPerSecond: UInt32?

        package init(messagesPerSecond: UInt32? = nil, bytesPerSecond: UInt32? = nil) {
            self.messagesPerSecond = messagesPerSecond
            self.bytesPerSecond = bytesPerSecond
        }
    }

    /// User Properties that let the cloud see what is missing and when a message was received: MQTT 5 only.
    package struct Provenance: Hashable, Sendable {
        /// The value of `gateway`.
        package var gateway: String
        package var addsGateway: Bool
        package var addsSequence: Bool
        package var addsReceivedAt: Bool

        package init(
            gateway: String, addsGateway: Bool = true, addsSequence: Bool = true, addsReceivedAt: Bool = true
        ) {
            self.gateway = gateway
            self.addsGateway = addsGateway
            self.addsSequence = addsSequence
            self.addsReceivedAt = addsReceivedAt
        }
    }
}

/// The most that waits in one queue, and what happens to the message after that.
package struct QueueBounds: Hashable, Sendable {
    /// nil where there is no bound but that of `Limits`.
    package var messagesMax: Int?
    /// Of topics, properties and payloads.
    package var bytesMax: Int?
    package var whenFull: WhenFull

    package init(messagesMax: Int? = nil, bytesMax: Int? = nil, whenFull: WhenFull = .refuse) {
        self.messagesMax = messagesMax
        self.bytesMax = bytesMax
        self.whenFull = whenFull
    }

    package enum WhenFull: UInt8, CaseIterable, Sendable {
        /// The publisher is refused: 0x97, or it waits (promise P4).
        case refuse
        /// The oldest that was not sent yet makes room, counted.
        case dropOldest
        /// The new message is not queued here, counted; its other receivers get it.
        case dropNewest
    }
}

extension TopicRename {
    /// The renamed topic; nil when nothing is left or it would be longer than a Topic Name may be.
    ///
    /// - Complexity: O(bytes)
    package func applied(to topic: ArraySlice<UInt8>) -> [UInt8]? {
        guard topic.count >= dropping else { return nil }
        let renamed = prepending + topic.dropFirst(dropping)
        return renamed.isEmpty || renamed.count > Int(UInt16.max) ? nil : renamed
    }
}
