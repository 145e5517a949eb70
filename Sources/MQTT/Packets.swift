/// An MQTT Control Packet of any version. What a version cannot say is absent or at its default.
package enum Packet: Hashable, Sendable {
    // The two largest stand apart, so that moving a PUBLISH moves only what a PUBLISH needs.
    indirect case connect(Connect)
    indirect case connack(Connack)
    case publish(Publish)
    case puback(Acknowledgement)
    case pubrec(Acknowledgement)
    case pubrel(Acknowledgement)
    case pubcomp(Acknowledgement)
    case subscribe(Subscribe)
    case suback(Suback)
    case unsubscribe(Unsubscribe)
    case unsuback(Unsuback)
    case pingreq
    case pingresp
    case disconnect(Disconnect)
    case auth(Auth)
}

/// CONNECT [MQTT5-3.1].
package struct Connect: Hashable, Sendable {
    package var version: ProtocolVersion
    package var clientIdentifier: String
    /// Clean Start in MQTT 5, Clean Session before.
    package var cleanStart: Bool
    package var keepAliveSeconds: UInt16
    package var userName: String?
    package var password: [UInt8]?
    package var will: Will?
    /// Session Expiry Interval in seconds; nil when absent, which MQTT 5 reads as 0.
    package var sessionExpirySeconds: UInt32?
    /// nil when absent, which means 65 535.
    package var receiveMaximum: UInt16?
    /// In bytes; nil when absent, which means no limit but the protocol's.
    package var maximumPacketSize: UInt32?
    /// nil when absent, which means 0.
    package var topicAliasMaximum: UInt16?
    package var requestResponseInformation: Bool
    package var requestProblemInformation: Bool
    package var authenticationMethod: String?
    package var authenticationData: [UInt8]?
    package var userProperties: [UserProperty]
    /// The bridge bit (0x80 of the Protocol Level) that Mosquitto's bridges set with 3.1 and 3.1.1.
    package var isBridge: Bool

    package init(
        version: ProtocolVersion = .v5_0, clientIdentifier: String, cleanStart: Bool = true,
        keepAliveSeconds: UInt16 = 0, userName: String? = nil, password: [UInt8]? = nil, will: Will? = nil,
        sessionExpirySeconds: UInt32? = nil, receiveMaximum: UInt16? = nil,
        maximumPacketSize: UInt32? = nil, topicAliasMaximum: UInt16? = nil,
        requestResponseInformation: Bool = false, requestProblemInformation: Bool = true,
        authenticationMethod: String? = nil, authenticationData: [UInt8]? = nil,
        userProperties: [UserProperty] = [], isBridge: Bool = false
    ) {
        self.version = version
        self.clientIdentifier = clientIdentifier
        self.cleanStart = cleanStart
        self.keepAliveSeconds = keepAliveSeconds
        self.userName = userName
        self.password = password
        self.will = will
        self.sessionExpirySeconds = sessionExpirySeconds
        self.receiveMaximum = receiveMaximum
        self.maximumPacketSize = maximumPacketSize
        self.topicAliasMaximum = topicAliasMaximum
        self.requestResponseInformation = requestResponseInformation
        self.requestProblemInformation = requestProblemInformation
        self.authenticationMethod = authenticationMethod
        self.authenticationData = authenticationData
        self.userProperties = userProperties
        self.isBridge = isBridge
    }
}

/// The Will of a CONNECT [MQTT5-3.1.2.5].
package struct Will: Hashable, Sendable {
    package var message: ApplicationMessage
    package var qos: QoS
    package var retain: Bool
    /// Will Delay Interval in seconds.
    package var delaySeconds: UInt32
    package var messageExpirySeconds: UInt32?

    package init(
        message: ApplicationMessage, qos: QoS, retain: Bool, delaySeconds: UInt32 = 0,
        messageExpirySeconds: UInt32? = nil
    ) {
        self.message = message
        self.qos = qos
        self.retain = retain
        self.delaySeconds = delaySeconds
        self.messageExpirySeconds = messageExpirySeconds
    }
}

/// CONNACK [MQTT5-3.2]. In 3.1 and 3.1.1 the encoder writes the Return Code nearest to `reason`.
package struct Connack: Hashable, Sendable {
    package var sessionPresent: Bool
    package var reason: ReasonCode
    package var sessionExpirySeconds: UInt32?
    package var receiveMaximum: UInt16?
    /// nil means 2.
    package var maximumQoS: QoS?
    /// nil means available; likewise for the other three.
    package var retainAvailable: Bool?
    package var maximumPacketSize: UInt32?
    package var assignedClientIdentifier: String?
    package var topicAliasMaximum: UInt16?
    package var reasonString: String?
    package var userProperties: [UserProperty]
    package var wildcardSubscriptionAvailable: Bool?
    package var subscriptionIdentifiersAvailable: Bool?
    package var sharedSubscriptionAvailable: Bool?
    package var serverKeepAliveSeconds: UInt16?
    package var responseInformation: String?
    package var serverReference: String?
    package var authenticationMethod: String?
    package var authenticationData: [UInt8]?

    package init(
        sessionPresent: Bool, reason: ReasonCode, sessionExpirySeconds: UInt32? = nil,
        receiveMaximum: UInt16? = nil, maximumQoS: QoS? = nil, retainAvailable: Bool? = nil,
        maximumPacketSize: UInt32? = nil, assignedClientIdentifier: String? = nil,
        topicAliasMaximum: UInt16? = nil, reasonString: String? = nil, userProperties: [UserProperty] = [],
        wildcardSubscriptionAvailable: Bool? = nil, subscriptionIdentifiersAvailable: Bool? = nil,
        sharedSubscriptionAvailable: Bool? = nil, serverKeepAliveSeconds: UInt16? = nil,
        responseInformation: String? = nil, serverReference: String? = nil,
        authenticationMethod: String? = nil, authenticationData: [UInt8]? = nil
    ) {
        self.sessionPresent = sessionPresent
        self.reason = reason
        self.sessionExpirySeconds = sessionExpirySeconds
        self.receiveMaximum = receiveMaximum
        self.maximumQoS = maximumQoS
        self.retainAvailable = retainAvailable
        self.maximumPacketSize = maximumPacketSize
        self.assignedClientIdentifier = assignedClientIdentifier
        self.topicAliasMaximum = topicAliasMaximum
        self.reasonString = reasonString
        self.userProperties = userProperties
        self.wildcardSubscriptionAvailable = wildcardSubscriptionAvailable
        self.subscriptionIdentifiersAvailable = subscriptionIdentifiersAvailable
        self.sharedSubscriptionAvailable = sharedSubscriptionAvailable
        self.serverKeepAliveSeconds = serverKeepAliveSeconds
        self.responseInformation = responseInformation
        self.serverReference = serverReference
        self.authenticationMethod = authenticationMethod
        self.authenticationData = authenticationData
    }
}

/// PUBLISH [MQTT5-3.3].
package struct Publish: Hashable, Sendable {
    package var duplicate: Bool
    package var qos: QoS
    package var retain: Bool
    /// Present exactly when `qos` is above 0 [MQTT5-2.2.1-2].
    package var id: PacketIdentifier?
    package var message: ApplicationMessage
    package var messageExpirySeconds: UInt32?
    package var topicAlias: UInt16?
    /// Written without its Topic Name: the alias stands for it [MQTT5-3.3.2.3.4]. It saves a copy of the message
    /// without the name; a packet that was decoded has an empty name instead.
    package var omitsTopicName = false
    /// Only from server to client [MQTT5-3.3.4-6].
    package var subscriptionIdentifiers: [UInt32]

    package init(
        message: ApplicationMessage, qos: QoS = .atMostOnce, id: PacketIdentifier? = nil,
        retain: Bool = false, duplicate: Bool = false, messageExpirySeconds: UInt32? = nil,
        topicAlias: UInt16? = nil, subscriptionIdentifiers: [UInt32] = []
    ) {
        self.duplicate = duplicate
        self.qos = qos
        self.retain = retain
        self.id = id
        self.message = message
        self.messageExpirySeconds = messageExpirySeconds
        self.topicAlias = topicAlias
        self.subscriptionIdentifiers = subscriptionIdentifiers
    }
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP share one shape [MQTT5-3.4].
package struct Acknowledgement: Hashable, Sendable {
    package var id: PacketIdentifier
    /// `.success` wherever the version has no Reason Code.
    package var reason: ReasonCode
    package var reasonString: String?
    package var userProperties: [UserProperty]

    package init(
        _ id: PacketIdentifier, _ reason: ReasonCode = .success, reasonString: String? = nil,
        userProperties: [UserProperty] = []
    ) {
        self.id = id
        self.reason = reason
        self.reasonString = reasonString
        self.userProperties = userProperties
    }
}

/// One Topic Filter of a SUBSCRIBE with its Subscription Options [MQTT5-3.8.3.1].
package struct SubscriptionRequest: Hashable, Sendable {
    package var filter: TopicFilter
    package var maximumQoS: QoS
    package var noLocal: Bool
    package var retainAsPublished: Bool
    package var retainHandling: RetainHandling

    package init(
        filter: TopicFilter, maximumQoS: QoS, noLocal: Bool = false, retainAsPublished: Bool = false,
        retainHandling: RetainHandling = .sendOnSubscribe
    ) {
        self.filter = filter
        self.maximumQoS = maximumQoS
        self.noLocal = noLocal
        self.retainAsPublished = retainAsPublished
        self.retainHandling = retainHandling
    }
}

/// Retain Handling [MQTT5-3.8.3.1].
package enum RetainHandling: UInt8, Sendable {
    case sendOnSubscribe = 0
    case sendIfNewSubscription = 1
    case doNotSend = 2
}

/// SUBSCRIBE [MQTT5-3.8].
package struct Subscribe: Hashable, Sendable {
    package var id: PacketIdentifier
    /// At least one.
    package var requests: [SubscriptionRequest]
    package var subscriptionIdentifier: UInt32?
    package var userProperties: [UserProperty]

    package init(
        id: PacketIdentifier, requests: [SubscriptionRequest], subscriptionIdentifier: UInt32? = nil,
        userProperties: [UserProperty] = []
    ) {
        self.id = id
        self.requests = requests
        self.subscriptionIdentifier = subscriptionIdentifier
        self.userProperties = userProperties
    }
}

/// SUBACK [MQTT5-3.9]. In 3.1.1 the encoder writes every error as 0x80.
package struct Suback: Hashable, Sendable {
    package var id: PacketIdentifier
    package var reasons: [ReasonCode]
    package var reasonString: String?
    package var userProperties: [UserProperty]

    package init(
        id: PacketIdentifier, reasons: [ReasonCode], reasonString: String? = nil,
        userProperties: [UserProperty] = []
    ) {
        self.id = id
        self.reasons = reasons
        self.reasonString = reasonString
        self.userProperties = userProperties
    }
}

/// UNSUBSCRIBE [MQTT5-3.10].
package struct Unsubscribe: Hashable, Sendable {
    package var id: PacketIdentifier
    /// At least one.
    package var filters: [TopicFilter]
    package var userProperties: [UserProperty]

    package init(id: PacketIdentifier, filters: [TopicFilter], userProperties: [UserProperty] = []) {
        self.id = id
        self.filters = filters
        self.userProperties = userProperties
    }
}

/// UNSUBACK [MQTT5-3.11]; `reasons` is empty before MQTT 5.
package struct Unsuback: Hashable, Sendable {
    package var id: PacketIdentifier
    package var reasons: [ReasonCode]
    package var reasonString: String?
    package var userProperties: [UserProperty]

    package init(
        id: PacketIdentifier, reasons: [ReasonCode], reasonString: String? = nil,
        userProperties: [UserProperty] = []
    ) {
        self.id = id
        self.reasons = reasons
        self.reasonString = reasonString
        self.userProperties = userProperties
    }
}

/// DISCONNECT [MQTT5-3.14].
package struct Disconnect: Hashable, Sendable {
    package var reason: ReasonCode
    package var sessionExpirySeconds: UInt32?
    package var reasonString: String?
    package var userProperties: [UserProperty]
    package var serverReference: String?

    package init(
        _ reason: ReasonCode = .normalDisconnection, sessionExpirySeconds: UInt32? = nil,
        reasonString: String? = nil, userProperties: [UserProperty] = [], serverReference: String? = nil
    ) {
        self.reason = reason
        self.sessionExpirySeconds = sessionExpirySeconds
        self.reasonString = reasonString
        self.userProperties = userProperties
        self.serverReference = serverReference
    }
}

/// AUTH [MQTT5-3.15].
package struct Auth: Hashable, Sendable {
    package var reason: ReasonCode
    package var authenticationMethod: String?
    package var authenticationData: [UInt8]?
    package var reasonString: String?
    package var userProperties: [UserProperty]

    package init(
        _ reason: ReasonCode, authenticationMethod: String? = nil, authenticationData: [UInt8]? = nil,
        reasonString: String? = nil, userProperties: [UserProperty] = []
    ) {
        self.reason = reason
        self.authenticationMethod = authenticationMethod
        self.authenticationData = authenticationData
        self.reasonString = reasonString
        self.userProperties = userProperties
    }
}
