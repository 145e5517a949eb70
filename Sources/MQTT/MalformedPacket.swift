/// A rule of the encoding that a peer broke. After one of these nothing more is read from the connection
/// [MQTT5-4.13.1-1], [MQTT311-4.8.0-1].
package enum MalformedPacket: Error, Hashable, Sendable {
    // The fixed header.

    /// A Variable Byte Integer of more than four bytes [MQTT311-2.2.3], or in MQTT 5 of more bytes than its
    /// value needs [MQTT5-1.5.5-1].
    case overlongVariableByteInteger
    /// The whole packet has more bytes than the receiver takes [MQTT5-3.1.2-24], [MQTT5-3.2.2-15].
    case packetTooLarge
    /// Packet type 0, or 15 (AUTH) before MQTT 5 [MQTT5-2.1.2], [MQTT311-2.2.1].
    case reservedPacketType
    /// Flag bits of the fixed header other than those marked reserved [MQTT5-2.1.3-1], [MQTT311-2.2.2-2].
    case reservedFlags
    /// A packet that only this side may send [MQTT5-2.1.2], [MQTT311-2.2.1].
    case packetFromWrongSide
    /// The first packet of a client was not CONNECT [MQTT5-3.1.0-1], [MQTT311-3.1.0-1].
    case firstPacketNotConnect
    /// A second CONNECT on one Network Connection [MQTT5-3.1.0-2], [MQTT311-3.1.0-2].
    case secondConnect

    // Fields of every kind.

    /// The packet ends before its fields do [MQTT5-1.2].
    case bodyTooShort
    /// The packet goes on after its last field [MQTT5-1.2].
    case trailingBytes
    /// Ill-formed UTF-8, a surrogate or U+0000 in a string [MQTT5-1.5.4-1, MQTT5-1.5.4-2],
    /// [MQTT311-1.5.3-1, MQTT311-1.5.3-2].
    case invalidString
    /// Packet Identifier 0 [MQTT5-2.2.1-3], [MQTT311-2.3.1-1].
    case zeroPacketIdentifier
    /// A Reason Code (before MQTT 5: Return Code) this packet cannot carry [MQTT5-3.4.2-1],
    /// [MQTT5-3.14.2-1], [MQTT5-3.15.2-1], [MQTT311-3.9.3-2].
    case reasonCodeNotAllowed(UInt8)
    /// SUBACK or UNSUBACK without any Reason Code [MQTT5-3.8.4-6], [MQTT5-3.11.3-1], [MQTT311-3.8.4-5].
    case missingReasonCodes

    // Properties.

    /// A property that this packet cannot carry, by its identifier [MQTT5-2.2.2.2].
    case propertyNotAllowed(UInt8)
    /// A property given twice that may be given once, by its identifier [MQTT5-2.2.2.2].
    case duplicateProperty(UInt8)
    /// A value the property cannot have: Receive Maximum 0, a yes-or-no of 2 [MQTT5-3.1.2.11].
    case propertyValueOutOfRange(UInt8)
    /// Authentication Data without an Authentication Method [MQTT5-3.1.2.11.10].
    case authenticationDataWithoutMethod
    /// AUTH that continues or repeats an authentication without naming its method [MQTT5-3.15.2.2.2].
    case authenticationMethodMissing

    // CONNECT and CONNACK.

    /// Neither "MQTT" nor "MQIsdp" [MQTT5-3.1.2-1], [MQTT311-3.1.2-1].
    case wrongProtocolName
    /// The protocol is MQTT, at a level not spoken here [MQTT5-3.1.2-2], [MQTT311-3.1.2-2]. A server answers
    /// this one in words that old and new clients know: the decoder's `version` says which.
    case unsupportedProtocolVersion(UInt8)
    /// Bit 0 of the Connect Flags is set [MQTT5-3.1.2-3], [MQTT311-3.1.2-3].
    case reservedConnectFlag
    /// Will QoS or Will Retain without a Will [MQTT5-3.1.2-11, MQTT5-3.1.2-13],
    /// [MQTT311-3.1.2-13, MQTT311-3.1.2-15].
    case willFlagsWithoutWill
    /// Will QoS 3 [MQTT5-3.1.2-12], [MQTT311-3.1.2-14].
    case invalidWillQoS
    /// A Password without a User Name, which only MQTT 5 allows [MQTT311-3.1.2-22].
    case passwordWithoutUserName
    /// A Client Identifier that is not a valid string [MQTT5-3.1.3-4], [MQTT311-3.1.3-4].
    case invalidClientIdentifier
    /// Connect Acknowledge Flags other than Session Present [MQTT5-3.2.2-1].
    case reservedConnackFlags
    /// Session Present on a refusal [MQTT5-3.2.2-6], [MQTT311-3.2.2-4].
    case sessionPresentOnRefusal

    // PUBLISH.

    /// Both QoS bits of a PUBLISH are set [MQTT5-3.3.1-4], [MQTT311-3.3.1-4].
    case invalidQoS
    /// DUP at QoS 0 [MQTT5-3.3.1-2], [MQTT311-3.3.1-2].
    case duplicateAtQoS0
    /// A wildcard in a Topic Name, of a PUBLISH or a Will [MQTT5-3.3.2-2], [MQTT311-3.3.2-2].
    case wildcardInTopicName
    /// A Topic Name of no bytes, and no Topic Alias for it [MQTT5-3.3.2.1], [MQTT311-4.7.3-1].
    case emptyTopicName
    /// Topic Alias 0 [MQTT5-3.3.2-8].
    case zeroTopicAlias
    /// A Response Topic that is no Topic Name [MQTT5-3.3.2-14].
    case invalidResponseTopic
    /// A Subscription Identifier in a PUBLISH to the server [MQTT5-3.3.4-6].
    case subscriptionIdentifierFromClient

    // SUBSCRIBE and UNSUBSCRIBE.

    /// A Topic Filter with misplaced wildcards, empty, or a broken `$share` [MQTT5-4.7.1-1, MQTT5-4.7.1-2,
    /// MQTT5-4.7.3-1, MQTT5-4.8.2-1, MQTT5-4.8.2-2], [MQTT311-4.7.1-2, MQTT311-4.7.1-3, MQTT311-4.7.3-1].
    case invalidTopicFilter
    /// SUBSCRIBE without a Topic Filter [MQTT5-3.8.3-2], [MQTT311-3.8.3-3].
    case emptySubscribe
    /// UNSUBSCRIBE without a Topic Filter [MQTT5-3.10.3-2], [MQTT311-3.10.3-2].
    case emptyUnsubscribe
    /// Reserved bits of the Subscription Options are set [MQTT5-3.8.3-5], [MQTT311-3.8.3-4].
    case reservedSubscriptionOptions
    /// Maximum QoS 3 in the Subscription Options [MQTT5-3.8.3.1], [MQTT311-3.8.3-4].
    case invalidSubscriptionQoS
    /// Retain Handling 3 [MQTT5-3.8.3.1].
    case invalidRetainHandling
    /// No Local on a Shared Subscription [MQTT5-3.8.3-4].
    case noLocalOnSharedSubscription

    /// What MQTT 5 answers with, in CONNACK or DISCONNECT [MQTT5-4.13.1].
    package var reasonCode: ReasonCode {
        switch self {
        case .overlongVariableByteInteger, .reservedPacketType, .reservedFlags, .bodyTooShort, .trailingBytes,
            .invalidString, .propertyNotAllowed, .reservedConnectFlag, .willFlagsWithoutWill, .invalidWillQoS,
            .passwordWithoutUserName, .reservedConnackFlags, .invalidQoS, .duplicateAtQoS0,
            .reservedSubscriptionOptions:
            .malformedPacket
        case .packetFromWrongSide, .firstPacketNotConnect, .secondConnect, .zeroPacketIdentifier,
            .reasonCodeNotAllowed, .missingReasonCodes, .duplicateProperty, .propertyValueOutOfRange,
            .authenticationDataWithoutMethod, .authenticationMethodMissing, .sessionPresentOnRefusal,
            .emptyTopicName, .invalidResponseTopic, .subscriptionIdentifierFromClient, .emptySubscribe,
            .emptyUnsubscribe, .invalidSubscriptionQoS, .invalidRetainHandling, .noLocalOnSharedSubscription:
            .protocolError
        case .wrongProtocolName, .unsupportedProtocolVersion: .unsupportedProtocolVersion
        case .invalidClientIdentifier: .clientIdentifierNotValid
        case .invalidTopicFilter: .topicFilterInvalid
        case .wildcardInTopicName: .topicNameInvalid
        case .zeroTopicAlias: .topicAliasInvalid
        case .packetTooLarge: .packetTooLarge
        }
    }
}

extension MalformedPacket: CustomStringConvertible {
    /// What was wrong, in plain words, for a log line.
    package var description: String {
        switch self {
        case .overlongVariableByteInteger: "a length is written in more bytes than it may take"
        case .packetTooLarge: "the packet is larger than allowed here"
        case .reservedPacketType: "the packet type is reserved"
        case .reservedFlags: "the flags of the fixed header are not those of this packet type"
        case .packetFromWrongSide: "this packet travels only in the other direction"
        case .firstPacketNotConnect: "the first packet is not CONNECT"
        case .secondConnect: "CONNECT came a second time"
        case .bodyTooShort: "the packet ends before its fields do"
        case .trailingBytes: "the packet goes on after its last field"
        case .invalidString: "a string is not valid UTF-8 or contains U+0000"
        case .zeroPacketIdentifier: "the Packet Identifier is 0"
        case .reasonCodeNotAllowed(let code): "this packet cannot carry the Reason Code \(hex(code))"
        case .missingReasonCodes: "there is no Reason Code"
        case .propertyNotAllowed(let id): "this packet cannot carry the property \(hex(id))"
        case .duplicateProperty(let id): "the property \(hex(id)) is given twice"
        case .propertyValueOutOfRange(let id): "the property \(hex(id)) has a value it cannot have"
        case .authenticationDataWithoutMethod: "there is Authentication Data but no Authentication Method"
        case .authenticationMethodMissing: "AUTH names no Authentication Method"
        case .wrongProtocolName: "the Protocol Name is not that of MQTT"
        case .unsupportedProtocolVersion(let level): "the Protocol Level \(level) is not spoken here"
        case .reservedConnectFlag: "the reserved bit of the Connect Flags is set"
        case .willFlagsWithoutWill: "Will QoS or Will Retain is set without a Will"
        case .invalidWillQoS: "the Will QoS is 3"
        case .passwordWithoutUserName: "there is a Password but no User Name"
        case .invalidClientIdentifier: "the Client Identifier is not valid UTF-8 or contains U+0000"
        case .reservedConnackFlags: "reserved bits of the Connect Acknowledge Flags are set"
        case .sessionPresentOnRefusal: "CONNACK refuses and yet says that a session is present"
        case .invalidQoS: "the QoS is 3"
        case .duplicateAtQoS0: "DUP is set at QoS 0"
        case .wildcardInTopicName: "the Topic Name contains a wildcard"
        case .emptyTopicName: "the Topic Name is empty and no Topic Alias stands for it"
        case .zeroTopicAlias: "the Topic Alias is 0"
        case .invalidResponseTopic: "the Response Topic is not a Topic Name"
        case .subscriptionIdentifierFromClient: "a client sent a Subscription Identifier in PUBLISH"
        case .invalidTopicFilter: "a Topic Filter breaks the rules for wildcards, $share or length"
        case .emptySubscribe: "SUBSCRIBE has no Topic Filter"
        case .emptyUnsubscribe: "UNSUBSCRIBE has no Topic Filter"
        case .reservedSubscriptionOptions: "reserved bits of the Subscription Options are set"
        case .invalidSubscriptionQoS: "the Subscription Options ask for QoS 3"
        case .invalidRetainHandling: "Retain Handling is 3"
        case .noLocalOnSharedSubscription: "No Local is set on a Shared Subscription"
        }
    }

    private func hex(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16, uppercase: true)
        return digits.utf8.count == 1 ? "0x0" + digits : "0x" + digits
    }
}
