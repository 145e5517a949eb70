import MQTT

/// What is known of one message from what its author did and saw.
///
/// The gateway takes it, and decides who is owed it, at some moment between `firstSent` and `takenBefore`: nobody
/// outside can say more. Where several copies were sent that may happen several times, at QoS 1.
struct OracleMessage {
    let name: MessageName
    /// Place of the peer.
    let author: Int
    /// As it was published.
    let topic: Int
    let qos: QoS
    let retain: Bool
    let isEmpty: Bool
    let size: Int
    let expirySeconds: UInt32?
    let isWill: Bool
    let firstSent: UInt64
    var sends = 1
    /// PUBACK or PUBREC came: from here on nobody takes it once more. `UInt64.max` before.
    var takenBefore = UInt64.max
    /// Its author may rely on the gateway.
    var isOwed = false
    /// Its author was told that the gateway does not have it.
    var isDenied = false
    /// How often it may be taken beyond what its author admits.
    var extraTakes = 0
    /// What becomes of it is its author's own fault, or that of damage to the disk.
    var isDisowned = false
    /// Nobody should ever see it: its author said goodbye.
    var isForbidden = false
    /// Somebody has seen it.
    var isSeen = false

    /// How often the gateway may have taken it for a new message [MQTT5-4.3.2-5, MQTT5-4.3.3-10].
    func takesMax(powerCuts: Int) -> Int {
        if isWill { return (qos == .exactlyOnce ? 1 : 1 + powerCuts) + extraTakes }
        return (qos == .exactlyOnce ? 1 : sends) + extraTakes
    }
}

/// One Session of a client, as far as the client can know it.
struct OracleSession {
    /// Counted per client.
    var number: Int
    var beganAt: UInt64
    /// It ends with its connection.
    var isVolatile: Bool
    var expirySeconds: UInt32
    /// CONNACK of its last connection.
    var connectedAt: UInt64
    /// It may have ended without anybody saying so.
    var mayHaveEnded = false
    /// What it was subscribed to, one entry for each stretch of time.
    var subscriptions: [OracleSubscription] = []
    /// SUBSCRIBE packets for filters that bring retained messages.
    var asked: [(filter: Int, from: UInt64, until: UInt64)] = []
    var copies: [MessageName: Copies] = [:]
    /// The last message that came for the first time, by author, topic and QoS.
    var lastSeen: [UInt64: UInt32] = [:]

    struct Copies {
        /// All of them.
        var count = 0
        var atQoS2 = 0
        /// At QoS 2 with a new identifier.
        var exactlyOnce = 0
        /// At QoS 0 and 1 without DUP.
        var first = 0
        /// On the connection `connection`, whatever DUP says, at QoS 0 and 1.
        var here = 0
        var connection = 0
        var lastRetainedAt: UInt64 = 0
    }
}

/// A subscription for some time: certain between SUBACK and UNSUBSCRIBE, possible from SUBSCRIBE to UNSUBACK.
struct OracleSubscription {
    var filter: Int
    var request: SubscriptionRequest
    var identifier: UInt32?
    var possibleFrom: UInt64
    var certainFrom = UInt64.max
    var certainUntil = UInt64.max
    var possibleUntil = UInt64.max

    /// It was there whenever the message may have been taken.
    func isOwed(_ message: OracleMessage) -> Bool {
        certainFrom < message.firstSent && (message.takenBefore < certainUntil || certainUntil == .max)
    }

    /// It may have been there when the message was taken.
    func mayGet(_ message: OracleMessage) -> Bool {
        possibleFrom <= message.takenBefore && message.firstSent <= possibleUntil
    }
}
