import DequeModule
import MQTT

/// Session State [MQTT5-4.1], of a client or of an uplink: what survives its Network Connections. A shared
/// subscription's group is one too, without connections of its own: its queue flows to its members.
package struct Session {
    package let id: SessionID
    package let owner: SessionOwner
    /// What its deliveries are called on the wire.
    package let identifiers: PacketIdentifierRule
    package internal(set) var version: ProtocolVersion
    package internal(set) var expirySeconds: UInt32
    /// Whether messages are kept for it through a power cut: fixed when the Session begins. A Session that
    /// only bears a Will is in the journal without being persistent.
    package let isPersistent: Bool
    package internal(set) var will: Will?
    /// nil while a Network Connection is there, or was there when the power failed.
    package internal(set) var closedAt: Instant?
    var subscriptions = Roster<TopicFilter, Subscription>()
    var inbound = InboundIdentifiers()
    package internal(set) var queue = MessageQueue()
    /// What became of all that the queue was owed; nothing where it leaves no trace.
    package internal(set) var books = Books()
    /// The name of its profile; empty where there are none.
    package internal(set) var profile = ""
    /// How many Records recovery had found missing when its books last took a gap in its numbers for damage or not.
    var lossesSeen: UInt64 = 0
    /// The same when a Record last gave a number to a message: other Records may be about what was sent long before them.
    var lossesPassed: UInt64 = 0
    /// An uplink's cloud session is known to have begun with our state.
    package internal(set) var isEstablished = false
    /// Of a member: the groups it is in, with the Topic Filter of each.
    var groups = Roster<SessionID, TopicFilter>()
    /// Of a group: who is in it, and whose turn it is.
    var sharing: Sharing?

    // Below: of this process only, never in a Record.

    /// Where its deliveries go now.
    var flow: OutboundFlow?
    /// Nothing is sent before this Record is durable: it lets a QoS 2 message go that was not sent. Brought back by a
    /// power cut it would count as sent, and reach the receiver behind what came after it.
    var sendsAfter = Position.zero
    /// When its Will is due after the connection closed; nil when none is.
    var willDueAt: Instant?
    /// When it ends; nil while connected or when it never does.
    var endsAt: Instant?
    /// When it is looked at next for these two: the earliest deadline that is set, so that a client which comes
    /// and goes leaves no more than one of each behind.
    var willCheckAt: Instant?
    var endCheckAt: Instant?
    /// On the gateway's list of those whose next message must become durable first.
    var isListedWaiting = false
    /// On the gateway's list of queues that were said to be full.
    var isListedFull = false
    /// On the gateway's list of queues whose acknowledgements wait for a Record.
    var isListedUnrecorded = false
    /// The uplink that it shares the cloud's Session with other queues of, or whose drain is paced.
    var sharedUplink: UplinkIndex?
    /// Of a live lane: the queue of what it has no room for.
    var backlog: SessionID?
    /// What may wait in the queue, beside what `Limits` says of all.
    var bounds: QueueBounds?
    /// What its profile does not allow it any more; nil where that is nothing.
    var withdrawal: Withdrawal?
    /// On how many connections PUBREL went out for what its receiver may never have been sent, and was not answered.
    var unprovenReleases = 0
    /// No delivery before this one can be dropped to make room.
    var droppableFrom = Delivery(0)
    private let place = StaysInPlace()

    init(_ opened: SessionOpened) {
        id = opened.session
        owner = opened.owner
        identifiers = opened.owner.identifiers
        version = opened.version
        expirySeconds = opened.expirySeconds
        isPersistent = opened.isPersistent
        will = opened.will
        if case .group = opened.owner { sharing = Sharing() }
    }
}

extension Session {
    /// A Record has a number for the queue to go on at: those before it are of Records that were never written, or are
    /// lost.
    ///
    /// - Parameter losses: how many Records are lost up to here.
    /// - Returns: false when the queue is beyond that number.
    mutating func goOn(at number: Delivery, losses: UInt64, _ position: Position) -> Bool {
        guard number >= queue.end else { return false }
        defer { lossesSeen = losses }
        return booking(.arrived(afterLoss: lossesSeen < losses)) { $0.queue.skip(to: number, at: position) }
    }
}

/// The Packet Identifiers of QoS 2 messages a publisher has not released yet, each with the position of the
/// Record that took its message: a repeated PUBLISH is answered, and goes no further [MQTT5-4.3.3-10].
package struct InboundIdentifiers {
    private var held: [(id: PacketIdentifier, digest: UInt32, position: Position)] = []

    var count: Int { held.count }
    /// In rising order.
    var all: [HeldIdentifier] { held.map { HeldIdentifier($0.id, digest: $0.digest) } }

    /// - Complexity: O(log held)
    func position(of id: PacketIdentifier) -> Position? {
        let i = insertionIndex(of: id)
        return i < held.count && held[i].id == id ? held[i].position : nil
    }

    /// Of the message it was taken with; 0 where that is not known, or nothing is held.
    ///
    /// - Complexity: O(log held)
    func digest(of id: PacketIdentifier) -> UInt32 {
        let i = insertionIndex(of: id)
        return i < held.count && held[i].id == id ? held[i].digest : 0
    }

    /// - Complexity: O(held)
    mutating func hold(_ id: PacketIdentifier, digest: UInt32 = 0, at position: Position) {
        let i = insertionIndex(of: id)
        if i < held.count && held[i].id == id {
            held[i] = (id, digest, position)
        } else {
            held.insert((id, digest, position), at: i)
        }
    }

    /// - Returns: whether it was held.
    /// - Complexity: O(held)
    @discardableResult
    mutating func release(_ id: PacketIdentifier) -> Bool {
        let i = insertionIndex(of: id)
        guard i < held.count, held[i].id == id else { return false }
        held.remove(at: i)
        return true
    }

    mutating func releaseAll() { held.removeAll() }

    private func insertionIndex(of id: PacketIdentifier) -> Int {
        held.partitioningIndex { $0.id >= id }
    }
}

/// The deliveries of a queue on one network connection: what was sent on it, and how much may be.
struct OutboundFlow {
    let peer: Peer
    let version: ProtocolVersion
    /// The peer's Receive Maximum, and no more than ours [MQTT5-4.9].
    var inFlightMax: Int
    /// Of the whole packet, in bytes [MQTT5-3.1.2-24].
    let packetBytesMax: UInt32?
    var maximumQoS: QoS
    let retainAvailable: Bool
    /// What a cloud is told about each message.
    var provenance: UplinkRoutes.Provenance?
    /// The first delivery that was not looked at on this connection.
    var next: Delivery
    /// Deliveries sent on this connection that its peer has not settled.
    var inFlightCount = 0
    /// PUBREL was sent for what its receiver may never have been sent.
    var hasReleasedUnproven = false
    /// The transport's buffer has room.
    var isWritable = true

    /// Messages sent and not acknowledged that may yet go unwritten, but for those written meanwhile.
    var candidateCount = 0
    private(set) var newestCandidate = Position.zero

    /// Retained messages for new subscriptions at QoS 0, each with the Record that must be durable first.
    var leading: Deque<(message: StoredMessage, after: Position)> = []
    /// What was sent at `roundAt`: only later can the transport say whether the receiver takes it.
    private(set) var roundBytes = 0
    private(set) var roundAt = Instant(milliseconds: 0)
    /// A deadline will let it go on.
    var isRationed = false
    /// Of an uplink: each message waits until the drain has room for it.
    var isPaced = false
    /// It has, for the next one.
    var isGranted = false

    func bytesSent(at now: Instant) -> Int { roundAt == now ? roundBytes : 0 }

    mutating func noteSent(_ bytes: Int, at now: Instant) {
        roundBytes = bytesSent(at: now) + bytes
        roundAt = now
    }

    mutating func noteCandidate(_ position: Position, durable: Position) {
        if newestCandidate <= durable { candidateCount = 0 }
        candidateCount += 1
        newestCandidate = position
    }

    /// The next delivery is settled already, and all before the queue's floor are.
    mutating func passOver(upTo floor: Delivery) { next = max(Delivery(next.number + 1), floor) }

    /// The next delivery was sent, or its PUBREL.
    mutating func sentNext() {
        next = Delivery(next.number + 1)
        inFlightCount += 1
        isGranted = false
    }
}

/// One network connection of a receiver, told apart from the ones before it.
enum Peer: Hashable {
    case client(ConnectionID)
    case uplink(UplinkIndex, epoch: UInt64)
}
