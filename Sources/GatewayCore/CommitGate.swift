import DequeModule
import MQTT

/// Where a promise waits for its position: PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, CONNACK, and
/// QoS 2 messages on their way to QoS 0 receivers. Nothing that commits the gateway towards a peer leaves
/// before the Record behind it survives a power cut (rules A1-A7, A9, A10); this file answers whether an
/// acknowledged message can be lost.
///
/// Promises to one peer leave in the order they were made, so that acknowledgements keep the order of their
/// PUBLISH packets [MQTT5-4.6.0-2] (rule A12) even when a later one had nothing to wait for.
struct CommitGate {
    /// The last position that survives a power cut.
    private(set) var durable = Position.zero
    /// In rising order of `position`.
    private var parked: Deque<Promise> = []
    private var parkedCounts: [Peer: Int] = [:]

    struct Promise {
        let position: Position
        let peer: Peer
        let packet: Packet
    }

    init(durable: Position) { self.durable = durable }

    var isEmpty: Bool { parked.isEmpty }

    func parkedCount(for peer: Peer) -> Int { parkedCounts[peer] ?? 0 }

    /// Whether `packet` may leave at once; otherwise it is parked.
    ///
    /// - Parameter position: the Record it promises; a position that is durable waits only for earlier promises
    ///   to the same peer.
    mutating func admits(_ packet: Packet, to peer: Peer, after position: Position) -> Bool {
        let earlier = parkedCounts[peer] ?? 0
        if position <= durable && earlier == 0 { return true }
        // Behind everything parked, whoever it is for: positions in the gate only rise.
        let last = parked.last?.position ?? .zero
        parked.append(Promise(position: max(position, last), peer: peer, packet: packet))
        parkedCounts[peer] = earlier + 1
        return false
    }

    /// Advances what is durable. Only `release` lets the promises go.
    ///
    /// - Parameter position: the last Record a completed sync covers; moving backwards is ignored.
    mutating func advance(to position: Position) { durable = max(durable, position) }

    /// The next promise that may leave; nil when all that is parked must still wait.
    mutating func release() -> Promise? {
        guard let first = parked.first, first.position <= durable else { return nil }
        parked.removeFirst()
        let left = (parkedCounts[first.peer] ?? 1) - 1
        parkedCounts[first.peer] = left == 0 ? nil : left
        return first
    }
}
