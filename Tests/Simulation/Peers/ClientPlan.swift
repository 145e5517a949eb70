import MQTT

/// What a simulated client is like. Times are microseconds.
package struct ClientPlan: Sendable {
    package var identifier: String
    /// In the names of its messages; nobody else has it.
    package var author: UInt16
    package var version = ProtocolVersion.v5_0
    /// 0: its Session ends with each connection. Before MQTT 5 anything else is for ever.
    package var expirySeconds: UInt32 = .max
    package var keepAliveSeconds: UInt16 = 0
    package var receiveMaximum: UInt16?
    package var maximumPacketSize: UInt32?
    package var topicAliasMaximum: UInt16?
    /// It connects only from then on.
    package var beginsAt: UInt64 = 0

    package var publishing: Publishing?
    package var subscriptions: [Subscription] = []
    /// Between changes of what it is subscribed to, on the average; nil for never.
    package var changesSubscriptionsEvery: UInt64?
    package var will: WillPlan?

    /// How long a connection lasts on the average before it ends it itself; nil for ever.
    package var staysFor: UInt64?
    /// How long it stays away then, on the average.
    package var staysAwayFor: UInt64 = 1_000_000
    /// Of a hundred departures, how many are with DISCONNECT.
    package var politePercent = 50
    /// Of a hundred connections, how many begin with Clean Start.
    package var cleanStartPercent = 0
    /// Up to so long it takes to answer what it receives.
    package var answersWithin: UInt64 = 0
    /// How long it waits for anything at all before it gives a connection up.
    package var patience: UInt64 = 20_000_000
    package var manners: [Rudeness] = []

    package init(_ identifier: String, author: UInt16) {
        self.identifier = identifier
        self.author = author
    }

    package struct Publishing: Sendable {
        package var topics: [String]
        /// Between two messages, on the average.
        package var every: UInt64
        /// How many at a time.
        package var burst = 1
        /// How often each QoS is chosen among so many.
        package var qosShares = [1, 2, 2]
        package var retainedPercent = 0
        /// Of a hundred retained ones, how many are empty.
        package var clearingPercent = 0
        package var expiringPercent = 0
        package var expirySeconds: UInt32 = 60
        package var paddingMax = 100
        /// In flight at a time, however much the gateway allows.
        package var window = 10
        package var usesAliases = false
        /// It takes the lowest Packet Identifier that is free, and so one that was in use a moment ago.
        package var reusesIdentifiers = false

        package init(_ topics: [String], every: UInt64) {
            self.topics = topics
            self.every = every
        }
    }

    package struct Subscription: Sendable {
        package var request: SubscriptionRequest
        package var identifier: UInt32?
        /// It is there from the beginning.
        package var isWanted = true

        package init(_ request: SubscriptionRequest, identifier: UInt32? = nil) {
            self.request = request
            self.identifier = identifier
        }
    }

    package struct WillPlan: Sendable {
        package var topic: String
        package var qos: QoS
        package var retain = false
        package var delaySeconds: UInt32 = 0

        package init(_ topic: String, _ qos: QoS) {
            self.topic = topic
            self.qos = qos
        }
    }

    /// What a client does that it should not. Those who do are not owed anything; they must not harm the others.
    package enum Rudeness: Hashable, Sendable, CaseIterable {
        /// Answers with identifiers of nothing.
        case wrongIdentifiers
        /// Says PUBLISH and PUBREL again on the same connection.
        case repeats
        /// Uses one identifier for whatever it publishes.
        case reusesIdentifiers
        /// Publishes more than it may have in flight.
        case floods
        /// Sends what is no packet.
        case garbage
        /// Begins packets and leaves.
        case halfPackets
        /// Never reads for a while.
        case readsNothing
    }

    package var isRude: Bool { !manners.isEmpty }
}
