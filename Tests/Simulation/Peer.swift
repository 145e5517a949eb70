/// Somebody whom the gateway talks to: a client, or the cloud of an uplink. It knows nothing of sockets: bytes come in
/// as the link happens to cut them up, bytes go out through `takeOutput`, and time is told to it, in microseconds since
/// the world began.
package protocol Peer {
    /// Its connection to the gateway is open; for the cloud, one from the gateway.
    mutating func linkOpened(at now: UInt64)

    mutating func received(_ bytes: [UInt8], at now: UInt64)

    /// It learns that the connection is gone; with a half-open one that is later than it was lost.
    mutating func linkLost(at now: UInt64)

    /// What it has to say, in order. Asked for after every call of the others.
    mutating func takeOutput() -> [UInt8]

    /// The connection is to be closed behind the output.
    var wantsClose: Bool { get }

    /// Whether a client without a connection wants one; a cloud: whether it accepts one.
    var wantsLink: Bool { get }

    /// When it wants to be told the time by `wake`, though nothing came.
    var nextWake: UInt64? { get }
    mutating func wake(at now: UInt64)

    /// Begins nothing new from now on and is no longer rude: only finishes what is begun, and comes back for it.
    mutating func settles()

    /// Nothing that it has begun is unfinished.
    var isAtRest: Bool { get }
}
