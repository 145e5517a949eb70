import MQTT

/// What a peer did or saw, in the order of its own life: the oracle hears all of it, and believes it.
///
/// "Sent" means put into the output: whether it reached the gateway nobody knows before the answer.
package enum PeerEvent: Hashable, Sendable {
    /// CONNECT was sent.
    case connecting(Connecting)
    /// CONNACK with success came, and says so long a Session Expiry, in seconds; `UInt32.max` is for ever.
    case connected(sessionPresent: Bool, expirySeconds: UInt32)
    /// CONNACK with an error came.
    case turnedAway(ReasonCode)
    /// DISCONNECT was sent; the Session Expiry is the changed one.
    case leaving(ReasonCode, expirySeconds: UInt32?)
    /// The connection is over, whoever ended it.
    case lost
    /// PUBLISH was sent, for the first time or again.
    case publishing(Publishing)
    /// PUBACK or PUBREC with success came: the message is the gateway's.
    case accepted(MessageName)
    /// PUBACK or PUBREC with an error came.
    case denied(MessageName, ReasonCode)
    /// It will not be sent again, and nobody has acknowledged it.
    case abandoned(MessageName)
    /// SUBSCRIBE was sent.
    case subscribing([SubscriptionRequest], identifier: UInt32?)
    /// SUBACK came, with a Reason Code for each.
    case subscribed([SubscriptionRequest], identifier: UInt32?, [ReasonCode])
    /// UNSUBSCRIBE was sent.
    case unsubscribing([TopicFilter])
    /// UNSUBACK came.
    case unsubscribed([TopicFilter])
    /// PUBLISH came.
    case received(Reception)
    /// The gateway broke a rule that this peer can judge alone.
    case broken(String)

    // Of the cloud only.

    /// It answered a message with an error: it will not have it.
    case refused(MessageName)
    /// It took one message for another that it still held under the same identifier, having gone back in time.
    case swallowed(MessageName)
    /// Its session is gone.
    case forgot
    /// It is as it was earlier: these it has received no more; of some of them it had said that it has them.
    case wentBack(undone: [Undone])
    /// It may publish these once more under other identifiers, or under the same as new ones: it went back in time.
    case mayRepeat([MessageName])
    /// What became of this message is its own fault.
    case disowned(MessageName)

    package struct Connecting: Hashable, Sendable {
        package var cleanStart: Bool
        /// `UInt32.max` is for ever, 0 as long as the connection.
        package var expirySeconds: UInt32
        package var will: Publishing?
        package var willDelaySeconds: UInt32
    }

    package struct Publishing: Hashable, Sendable {
        package var name: MessageName
        package var topic: [UInt8]
        package var qos: QoS
        package var retain: Bool
        /// The payload is empty and says no name: it removes what is retained.
        package var isEmpty: Bool
        /// Of the payload, in bytes.
        package var size: Int
        package var expirySeconds: UInt32?
        package var duplicate: Bool

        package init(
            _ name: MessageName, topic: [UInt8], qos: QoS, retain: Bool = false, isEmpty: Bool = false,
            size: Int = 0,
            expirySeconds: UInt32? = nil, duplicate: Bool = false
        ) {
            self.name = name
            self.topic = topic
            self.qos = qos
            self.retain = retain
            self.isEmpty = isEmpty
            self.size = size
            self.expirySeconds = expirySeconds
            self.duplicate = duplicate
        }
    }

    package struct Reception: Hashable, Sendable {
        /// nil for an empty payload.
        package var name: MessageName?
        package var topic: [UInt8]
        package var qos: QoS
        package var retain: Bool
        package var duplicate: Bool
        package var expirySeconds: UInt32?
        package var subscriptionIdentifiers: [UInt32]
        /// At QoS 2: whether its identifier was not held yet. True at the others.
        package var isNew: Bool

        package init(
            name: MessageName?, topic: [UInt8], qos: QoS, retain: Bool = false, duplicate: Bool = false,
            expirySeconds: UInt32? = nil, subscriptionIdentifiers: [UInt32] = [], isNew: Bool = true
        ) {
            self.name = name
            self.topic = topic
            self.qos = qos
            self.retain = retain
            self.duplicate = duplicate
            self.expirySeconds = expirySeconds
            self.subscriptionIdentifiers = subscriptionIdentifiers
            self.isNew = isNew
        }
    }

    package struct Undone: Hashable, Sendable {
        package var name: MessageName
        /// It had said that it has it.
        package var wasAnswered: Bool
    }
}
