import MQTT
import NIOCore

/// One network connection; never used twice in the life of a `Transport`, and later ones are larger.
package typealias ConnectionNumber = UInt64

extension ConnectionNumber {
    /// The low bits name the place in the table of connections, the high bits count.
    static let slotBits: UInt64 = 20
    static let slotMask = 1 << Int(slotBits) - 1
    var slot: Int { Int(truncatingIfNeeded: self) & Self.slotMask }
}

/// Who is told what happens on the connections: the host of the gateway's core.
///
/// Every call comes on the event loop, and none comes while the delegate itself is inside a call of the
/// transport: what a call causes is told when the cycle ends. For each connection the order is `opened`, any
/// number of the others, `closed`.
package protocol TransportDelegate: AnyObject {
    /// A client's connection was accepted; over TLS its handshake is done.
    ///
    /// - Parameter certificate: what it has shown, and its listener has verified.
    func opened(
        _ connection: ConnectionNumber, listener: Int, peer: SocketAddress?, certificate: PeerCertificate?)
    func received(_ connection: ConnectionNumber, _ packet: consuming Packet)
    /// The client broke a rule of the encoding; nothing more is read from it. What is sent now still reaches it,
    /// in the version it asked for; then it is to be closed.
    ///
    /// - Parameter version: that of its CONNECT, as far as it was read; nil when it was not.
    func malformed(_ connection: ConnectionNumber, _ error: MalformedPacket, in version: ProtocolVersion?)
    /// The connection is gone, whoever closed it; the last thing heard of it.
    func closed(_ connection: ConnectionNumber)
    /// The bytes waiting to be written rose above the high mark (`false`) or fell below the low one (`true`).
    func writability(_ connection: ConnectionNumber, _ isWritable: Bool)
    /// Everything that had arrived was told: the moment to call `flush`.
    func readCycleEnded()
    /// Something worth a log line.
    func trouble(_ trouble: TransportTrouble)
}

/// What goes wrong outside the protocol.
package enum TransportTrouble: Hashable, Sendable {
    /// A listener had no room for this many connections; told at most once a minute.
    case connectionsRefused(listener: Int, count: Int)
    /// accept(2) failed, mostly because file descriptors ran out; accepting goes on after a pause.
    case acceptFailed(listener: Int, String)
    /// A client did not read for `stallTimeout`, or had more than `waitingBytesMax` waiting.
    case cutForNotReading(ConnectionNumber, waitingBytes: Int)
    /// A closed connection did not read the last of what was sent to it.
    case cutWhileClosing(ConnectionNumber)
}
