import GatewayCore
import MQTT

/// One cloud broker and what is carried to and from it.
package struct UplinkSettings: Hashable, Sendable {
    package var name: String
    /// In order of preference; at least one.
    package var addresses: [AddressSettings]
    /// How the addresses that are secure are trusted; the system's roots when nil.
    package var security: SecuritySettings?
    /// The HTTP proxy that leads to every address.
    package var proxy: ProxySettings?
    /// How long another address than the first is kept before the first is tried again; nil for as long as it lasts.
    package var failBackMilliseconds: UInt64? = 600_000
    package var clientIdentifier: String
    /// `.v3_1_1` or `.v5_0`.
    package var version: ProtocolVersion = .v5_0
    package var credentials: CredentialSettings?
    package var keepAliveSeconds: UInt16 = 60
    /// Never 0; `UInt32.max` means for ever.
    package var sessionExpirySeconds: UInt32 = 7 * 86_400
    /// Receive Maximum as announced to the cloud.
    package var receiveMaximum: UInt16 = 100
    /// Topic Aliases used towards a cloud that allows them; 0 for none.
    package var topicAliasMax: UInt16 = 10
    /// Messages are in flight and none was acknowledged for this long: connect anew; 0 for never.
    package var ackTimeoutSeconds: UInt32 = 60
    package var reconnectMinMilliseconds: UInt64 = 1000
    package var reconnectMaxMilliseconds: UInt64 = 60_000
    /// A topic at the cloud that says whether this gateway is connected.
    package var status: StatusSettings?
    /// What is added to each message on its way up.
    package var provenance = ProvenanceSettings()
    /// How fast what waits may leave.
    package var drain = UplinkRoutes.Drain()
    /// How many messages that the cloud refused are kept.
    package var deadLetters = 100_000
    package var deadLetterBytes = 64 << 20
    /// In the order of the file; no two of one direction have the same filter.
    package var routes: [RouteSettings] = []

    package init(name: String, addresses: [AddressSettings], clientIdentifier: String) {
        self.name = name
        self.addresses = addresses
        self.clientIdentifier = clientIdentifier
    }
}

/// `mqtt://HOST:PORT`, `mqtts://…`, `ws://HOST:PORT/PATH` or `wss://…`.
package struct AddressSettings: Hashable, Sendable {
    package enum Scheme: String, Hashable, Sendable, CaseIterable {
        case mqtt, mqtts, ws, wss

        /// What is meant where none is written.
        var port: UInt16 {
            switch self {
            case .mqtt: 1883
            case .mqtts: 8883
            case .ws: 80
            case .wss: 443
            }
        }
    }

    package var scheme: Scheme
    /// A name, or a numeric address without brackets.
    package var host: String
    package var port: UInt16
    /// Of WebSockets; `/mqtt` where none is written.
    package var path: String

    package init(_ scheme: Scheme = .mqtt, host: String, port: UInt16, path: String = "/mqtt") {
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path
    }

    package var isSecure: Bool { scheme == .mqtts || scheme == .wss }
}

/// The section `tls` of an uplink. Files are PEM, their paths absolute.
package struct SecuritySettings: Hashable, Sendable {
    package enum MinimumVersion: String, Hashable, Sendable, CaseIterable {
        case tls12 = "1.2"
        case tls13 = "1.3"
    }

    package var authorityFile: String?
    /// Written together with `keyFile` or not at all.
    package var certificateFile: String?
    package var keyFile: String?
    package var serverName: String?
    /// ALPN.
    package var protocols: [String] = []
    package var minimum = MinimumVersion.tls12

    package init() {}

    /// Every file that must be there.
    package var files: [String] { [authorityFile, certificateFile, keyFile].compactMap(\.self) }
}

/// `http://USER:PASSWORD@HOST:PORT`.
package struct ProxySettings: Hashable, Sendable {
    package var host: String
    package var port: UInt16
    /// Without percent signs; a password is there whenever a user is, though perhaps empty.
    package var userName: String?
    package var password: String?

    package init(host: String, port: UInt16, userName: String? = nil, password: String? = nil) {
        self.host = host
        self.port = port
        self.userName = userName
        self.password = password
    }
}

/// How an uplink makes itself known.
package struct CredentialSettings: Hashable, Sendable {
    package var userName: String
    package var password: Password?

    package enum Password: Hashable, Sendable {
        case written(String)
        /// An absolute path, read when the uplink starts: `Password.bytes()`.
        case file(String)
    }

    package init(userName: String, password: Password?) {
        self.userName = userName
        self.password = password
    }
}

/// A message at the cloud that says `online` while the gateway is connected, and by the Will `offline` when it is not.
package struct StatusSettings: Hashable, Sendable {
    package var topic: [UInt8]
    package var online = "1"
    package var offline = "0"
    package var qos = QoS.atLeastOnce
    package var isRetained = true

    package init(topic: [UInt8]) { self.topic = topic }
}

/// Which User Properties messages get on their way up.
package struct ProvenanceSettings: Hashable, Sendable {
    package var addsGateway = false
    package var addsSequence = false
    package var addsReceivedAt = false

    package init() {}

    package var addsAnything: Bool { addsGateway || addsSequence || addsReceivedAt }
}

/// One direction of one line of an uplink's `routes`.
package struct RouteSettings: Hashable, Sendable {
    package enum Direction: Hashable, Sendable {
        case out, `in`
    }

    package var direction: Direction
    /// What is carried: a local filter for `out`, the cloud's for `in`.
    package var filter: TopicFilter
    /// nil when topics stay as they are.
    package var rename: TopicRename?
    /// The highest QoS at which messages are carried.
    package var qos: QoS
    /// On the same side as `filter`, and not carried.
    package var except: [TopicFilter] = []
    package var carriesRetain = true
    /// Of `out` only, as are the following.
    package var priority = UplinkRoutes.Priority.normal
    package var isLiveFirst = false
    package var queue: QueueBounds?

    package init(direction: Direction, filter: TopicFilter, rename: TopicRename?, qos: QoS) {
        self.direction = direction
        self.filter = filter
        self.rename = rename
        self.qos = qos
    }

    /// The names of the queues that this route's messages wait in, besides the uplink's own: what the lanes of an
    /// uplink are counted by.
    var lanes: [String] {
        guard direction == .out else { return [] }
        let backlog =
            if queue != nil {
                "route \(String(decoding: filter.bytes, as: UTF8.self))"
            } else {
                switch priority {
                case .high: "high"
                case .normal: ""
                case .low: "low"
                }
            }
        return (backlog.isEmpty ? [] : [backlog]) + (isLiveFirst ? ["live \(backlog)"] : [])
    }
}
