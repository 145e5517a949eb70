import MQTT

/// One uplink as the settings describe it: where the cloud is, who we are there, and how patient to be.
package struct UplinkPlan: Hashable, Sendable {
    /// A Topic Filter in the cloud's name space with the highest QoS the routes want from it.
    package struct Subscription: Hashable, Sendable {
        package var filter: TopicFilter
        package var maximumQoS: QoS

        package init(_ filter: TopicFilter, _ maximumQoS: QoS) {
            self.filter = filter
            self.maximumQoS = maximumQoS
        }
    }

    /// For log lines.
    package var name: String
    /// In order of preference; at least one.
    package var addresses: [UplinkAddress]
    /// For the addresses that are secure; the system's roots when nil.
    package var security: UplinkSecurity?
    /// An HTTP proxy that CONNECT is asked of, for every address.
    package var proxy: UplinkProxy?
    /// Milliseconds for which another address than the first is kept before the first is tried again; nil for as long
    /// as it lasts.
    package var failBackMilliseconds: Int64?
    /// Topic Aliases used towards a cloud that allows them, at most this many, to save bytes [MQTT5-3.3.2.3.4].
    package var topicAliasMax: UInt16
    /// At least one byte: the cloud's session and ours are tied by it.
    package var clientIdentifier: String
    package var userName: String?
    package var password: [UInt8]?
    package var version: ProtocolVersion
    /// 0 turns keep-alive off [MQTT5-3.1.2.10].
    package var keepAliveSeconds: UInt16
    /// How long the cloud keeps our session while we are away; 3.1.1 has no such limit.
    package var sessionExpirySeconds: UInt32
    /// How many QoS 1 and 2 messages the cloud may have in flight towards us, 1 to 65 535; MQTT 5 only.
    package var receiveMaximum: UInt16
    /// How many messages we have in flight towards the cloud at most, whatever it would allow: libmosquitto
    /// scans its list of them at every acknowledgement.
    package var inFlightMaximum: UInt16
    /// Largest packet accepted from the cloud, in bytes; nil for the protocol's own limit. MQTT 5 announces it; a
    /// cloud of 3.1.1 cannot be told, and has larger messages acknowledged and left out, counted.
    package var maximumPacketSize: UInt32?
    package var subscriptions: [Subscription]
    /// What the cloud publishes for us when we vanish; nil for what `status` says.
    package var will: Will?
    /// Where the cloud reads whether we are connected; nil for nowhere.
    package var status: UplinkStatus?
    /// The first reconnection waits a random time up to this, each further one up to twice as long.
    package var backoffMinMilliseconds: Int64
    /// Where the doubling stops.
    package var backoffMaxMilliseconds: Int64
    /// For the TCP connection, again for what lies between it and MQTT, and again for CONNACK.
    package var connectTimeoutSeconds: Int64
    /// Reconnect when messages are in flight and none was acknowledged for this long; 0 turns it off.
    package var ackWatchdogSeconds: Int64
    /// Where the private directory of the engine's socket is made for a moment; at most 80 bytes.
    package var runtimeDirectory: String

    package init(
        name: String, addresses: [UplinkAddress], security: UplinkSecurity? = nil, proxy: UplinkProxy? = nil,
        failBackMilliseconds: Int64? = nil, topicAliasMax: UInt16 = 0, clientIdentifier: String,
        userName: String? = nil,
        password: [UInt8]? = nil, version: ProtocolVersion = .v5_0, keepAliveSeconds: UInt16 = 60,
        sessionExpirySeconds: UInt32 = 7 * 24 * 3600, receiveMaximum: UInt16 = 100,
        inFlightMaximum: UInt16 = 100, maximumPacketSize: UInt32? = nil, subscriptions: [Subscription] = [],
        will: Will? = nil, status: UplinkStatus? = nil, backoffMinMilliseconds: Int64 = 1000,
        backoffMaxMilliseconds: Int64 = 60_000,
        connectTimeoutSeconds: Int64 = 10, ackWatchdogSeconds: Int64 = 60, runtimeDirectory: String = "/tmp"
    ) {
        precondition(receiveMaximum > 0, "a Receive Maximum is not zero [MQTT5-3.1.2.11.3]")
        precondition(!addresses.isEmpty, "an uplink leads somewhere")
        precondition(inFlightMaximum > 0, "at least one message may be in flight")
        self.name = name
        self.addresses = addresses
        self.security = security
        self.proxy = proxy
        self.failBackMilliseconds = failBackMilliseconds
        self.topicAliasMax = topicAliasMax
        self.clientIdentifier = clientIdentifier
        self.userName = userName
        self.password = password
        self.version = version
        self.keepAliveSeconds = keepAliveSeconds
        self.sessionExpirySeconds = sessionExpirySeconds
        self.receiveMaximum = receiveMaximum
        self.inFlightMaximum = inFlightMaximum
        self.maximumPacketSize = maximumPacketSize
        self.subscriptions = subscriptions
        self.will = will
        self.status = status
        self.backoffMinMilliseconds = backoffMinMilliseconds
        self.backoffMaxMilliseconds = backoffMaxMilliseconds
        self.connectTimeoutSeconds = connectTimeoutSeconds
        self.ackWatchdogSeconds = ackWatchdogSeconds
        self.runtimeDirectory = runtimeDirectory
    }
}

/// A message to the cloud that says whether we are connected: one at each connection, the other when we leave or, as
/// our Will, when we vanish.
package struct UplinkStatus: Hashable, Sendable {
    /// A Topic Name of the cloud's.
    package var topic: [UInt8]
    package var online: [UInt8]
    package var offline: [UInt8]
    package var qos: QoS
    package var retain: Bool

    package init(
        topic: [UInt8], online: [UInt8], offline: [UInt8], qos: QoS = .atLeastOnce, retain: Bool = true
    ) {
        precondition(TopicName.isValid(topic[...]), "a status has a Topic Name")
        self.topic = topic
        self.online = online
        self.offline = offline
        self.qos = qos
        self.retain = retain
    }

    var will: Will {
        Will(message: ApplicationMessage(topic: topic, payload: offline), qos: qos, retain: retain)
    }
}
