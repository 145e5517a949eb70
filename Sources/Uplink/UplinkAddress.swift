/// One place where a cloud broker is reached, and how.
package struct UplinkAddress: Hashable, Sendable, CustomStringConvertible {
    package enum Scheme: String, Hashable, Sendable, CaseIterable {
        case mqtt
        /// MQTT over TLS.
        case mqtts
        /// MQTT over WebSocket [MQTT5-6].
        case ws
        /// MQTT over WebSocket over TLS.
        case wss
    }

    package var scheme: Scheme
    /// A name, or a numeric address without brackets.
    package var host: String
    package var port: Int
    /// What a WebSocket is asked for, with its query; without meaning for the other schemes.
    package var path: String

    package init(_ scheme: Scheme = .mqtt, host: String, port: Int, path: String = "/mqtt") {
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path
    }

    package var isSecure: Bool { scheme == .mqtts || scheme == .wss }
    package var isWebSocket: Bool { scheme == .ws || scheme == .wss }

    package var description: String {
        let place = host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        return "\(scheme.rawValue)://\(place)\(isWebSocket ? path : "")"
    }
}

/// How an uplink knows its cloud, and is known to it, over TLS. Files are PEM.
package struct UplinkSecurity: Hashable, Sendable {
    package enum MinimumVersion: String, Hashable, Sendable, CaseIterable {
        case tls12 = "1.2"
        case tls13 = "1.3"
    }

    /// A file of certificates to trust instead of the system's.
    package var authorityFile: String?
    /// Our certificate, followed by those between it and a root.
    package var certificateFile: String?
    package var keyFile: String?
    /// The name that the cloud's certificate must bear, and that is asked for by SNI, instead of the address's host.
    package var serverName: String?
    /// Protocols to ask for by ALPN at every secure address, such as `mqtt` or `x-amzn-mqtt-ca`; the cloud has to agree
    /// to one. Without any it is not asked.
    package var protocols: [String]
    package var minimumVersion: MinimumVersion

    package init(
        authorityFile: String? = nil, certificateFile: String? = nil, keyFile: String? = nil,
        serverName: String? = nil, protocols: [String] = [], minimumVersion: MinimumVersion = .tls12
    ) {
        self.authorityFile = authorityFile
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        self.serverName = serverName
        self.protocols = protocols
        self.minimumVersion = minimumVersion
    }
}

/// An HTTP proxy on the way to the cloud.
package struct UplinkProxy: Hashable, Sendable {
    package var host: String
    package var port: Int
    /// Basic authentication, if it asks for any.
    package var userName: String?
    package var password: String?

    package init(host: String, port: Int, userName: String? = nil, password: String? = nil) {
        self.host = host
        self.port = port
        self.userName = userName
        self.password = password
    }
}
