/// The property identifiers of MQTT 5 [MQTT5-2.2.2.2].
enum PropertyIdentifier: UInt8 {
    case payloadFormatIndicator = 0x01
    case messageExpiryInterval = 0x02
    case contentType = 0x03
    case responseTopic = 0x08
    case correlationData = 0x09
    case subscriptionIdentifier = 0x0B
    case sessionExpiryInterval = 0x11
    case assignedClientIdentifier = 0x12
    case serverKeepAlive = 0x13
    case authenticationMethod = 0x15
    case authenticationData = 0x16
    case requestProblemInformation = 0x17
    case willDelayInterval = 0x18
    case requestResponseInformation = 0x19
    case responseInformation = 0x1A
    case serverReference = 0x1C
    case reasonString = 0x1F
    case receiveMaximum = 0x21
    case topicAliasMaximum = 0x22
    case topicAlias = 0x23
    case maximumQoS = 0x24
    case retainAvailable = 0x25
    case userProperty = 0x26
    case maximumPacketSize = 0x27
    case wildcardSubscriptionAvailable = 0x28
    case subscriptionIdentifierAvailable = 0x29
    case sharedSubscriptionAvailable = 0x2A
}

/// A set of property identifiers: which a packet may carry, or which it has carried so far.
struct PropertySet: ExpressibleByArrayLiteral {
    private var bits: UInt64 = 0

    init(arrayLiteral elements: PropertyIdentifier...) {
        for element in elements { insert(element) }
    }

    func contains(_ id: PropertyIdentifier) -> Bool { bits & (1 << UInt64(id.rawValue)) != 0 }
    mutating func insert(_ id: PropertyIdentifier) { bits |= 1 << UInt64(id.rawValue) }

    func union(_ other: Self) -> Self {
        var all = self
        all.bits |= other.bits
        return all
    }

    // Table 2-4 of the specification, by packet.
    static let connect: Self = [
        .sessionExpiryInterval, .receiveMaximum, .maximumPacketSize, .topicAliasMaximum,
        .requestResponseInformation, .requestProblemInformation, .userProperty, .authenticationMethod,
        .authenticationData,
    ]
    static let connack: Self = [
        .sessionExpiryInterval, .receiveMaximum, .maximumQoS, .retainAvailable, .maximumPacketSize,
        .assignedClientIdentifier, .topicAliasMaximum, .reasonString, .userProperty,
        .wildcardSubscriptionAvailable, .subscriptionIdentifierAvailable, .sharedSubscriptionAvailable,
        .serverKeepAlive, .responseInformation, .serverReference, .authenticationMethod, .authenticationData,
    ]
    static let acknowledgement: Self = [.reasonString, .userProperty]
    static let subscribe: Self = [.subscriptionIdentifier, .userProperty]
    static let unsubscribe: Self = [.userProperty]
    /// A server may not name a Session Expiry Interval [MQTT5-3.14.2-2], and only a server refers elsewhere.
    static let disconnectByClient: Self = [.sessionExpiryInterval, .reasonString, .userProperty]
    static let disconnectByServer: Self = [.reasonString, .userProperty, .serverReference]
    static let auth: Self = [.authenticationMethod, .authenticationData, .reasonString, .userProperty]
}

/// The properties of every packet but PUBLISH and the Will, which have `MessageProperties`.
struct Properties {
    var sessionExpirySeconds: UInt32?
    var receiveMaximum: UInt16?
    var maximumPacketSize: UInt32?
    var topicAliasMaximum: UInt16?
    var requestResponseInformation: Bool?
    var requestProblemInformation: Bool?
    var authenticationMethod: String?
    var authenticationData: [UInt8]?
    var maximumQoS: QoS?
    var retainAvailable: Bool?
    var assignedClientIdentifier: String?
    var reasonString: String?
    var wildcardSubscriptionAvailable: Bool?
    var subscriptionIdentifiersAvailable: Bool?
    var sharedSubscriptionAvailable: Bool?
    var serverKeepAliveSeconds: UInt16?
    var responseInformation: String?
    var serverReference: String?
    var subscriptionIdentifier: UInt32?
    var userProperties: [UserProperty] = []

    init() {}

    /// Reads Property Length and as many bytes of properties.
    init(from reader: inout ByteReader, allowed: PropertySet) throws(MalformedPacket) {
        var section = try reader.propertySection()
        var seen: PropertySet = []
        while !section.isEmpty {
            let id = try section.propertyIdentifier(allowed: allowed)
            guard id == .userProperty || !seen.contains(id) else { throw .duplicateProperty(id.rawValue) }
            seen.insert(id)
            try read(id, from: &section)
        }
        if authenticationData != nil, authenticationMethod == nil { throw .authenticationDataWithoutMethod }
    }

    private mutating func read(
        _ id: PropertyIdentifier, from section: inout ByteReader
    ) throws(MalformedPacket) {
        switch id {
        case .sessionExpiryInterval: sessionExpirySeconds = try section.uint32()
        case .receiveMaximum: receiveMaximum = try section.nonZero16(id)
        case .maximumPacketSize: maximumPacketSize = try section.nonZero32(id)
        case .topicAliasMaximum: topicAliasMaximum = try section.uint16()
        case .requestResponseInformation: requestResponseInformation = try section.yesOrNo(id)
        case .requestProblemInformation: requestProblemInformation = try section.yesOrNo(id)
        case .authenticationMethod: authenticationMethod = try section.string()
        case .authenticationData: authenticationData = Array(try section.binary())
        case .maximumQoS: maximumQoS = try section.yesOrNo(id) ? .atLeastOnce : .atMostOnce
        case .retainAvailable: retainAvailable = try section.yesOrNo(id)
        case .assignedClientIdentifier: assignedClientIdentifier = try section.string()
        case .reasonString: reasonString = try section.string()
        case .wildcardSubscriptionAvailable: wildcardSubscriptionAvailable = try section.yesOrNo(id)
        case .subscriptionIdentifierAvailable: subscriptionIdentifiersAvailable = try section.yesOrNo(id)
        case .sharedSubscriptionAvailable: sharedSubscriptionAvailable = try section.yesOrNo(id)
        case .serverKeepAlive: serverKeepAliveSeconds = try section.uint16()
        case .responseInformation: responseInformation = try section.string()
        case .serverReference: serverReference = try section.string()
        case .subscriptionIdentifier: subscriptionIdentifier = try section.subscriptionIdentifier()
        case .userProperty: userProperties.append(try section.userProperty())
        case .payloadFormatIndicator, .messageExpiryInterval, .contentType, .responseTopic, .correlationData,
            .willDelayInterval, .topicAlias:
            throw .propertyNotAllowed(id.rawValue)
        }
    }
}

extension ByteReader {
    /// An identifier that the packet may carry. All of today's take one byte.
    mutating func propertyIdentifier(allowed: PropertySet) throws(MalformedPacket) -> PropertyIdentifier {
        let byte = try byte()
        guard let id = PropertyIdentifier(rawValue: byte), allowed.contains(id) else {
            throw .propertyNotAllowed(byte)
        }
        return id
    }

    mutating func yesOrNo(_ id: PropertyIdentifier) throws(MalformedPacket) -> Bool {
        let value = try byte()
        guard value <= 1 else { throw .propertyValueOutOfRange(id.rawValue) }
        return value == 1
    }

    mutating func nonZero16(_ id: PropertyIdentifier) throws(MalformedPacket) -> UInt16 {
        let value = try uint16()
        guard value != 0 else { throw .propertyValueOutOfRange(id.rawValue) }
        return value
    }

    mutating func nonZero32(_ id: PropertyIdentifier) throws(MalformedPacket) -> UInt32 {
        let value = try uint32()
        guard value != 0 else { throw .propertyValueOutOfRange(id.rawValue) }
        return value
    }

    /// 1 to 268 435 455 [MQTT5-3.8.2.1.2].
    mutating func subscriptionIdentifier() throws(MalformedPacket) -> UInt32 {
        let value = try variableByteInteger()
        guard value != 0 else {
            throw .propertyValueOutOfRange(PropertyIdentifier.subscriptionIdentifier.rawValue)
        }
        return value
    }
}
