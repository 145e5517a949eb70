import NIOCore

/// Where clients may connect, and how much of the box they may take.
package struct TransportPlan: Hashable, Sendable {
    package var listeners: [ListenerPlan]
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

/// One TCP listener.
package struct ListenerPlan: Hashable, Sendable {
    /// Told to the delegate with every connection that was accepted here.
    package var index: Int
    /// A name or an address, IPv4 or IPv6 without brackets.
    package var host: String
    /// 0 lets the system choose.
    package var port: Int
    /// Of a packet that a client sends, with its fixed header, in bytes.
    package var maximumPacketSize: Int
    /// How many connections may be open at once; one more is accepted and closed at once.
    package var connectionsMax: Int

    package init(index: Int, host: String, port: Int, maximumPacketSize: Int, connectionsMax: Int) {
        precondition(
            connectionsMax < ConnectionNumber.slotMask, "a connection's number has room for its slot")
        self.index = index
        self.host = host
        self.port = port
        self.maximumPacketSize = maximumPacketSize
        self.connectionsMax = connectionsMax
    }
}

/// A listener could not be opened.
package struct ListenFailure: Error, CustomStringConvertible {
    package let host: String
    package let port: Int
    package let reason: String

    /// One line for the operator: what, where, why.
    package var description: String {
        let place = host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        return "cannot listen on \(place): \(reason)"
    }
}
