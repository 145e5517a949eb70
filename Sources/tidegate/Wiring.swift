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
        uplinks = settings.uplinks.map { UplinkRoutes($0, gateway: settings.gateway) }
        profiles = settings.deviceProfiles.map(\.profile)
    }
}

extension UplinkRoutes {
    init(_ settings: UplinkSettings, gateway: String) {
        self.init(
            name: settings.name, out: settings.routes.compactMap { Route($0, if: .out) },
            in: settings.routes.compactMap { Route($0, if: .in) })
        drain = settings.drain
        deadLettersMax = settings.deadLetters
        deadLetterBytesMax = settings.deadLetterBytes
        let added = settings.provenance
        if added.addsAnything {
            provenance = Provenance(
                gateway: gateway, addsGateway: added.addsGateway, addsSequence: added.addsSequence,
                addsReceivedAt: added.addsReceivedAt)
        }
    }
}

extension UplinkRoutes.Route {
    /// nil when it leads the other way.
    fileprivate init?(_ route: RouteSettings, if direction: RouteSettings.Direction) {
        guard route.direction == direction else { return nil }
        self.init(filter: route.filter, rename: route.rename, maximumQoS: route.qos)
        except = route.except
        carriesRetain = route.carriesRetain
        priority = route.priority
        isLiveFirst = route.isLiveFirst
        queue = route.queue
    }
}

extension TransportPlan {
    /// - Parameter connectionsMax: of them the process can bear no more.
    init(_ settings: Settings, connectionsMax: Int) {
        let limits = settings.limits
        self.init(
            listeners: settings.listeners.enumerated().map { index, listener in
                ListenerPlan(
                    index: index, address: ListenAddress(listener.endpoint),
                    framing: Framing(listener),
                    maximumPacketSize: listener.packetBytes ?? limits.packetBytes,
                    connectionsMax: listener.connections ?? limits.connections,
                    security: listener.security.map { ListenerSecurity($0) })
            })
        self.connectionsMax = min(limits.connections, connectionsMax)
        // Behind the largest packet there is room for what must not wait for it: whoever reads that one slowly is read to.
        let largest = listeners.reduce(limits.packetBytes) { max($0, $1.maximumPacketSize) }
        waitingBytesMax = max(waitingBytesMax, 2 * largest)
    }
}

extension ListenerSecurity {
    init(_ settings: ListenerSecuritySettings) {
        self.init(
            certificateFile: settings.certificateFile, keyFile: settings.keyFile,
            clientAuthorityFile: settings.clientAuthorityFile,
            requiresCertificate: settings.requiresCertificate, requiresTLS13: settings.requiresTLS13)
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
            name: settings.name, addresses: settings.addresses.map { UplinkAddress($0) },
            security: settings.addresses.contains(where: \.isSecure)
                ? UplinkSecurity(settings.security) : nil,
            proxy: settings.proxy.map { UplinkProxy($0) },
            failBackMilliseconds: settings.failBackMilliseconds.map { Int64(clamping: $0) },
            topicAliasMax: settings.version == .v5_0 ? settings.topicAliasMax : 0,
            clientIdentifier: settings.clientIdentifier, userName: settings.credentials?.userName,
            password: try settings.credentials?.password?.bytes(), version: settings.version,
            keepAliveSeconds: settings.keepAliveSeconds, sessionExpirySeconds: settings.sessionExpirySeconds,
            receiveMaximum: settings.receiveMaximum,
            maximumPacketSize: packetBytesMax,
            subscriptions: settings.routes.compactMap { route in
                route.direction == .in ? Subscription(route.filter, route.qos) : nil
            },
            status: settings.status.map { UplinkStatus($0) },
            backoffMinMilliseconds: Int64(clamping: settings.reconnectMinMilliseconds),
            backoffMaxMilliseconds: Int64(clamping: settings.reconnectMaxMilliseconds),
            ackWatchdogSeconds: Int64(settings.ackTimeoutSeconds), runtimeDirectory: runtimeDirectory)
    }
}

extension UplinkAddress {
    init(_ settings: AddressSettings) {
        let scheme: Scheme =
            switch settings.scheme {
            case .mqtt: .mqtt
            case .mqtts: .mqtts
            case .ws: .ws
            case .wss: .wss
            }
        self.init(scheme, host: settings.host, port: Int(settings.port), path: settings.path)
    }
}

extension UplinkSecurity {
    /// - Parameter settings: nil for the system's authorities and no certificate of our own.
    init(_ settings: SecuritySettings?) {
        guard let settings else {
            self.init()
            return
        }
        self.init(
            authorityFile: settings.authorityFile, certificateFile: settings.certificateFile,
            keyFile: settings.keyFile, serverName: settings.serverName, protocols: settings.protocols,
            minimumVersion: settings.minimum == .tls13 ? .tls13 : .tls12)
    }
}

extension UplinkStatus {
    init(_ settings: StatusSettings) {
        self.init(
            topic: settings.topic, online: Array(settings.online.utf8), offline: Array(settings.offline.utf8),
            qos: settings.qos, retain: settings.isRetained)
    }
}

extension UplinkProxy {
    init(_ settings: ProxySettings) {
        self.init(
            host: settings.host, port: Int(settings.port), userName: settings.userName,
            password: settings.password)
    }
}
