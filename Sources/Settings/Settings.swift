import GatewayCore
import MQTT

/// What the configuration file says, with defaults where it is silent. Only values: the `tidegate` command
/// hands them to the modules they concern.
package struct Settings: Hashable, Sendable {
    /// Used in topics (`${gateway}`) and in the client identifiers of uplinks.
    package var gateway: String
    /// The directory of everything that must survive a power cut.
    package var state: String
    package var listeners: [ListenerSettings] = [
        ListenerSettings(.tcp(host: "127.0.0.1", port: 1883))
    ]
    package var sessions = SessionSettings()
    package var journal = JournalSettings()
    package var limits = LimitSettings()
    package var monitoring = MonitoringSettings()
    package var uplinks: [UplinkSettings] = []
    /// The directory of device profiles; nil for the one beside the configuration file, if it is there.
    package var deviceProfilesPath: String?
    /// In the order in which they are tried.
    package var deviceProfiles: [ProfileSettings] = []

    /// The addresses of `listeners`, as the file writes them.
    package var listenerAddresses: [String] { listeners.map(\.addressText) }

    package static let defaultPath = "/etc/tidegate/tidegate.yaml"
    package static let defaultState = "/var/lib/tidegate"

    /// The settings of a gateway without a configuration file: a broker on loopback.
    package init(gateway: String, state: String = Settings.defaultState) {
        self.gateway = gateway
        self.state = state
    }
}

/// An address to accept MQTT clients at, and what they may do there.
package struct ListenerSettings: Hashable, Sendable {
    package enum Endpoint: Hashable, Sendable {
        /// - host: a numeric IPv4 or IPv6 address without brackets.
        /// - port: 0 only from the command line: the system chooses.
        case tcp(host: String, port: UInt16)
        /// - path: absolute.
        /// - mode: the permissions of the socket's file.
        case unix(path: String, mode: UInt32)
    }

    package enum Speech: Hashable, Sendable {
        case mqtt
        /// MQTT over WebSocket, under any of these paths [MQTT5-6].
        case webSocket(paths: [String])
    }

    package var endpoint: Endpoint
    package var speech = Speech.mqtt
    /// nil where only `limits.connections` counts, which is for all listeners together.
    package var connections: Int?
    /// At most `limits.packetBytes`; nil where it is that.
    package var packetBytes: Int?
    /// TLS; nil for bytes as they are.
    package var security: ListenerSecuritySettings?
    /// Whether the operator wrote `anonymous: true`: clients that nobody vouches for, from beyond this machine.
    package var isAnonymous: Bool

    /// Who may use a Unix socket when the file does not say: its user and its group.
    package static let defaultMode: UInt32 = 0o660
    /// Where WebSocket clients look when the file does not say: what they ask for by default, and the root.
    package static let defaultPaths = ["/mqtt", "/"]

    package init(_ endpoint: Endpoint, isAnonymous: Bool = false) {
        self.endpoint = endpoint
        self.isAnonymous = isAnonymous
    }

    /// Whether only this machine can reach it.
    package var isLocal: Bool {
        switch endpoint {
        case .tcp(let host, _): host == "::1" || host.hasPrefix("127.")
        case .unix: true
        }
    }

    /// Whether pages from elsewhere that a browser on this machine shows must be kept out. No browser reaches
    /// a Unix socket by itself, and `anonymous: true` means them too.
    package var isForLocalPagesOnly: Bool {
        switch endpoint {
        case .tcp: isLocal && !isAnonymous
        case .unix: false
        }
    }

    /// Whether both cannot be open at once.
    func clashes(with other: ListenerSettings) -> Bool {
        switch (endpoint, other.endpoint) {
        case (.tcp(let host, let port), .tcp(let otherHost, let otherPort)):
            host == otherHost && port == otherPort
        case (.unix(let path, _), .unix(let otherPath, _)): path == otherPath
        case (.tcp, .unix), (.unix, .tcp): false
        }
    }
}

/// The files that secure a listener: see `tls` in the configuration file.
package struct ListenerSecuritySettings: Hashable, Sendable {
    package var certificateFile: String
    package var keyFile: String
    /// The authorities whose certificates clients may show; nil where none is asked for.
    package var clientAuthorityFile: String?
    package var requiresCertificate = false
    /// TLS 1.2 where it is false.
    package var requiresTLS13 = false
}

/// How long the Sessions of absent clients are kept; `UInt32.max` seconds mean for ever, as in MQTT 5
/// [MQTT5-3.1.2.11.2].
package struct SessionSettings: Hashable, Sendable {
    /// For Clean Session 0 of MQTT 3.1 and 3.1.1, which have no Session Expiry Interval.
    package var expiryFor311Seconds: UInt32 = .max
    /// The longest Session Expiry Interval granted to a client of MQTT 5.
    package var expiryMaxSeconds: UInt32 = .max

    package init() {}
}

package struct JournalSettings: Hashable, Sendable {
    /// What an acknowledgement of a message that must be written may cost the flash, and so how soon it comes.
    /// None of them acknowledges anything that a power cut could take back.
    package enum Durability: String, CaseIterable, Sendable {
        case latency
        case balanced
        case flashSaver = "flash-saver"
    }

    package var durability = Durability.balanced
    /// Beyond this nothing new is accepted, and publishers are told so (promise P4).
    package var sizeLimitBytes = 4 << 30
    package var segmentBytes = 4 << 20
    /// What the flash may be given in a day; as that nears, acknowledgements come later and share more of each
    /// commit. nil where there is no bound.
    package var flashBudgetBytesPerDay: UInt64?
    /// What the flash can take in its life, for `tidegate journal stats`.
    package var enduranceBytes: UInt64?
    /// Whether a state directory that does not survive a power cut (tmpfs, overlayfs) is accepted.
    package var allowsVolatile = false
    /// What becomes of the gateway while the disk writes nothing, not even in a new file.
    package var onFailure = OnFailure.serve

    package enum OnFailure: String, Hashable, Sendable, CaseIterable {
        /// QoS 0 and what is on the disk flow on, everything else is refused, and writing is tried again.
        case serve
        /// The process ends with status 75, for whoever supervises it to start it again, perhaps elsewhere.
        case exit
    }

    package init() {}
}

package struct LimitSettings: Hashable, Sendable {
    /// On all listeners together.
    package var connections = 10_000
    /// The largest packet accepted: Maximum Packet Size in CONNACK [MQTT5-3.2.2.3.6].
    package var packetBytes = 1 << 20
    /// Receive Maximum as announced, and the most unacknowledged messages sent to one client [MQTT5-4.9].
    package var inflight: UInt16 = 100
    /// For one Session.
    package var queueMessages = 10_000_000
    /// From accepting a connection to its CONNECT [MQTT5-3.1.0-1].
    package var connectTimeoutMilliseconds: UInt64 = 10_000
    /// Whether a payload must be UTF-8 where its publisher says so [MQTT5-3.3.2.3.2].
    package var validatesPayloadFormat = false

    package init() {}
}

/// What the gateway tells about itself.
package struct MonitoringSettings: Hashable, Sendable {
    /// How often the `$SYS/broker/…` tree is brought up to date; nil when there is none.
    package var sysIntervalMilliseconds: UInt64? = 10_000

    package init() {}
}
