import NIOCore

/// Where clients may connect, and how much of the box they may take.
package struct TransportPlan: Hashable, Sendable {
    package var listeners: [ListenerPlan]
    /// How many connections may be open at once on all listeners together; one more is accepted and closed.
    package var connectionsMax = ConnectionNumber.slotMask - 1
    /// Above this many bytes waiting to be written a connection counts as not writable …
    package var waitingBytesHigh = 256 * 1024
    /// … until there are no more than this.
    package var waitingBytesLow = 64 * 1024
    /// A connection that has more than this waiting when yet another packet is sent to it is cut. Bounds the
    /// memory of a client that does not read, whatever is sent to it.
    package var waitingBytesMax = 4 * 1024 * 1024
    /// A connection that is not writable and has not taken a single byte for this long is cut.
    package var stallTimeout: TimeAmount = .seconds(60)
    /// How long a closed connection may take to read what was sent before it is cut.
    package var closeTimeout: TimeAmount = .seconds(4)

    package init(listeners: [ListenerPlan]) { self.listeners = listeners }
}

/// One listening socket, and what the connections accepted there speak.
package struct ListenerPlan: Hashable, Sendable {
    /// Told to the delegate with every connection that was accepted here.
    package var index: Int
    package var address: ListenAddress
    package var framing: Framing
    /// Of a packet that a client sends, with its fixed header, in bytes.
    package var maximumPacketSize: Int
    /// How many connections may be open at once; one more is accepted and closed at once.
    package var connectionsMax: Int
    /// TLS; nil for bytes as they are.
    package var security: ListenerSecurity?

    package init(
        index: Int, address: ListenAddress, framing: Framing = .none, maximumPacketSize: Int,
        connectionsMax: Int, security: ListenerSecurity? = nil
    ) {
        self.security = security
        self.index = index
        self.address = address
        self.framing = framing
        self.maximumPacketSize = maximumPacketSize
        self.connectionsMax = connectionsMax
    }
}

/// Where a listener can be reached.
package enum ListenAddress: Hashable, Sendable, CustomStringConvertible {
    /// - host: a name or an address, IPv4 or IPv6 without brackets.
    /// - port: 0 lets the system choose.
    case tcp(host: String, port: Int)
    /// - path: absolute, at most `pathBytesMax` bytes.
    /// - mode: the permissions of the socket file; who may write to it may connect.
    case unix(path: String, mode: UInt32)

    /// What `sockaddr_un` has room for, less the zero at its end.
    package static let pathBytesMax = 107

    /// As the configuration writes it.
    package var description: String {
        switch self {
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path, _): "unix:\(path)"
        }
    }
}

/// What stands between the bytes of the socket and the bytes of MQTT.
package enum Framing: Hashable, Sendable {
    case none
    /// WebSocket (RFC 6455), asked for under one of these paths [MQTT5-6]. With `localPagesOnly` a browser is
    /// let in only with a page that came from this machine: every page it shows can reach a loopback address.
    case webSocket(paths: [String], localPagesOnly: Bool = false)

    /// Bytes that stand before `count` bytes written at once.
    func overhead(of count: Int) -> Int {
        switch self {
        case .none: 0
        // RFC 6455, 5.2: what a server sends has no mask.
        case .webSocket: count < 126 ? 2 : count <= Int(UInt16.max) ? 4 : 10
        }
    }
}

/// A listener could not be opened.
package struct ListenFailure: Error, CustomStringConvertible {
    package let address: ListenAddress
    package let reason: String

    /// One line for the operator: what, where, why.
    package var description: String { "cannot listen on \(address): \(reason)" }
}

extension SocketAddress {
    /// Where a listener was bound, as the configuration writes it: for the log.
    package var listenerText: String {
        if let pathname { return ListenAddress.unix(path: pathname, mode: 0).description }
        return ListenAddress.tcp(host: ipAddress ?? "?", port: port ?? 0).description
    }
}
