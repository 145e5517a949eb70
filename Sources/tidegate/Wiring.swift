import GatewayCore
import Journal
import MQTT
import Settings
import Transport
import Uplink

// What the user wrote, as each module wants it.

extension GatewayPlan {
    init(_ settings: Settings) {
        self.init()
        limits.inFlightMax = settings.limits.inflight
        limits.packetBytesMax = UInt32(clamping: settings.limits.packetBytes)
        limits.queuedMessagesMax = settings.limits.queueMessages
        limits.connectTimeoutMilliseconds = settings.limits.connectTimeoutMilliseconds
        limits.validatesPayloadFormat = settings.limits.validatesPayloadFormat
        expirySecondsBefore5 = settings.sessions.expiryFor311Seconds
        expirySecondsMax = settings.sessions.expiryMaxSeconds
        systemTopicsMilliseconds = settings.monitoring.sysIntervalMilliseconds
        gateway = settings.gateway
        version = "tidegate version \(Tidegate.version)"
        for (index, listener) in settings.listeners.enumerated() {
            packetBytesMaxByListener[index] = listener.packetBytes.map { UInt32(clamping: $0) }
        }
        uplinks = settings.uplinks.map { uplink in
            UplinkRoutes(
                name: uplink.name, out: uplink.routes.compactMap { Self.route($0, if: .out) },
                in: uplink.routes.compactMap { Self.route($0, if: .in) })
        }
    }

    private static func route(
        _ route: RouteSettings, if direction: RouteSettings.Direction
    ) -> UplinkRoutes.Route? {
        guard route.direction == direction else { return nil }
        return UplinkRoutes.Route(filter: route.filter, rename: route.rename, maximumQoS: route.qos)
    }
}

extension TransportPlan {
    init(_ settings: Settings) {
        let limits = settings.limits
        self.init(
            listeners: settings.listeners.enumerated().map { index, listener in
                ListenerPlan(
                    index: index, address: ListenAddress(listener.endpoint),
                    framing: Framing(listener),
                    maximumPacketSize: listener.packetBytes ?? limits.packetBytes,
                    connectionsMax: listener.connections ?? limits.connections)
            })
        connectionsMax = limits.connections
    }
}

extension ListenAddress {
    init(_ endpoint: ListenerSettings.Endpoint) {
        switch endpoint {
        case .tcp(let host, let port): self = .tcp(host: host, port: Int(port))
        case .unix(let path, let mode): self = .unix(path: path, mode: mode)
        }
    }
}

extension Framing {
    init(_ listener: ListenerSettings) {
        switch listener.speech {
        case .mqtt: self = .none
        case .webSocket(let paths):
            self = .webSocket(paths: paths, localPagesOnly: listener.isForLocalPagesOnly)
        }
    }
}

extension JournalPlan {
    init(_ settings: JournalSettings) {
        self.init()
        segmentBytes = settings.segmentBytes
        sizeLimitBytes = settings.sizeLimitBytes
        flashBudget = settings.flashBudgetBytesPerDay.map { FlashBudget(bytesPerDay: $0) }
        reserveBytes = settings.segmentBytes
        commits = CommitPlan(settings.durability)
    }
}

extension CommitPlan {
    init(_ durability: JournalSettings.Durability) {
        switch durability {
        case .latency: self = .latency
        case .balanced: self = .balanced
        case .flashSaver: self = .flashSaver
        }
    }
}

extension UplinkPlan {
    /// - Parameters:
    ///   - packetBytesMax: what the local side takes is taken from the cloud too.
    ///   - runtimeDirectory: a private one that need not survive a restart.
    /// - Throws: the password file cannot be read.
    init(
        _ settings: UplinkSettings, packetBytesMax: UInt32, runtimeDirectory: String
    ) throws(SettingsErrors) {
        self.init(
            name: settings.name, addresses: [UplinkAddress(host: settings.host, port: Int(settings.port))],
            clientIdentifier: settings.clientIdentifier, userName: settings.credentials?.userName,
            password: try settings.credentials?.password?.bytes(), version: settings.version,
            keepAliveSeconds: settings.keepAliveSeconds, sessionExpirySeconds: settings.sessionExpirySeconds,
            receiveMaximum: settings.receiveMaximum,
            maximumPacketSize: packetBytesMax,
            subscriptions: settings.routes.compactMap { route in
                route.direction == .in ? Subscription(route.filter, route.qos) : nil
            },
            backoffMinMilliseconds: Int64(clamping: settings.reconnectMinMilliseconds),
            backoffMaxMilliseconds: Int64(clamping: settings.reconnectMaxMilliseconds),
            runtimeDirectory: runtimeDirectory)
    }
}
