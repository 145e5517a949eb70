import MQTT

/// A durable change of state: what the journal writes, and the only thing that `DurableState.apply` takes.
///
/// The cases under "only in checkpoints" rebuild a whole `DurableState`: a checkpoint is a log of Records
/// too. How each is written is the journal's affair.
package enum Record: Hashable, Sendable {
    /// A Session began, or an existing one was taken up by a new Network Connection.
    case sessionOpened(SessionOpened)
    /// The Network Connection of a Session ended and the Session stays.
    case sessionClosed(SessionClosed)
    /// A Session and all it owed is gone.
    case sessionEnded(SessionID, SessionEnd)
    case subscribed(SessionID, [Subscription])
    case unsubscribed(SessionID, [TopicFilter])
    /// One Application Message with everyone it is owed to.
    case message(MessageRecord)
    /// PUBREL from a publisher: its Packet Identifier may be used anew (rule A4).
    case inboundReleased(SessionID, PacketIdentifier)
    /// The peer forgot its side: every Packet Identifier it had in use is void.
    case inboundVoided(SessionID)
    /// PUBREC from a receiver: from here on only PUBREL is sent for that delivery (rule A6).
    case outboundReceived(SessionID, Delivery)
    /// Which deliveries of a queue are settled.
    case acknowledged(AcknowledgedRecord)
    /// Deliveries let go by a stated policy.
    case dropped(SessionID, [Delivery], DropReason)
    /// An uplink's cloud session is known to have begun with our state.
    case uplinkEstablished(SessionID)
    /// A delivery moved from a shared subscription's group to one of its members.
    case assigned(AssignedRecord)
    /// Deliveries of a member whose Session ends went back to the groups they came from.
    case returned(SessionID, [Delivery])
    /// The gateway was off before a start, as was proven after it.
    case wasOff(OffTime)
    /// The device profile of a Session, by name, for while it is away.
    case profiled(SessionID, String)

    // Only in checkpoints.

    /// First in every checkpoint.
    case counters(nextSession: UInt64)
    case retained(RetainedRecord)
    case inboundHeld(SessionID, [HeldIdentifier])
    case queue(QueueRecord)
    /// Behind its queue; with nil those of all Sessions that have ended.
    case books(SessionID?, Books)

    // Only from recovery.

    /// So many Records up to this position had been durable and cannot be read any more.
    case lost(through: Position, count: UInt64)
}

/// The Packet Identifier of a QoS 2 message that its publisher has not released.
package struct HeldIdentifier: Hashable, Sendable {
    package var id: PacketIdentifier
    /// `ApplicationMessage.digest` where it is of use; 0 where it is not known.
    package var digest: UInt32

    package init(_ id: PacketIdentifier, digest: UInt32 = 0) {
        self.id = id
        self.digest = digest
    }
}

extension ApplicationMessage {
    /// Tells two messages under one Packet Identifier apart, with what a route changes left out: the Topic Name. Never 0.
    ///
    /// - Complexity: O(bytes)
    package var digest: UInt32 {
        // FNV-1a: a mistake costs what there is without it.
        var hash: UInt32 = 2_166_136_261
        for byte in properties { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
        for byte in payload { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
        return hash == 0 ? 1 : hash
    }
}

/// The number of a message in one receiver's queue: 0, 1, 2 … over the queue's whole life. The Packet
/// Identifier follows from it, so that it survives a power cut without a Record of its own.
package struct Delivery: Hashable, Comparable, Sendable {
    package let number: UInt64
    package init(_ number: UInt64) { self.number = number }
    package static func < (a: Self, b: Self) -> Bool { a.number < b.number }
}

package enum SessionOwner: Hashable, Sendable {
    case client(identifier: String)
    case uplink(name: String)
    /// One more queue of an uplink, for routes that are not to wait for the others.
    ///
    /// - number: 1 to 7: its part of the uplink's Packet Identifiers.
    /// - label: which routes take it.
    case lane(uplink: String, number: UInt8, label: String)
    /// What an uplink's cloud refused, until somebody decides about it.
    case deadLetters(uplink: String)
    /// All who share the subscription `$share/name/filter` [MQTT5-4.8.2].
    case group(TopicFilter)

    /// The owner to look up by. Strings that are equal by Unicode's rules may differ in their bytes, and then
    /// name different clients: "é" is one code point or two [MQTT5-3.1.3-2].
    enum Key: Hashable {
        case client([UInt8])
        case uplink([UInt8])
        case lane([UInt8], number: UInt8)
        case deadLetters([UInt8])
        case group(TopicFilter)
    }

    /// The uplink it is a queue of to the cloud; nil for anybody else.
    var uplinkName: String? {
        switch self {
        case .uplink(let name), .lane(let name, _, _): name
        case .client, .deadLetters, .group: nil
        }
    }

    var key: Key {
        switch self {
        case .client(let identifier): .client(Array(identifier.utf8))
        case .uplink(let name): .uplink(Array(name.utf8))
        case .lane(let name, let number, _): .lane(Array(name.utf8), number: number)
        case .deadLetters(let name): .deadLetters(Array(name.utf8))
        case .group(let filter): .group(filter)
        }
    }
}

package struct SessionOpened: Hashable, Sendable {
    package var session: SessionID
    package var owner: SessionOwner
    package var version: ProtocolVersion
    /// Session Expiry Interval; `UInt32.max` means never [MQTT5-3.1.2.11.2].
    package var expirySeconds: UInt32
    /// Whether messages are kept for it while it is away: fixed when the Session begins.
    package var isPersistent: Bool
    package var will: Will?

    package init(
        session: SessionID, owner: SessionOwner, version: ProtocolVersion, expirySeconds: UInt32,
        isPersistent: Bool, will: Will?
    ) {
        self.session = session
        self.owner = owner
        self.version = version
        self.expirySeconds = expirySeconds
        self.isPersistent = isPersistent
        self.will = will
    }
}

package struct SessionClosed: Hashable, Sendable {
    package var session: SessionID
    package var at: Instant
    package var expirySeconds: UInt32
    /// DISCONNECT with Reason Code 0x00 deletes the Will [MQTT5-3.14.4-3].
    package var discardsWill: Bool

    package init(session: SessionID, at: Instant, expirySeconds: UInt32, discardsWill: Bool) {
        self.session = session
        self.at = at
        self.expirySeconds = expirySeconds
        self.discardsWill = discardsWill
    }
}

/// Why a Session ended.
package enum SessionEnd: UInt8, Sendable, CaseIterable {
    case cleanStart = 1
    case expired = 2
    case disconnected = 3
    case administrative = 4
    /// Nobody subscribes to the shared subscription any more.
    case lastMemberLeft = 5
}

/// One entry of a Session's subscriptions.
package struct Subscription: Hashable, Sendable {
    package var filter: TopicFilter
    package var maximumQoS: QoS
    package var noLocal: Bool
    package var retainAsPublished: Bool
    package var identifier: UInt32?

    package init(
        filter: TopicFilter, maximumQoS: QoS, noLocal: Bool = false, retainAsPublished: Bool = false,
        identifier: UInt32? = nil
    ) {
        self.filter = filter
        self.maximumQoS = maximumQoS
        self.noLocal = noLocal
        self.retainAsPublished = retainAsPublished
        self.identifier = identifier
    }
}

/// An Application Message, who published it, and everyone it is owed to, in one atomic Record.
package struct MessageRecord: Hashable, Sendable {
    /// Set together with `inboundID`: a QoS 2 publisher whose Session is in the journal (rule A2).
    package var publisher: SessionID?
    package var inboundID: PacketIdentifier?
    /// The Session whose Will this is; publishing it clears it there.
    package var willOf: SessionID?
    /// The QoS it was published at.
    package var qos: QoS
    package var retained: RetainedEffect
    package var message: ApplicationMessage
    package var expiresAt: Instant?
    package var targets: [Target]
    /// Only where an uplink among the targets tells the cloud when.
    package var received: Received? {
        get { rareReceived.value }
        set { rareReceived = Rare(newValue) }
    }
    private var rareReceived: Rare<Received>
    /// It leaves another queue with this Record.
    package var moved: Moved? {
        get { rareMoved.value }
        set { rareMoved = Rare(newValue) }
    }
    private var rareMoved: Rare<Moved>

    package init(
        publisher: SessionID? = nil, inboundID: PacketIdentifier? = nil, willOf: SessionID? = nil, qos: QoS,
        retained: RetainedEffect = .none, message: ApplicationMessage, expiresAt: Instant? = nil,
        targets: [Target] = [], received: Received? = nil, moved: Moved? = nil
    ) {
        self.publisher = publisher
        self.inboundID = inboundID
        self.willOf = willOf
        self.qos = qos
        self.retained = retained
        self.message = message
        self.expiresAt = expiresAt
        self.targets = targets
        rareReceived = Rare(received)
        rareMoved = Rare(moved)
    }

    /// When a message came to the gateway.
    package struct Received: Hashable, Sendable {
        package var at: Instant
        /// The Record that brought it, which says how long the gateway was off since then; `.zero` for the one that
        /// this is part of.
        package var by: Position

        package init(at: Instant, by: Position = .zero) {
            self.at = at
            self.by = by
        }
    }

    /// A message goes from one queue to another, and what is known of it with it: from an uplink to its dead letters
    /// or back. One Record, so that after a power cut exactly one of the two has it.
    ///
    /// It is written again instead of being named by its position: dead letters may be many, and are kept like any
    /// other queue, on flash.
    package struct Moved: Hashable, Sendable {
        /// The queue it leaves, and its number there.
        package var from: SessionID
        package var delivery: Delivery
        /// Of a dead letter.
        package var refusal: Refusal?

        package init(from: SessionID, delivery: Delivery, refusal: Refusal? = nil) {
            self.from = from
            self.delivery = delivery
            self.refusal = refusal
        }
    }

    /// Why and when an uplink could not deliver a message.
    package struct Refusal: Hashable, Sendable {
        /// What the cloud answered; 0x95 when the message is larger than the cloud said that it takes.
        package var reason: ReasonCode
        package var at: Instant

        package init(reason: ReasonCode, at: Instant) {
            self.reason = reason
            self.at = at
        }
    }

    /// What the message does to the retained message of its topic.
    package enum RetainedEffect: UInt8, Sendable {
        case none = 0
        case store = 1
        case clear = 2
    }

    /// One receiver's share.
    package struct Target: Hashable, Sendable {
        package var session: SessionID
        /// The number it has in the receiver's queue, so that it keeps it whatever Records before it were never
        /// written or are damaged; nil at a receiver that leaves no trace.
        package var delivery: Delivery?
        /// Granted, 1 or 2 in the journal.
        package var qos: QoS
        /// RETAIN as this receiver will see it.
        package var retain: Bool
        package var subscriptionIdentifiers: [UInt32]
        /// How an uplink's route changes the Topic Name.
        package var rename: TopicRename?

        package init(
            session: SessionID, delivery: Delivery? = nil, qos: QoS, retain: Bool = false,
            subscriptionIdentifiers: [UInt32] = [], rename: TopicRename? = nil
        ) {
            self.session = session
            self.delivery = delivery
            self.qos = qos
            self.retain = retain
            self.subscriptionIdentifiers = subscriptionIdentifiers
            self.rename = rename
        }
    }
}

/// A change of Topic Name on a route: `dropping` bytes at the front make way for `prepending`.
package struct TopicRename: Hashable, Sendable {
    package var dropping: Int
    package var prepending: [UInt8]

    package init(dropping: Int, prepending: [UInt8]) {
        self.dropping = dropping
        self.prepending = prepending
    }
}

/// Every delivery below `floor` is settled, and so are `settledAbove`, in rising order. Applying it twice
/// changes nothing.
package struct AcknowledgedRecord: Hashable, Sendable {
    package var session: SessionID
    package var floor: Delivery
    package var settledAbove: [Delivery]

    package init(session: SessionID, floor: Delivery, settledAbove: [Delivery]) {
        self.session = session
        self.floor = floor
        self.settledAbove = settledAbove
    }
}

/// A delivery moved from a group's queue to the end of a member's, where it has the member's next number.
package struct AssignedRecord: Hashable, Sendable {
    package var group: SessionID
    package var delivery: Delivery
    package var member: SessionID
    /// Granted to the member.
    package var qos: QoS
    /// Its number in the member's queue; nil in older Records: the next.
    package var number: Delivery?
    /// What the group's queue had: a replay may know no more than that it is in a page. nil in older Records.
    package var source: Source?

    package init(
        group: SessionID, delivery: Delivery, member: SessionID, qos: QoS, number: Delivery? = nil,
        source: Source? = nil
    ) {
        self.group = group
        self.delivery = delivery
        self.member = member
        self.qos = qos
        self.number = number
        self.source = source
    }

    package struct Source: Hashable, Sendable {
        /// Of the message's Record.
        package var position: Position
        /// In the group's queue.
        package var qos: QoS
        /// Of the message.
        package var bytes: UInt32

        package init(position: Position, qos: QoS, bytes: UInt32) {
            self.position = position
            self.qos = qos
            self.bytes = bytes
        }
    }

    /// As an entry of the group's queue.
    var entry: MessageQueue.Entry? {
        source.map {
            MessageQueue.Entry(
                position: $0.position, bytes: $0.bytes, qos: $0.qos, phase: .waiting, isStray: false)
        }
    }
}

/// Why a message was let go; each reason is counted (promise P3).
package enum DropReason: UInt8, Sendable, CaseIterable {
    /// Message Expiry Interval passed [MQTT5-3.3.2.3.3].
    case messageExpired = 1
    /// The receiver refused it with a Reason Code of 0x80 or above.
    case refusedByReceiver = 2
    /// Larger than the receiver's Maximum Packet Size [MQTT5-3.1.2-24].
    case tooLarge = 3
    /// The bytes on disk were damaged.
    case damaged = 4
    /// The queue of a Session that keeps nothing was full.
    case queueFull = 5
    /// The Session ended with messages waiting.
    case sessionEnded = 6
    /// From the cloud, which still has a subscription that no route asks for any more.
    case noRoute = 7
    /// From the cloud, in a version in which it cannot be told how large a packet may be.
    case largerThanTaken = 8
    /// The operator said so.
    case purged = 9
    /// It was this gateway's own, come back another way.
    case loop = 10
    /// The receiver's device profile does not allow it that topic any more.
    case notAllowed = 11
}

/// A retained message [MQTT5-3.3.1.3].
package struct RetainedRecord: Hashable, Sendable {
    package var message: ApplicationMessage
    package var qos: QoS
    package var expiresAt: Instant?
    /// The Record that brought it, of one that expires: what came before a start has waited for longer. Zero is before
    /// every other.
    package var storedAt: Position

    package init(message: ApplicationMessage, qos: QoS, expiresAt: Instant?, storedAt: Position = .zero) {
        self.message = message
        self.qos = qos
        self.expiresAt = expiresAt
        self.storedAt = expiresAt == nil ? .zero : storedAt
    }
}

/// A stretch of the log that is complete: nothing is appended to it any more.
package struct Stretch: Hashable, Sendable {
    package var first: Position
    package var last: Position

    package init(first: Position, last: Position) {
        self.first = first
        self.last = last
    }

    package func contains(_ position: Position) -> Bool { first <= position && position <= last }
}

/// What the index of a stretch knows of one delivery of a queue.
package struct Posting: Hashable, Sendable {
    package var delivery: Delivery
    package var position: Position
    package var qos: QoS
    /// Of the message: topic, properties and payload.
    package var bytes: UInt32

    package init(delivery: Delivery, position: Position, qos: QoS, bytes: UInt32) {
        self.delivery = delivery
        self.position = position
        self.qos = qos
        self.bytes = bytes
    }

    /// The order of a queue, whatever an index may say.
    static func isBefore(_ a: Posting, _ b: Posting) -> Bool {
        (a.delivery, a.position) < (b.delivery, b.position)
    }
}

/// Consecutive deliveries of a queue of which only the index of a complete stretch of the log knows where they
/// are. Either all of them wait, or none: then they are settled, or among the queue's strays.
package struct QueuePage: Hashable, Sendable {
    package var stretch: Stretch
    /// The first delivery, and how many numbers from there on.
    package var first: Delivery
    package var span: UInt64
    /// How many of them are not settled, all or none, and the bytes of their messages, about.
    package var waitingCount: Int
    package var waitingBytes: Int

    package init(stretch: Stretch, first: Delivery, span: UInt64, waitingCount: Int, waitingBytes: Int) {
        self.stretch = stretch
        self.first = first
        self.span = span
        self.waitingCount = waitingCount
        self.waitingBytes = waitingBytes
    }

    /// The first delivery behind the page.
    package var end: Delivery { Delivery(first.number + span) }
}

/// A whole queue as a checkpoint keeps it: entries name the Records that hold the messages.
package struct QueueRecord: Hashable, Sendable {
    package var session: SessionID
    package var floor: Delivery
    /// In order of delivery: `floor`, `floor + 1`, …
    package var entries: [Entry]
    /// What comes behind `entries`, in order and without gaps between them.
    package var pages: [QueuePage]
    /// What comes behind `pages`, in order of delivery.
    package var tail: [Entry]
    /// Deliveries in the range of the pages that have entries of their own, in rising order: say because a member gave
    /// them back to its group, and their Records are older than their place in the queue. The page around them is
    /// one of which nothing waits.
    package var strays: [Stray]
    /// From here on everything came while its receiver was away, which it still is; nil when it is here.
    package var unsentFrom: Delivery?

    package init(
        session: SessionID, floor: Delivery, entries: [Entry], pages: [QueuePage] = [], tail: [Entry] = [],
        strays: [Stray] = [], unsentFrom: Delivery? = nil
    ) {
        self.session = session
        self.floor = floor
        self.entries = entries
        self.pages = pages
        self.tail = tail
        self.strays = strays
        self.unsentFrom = unsentFrom
    }

    package struct Entry: Hashable, Sendable {
        /// nil when the delivery is settled and only waits for the ones before it.
        package var position: Position?
        package var qos: QoS
        /// PUBREC came: only PUBREL is owed.
        package var isReceived: Bool
        /// Of the message; 0 once it is not needed any more.
        package var bytes: UInt32
        /// No index of a stretch has it: a member gave it back to its group, or a group assigned it.
        package var isStray: Bool
        /// The group that assigned it; its Record holds the message as that group's.
        package var origin: Origin?

        package init(
            position: Position?, qos: QoS, isReceived: Bool, bytes: UInt32 = 0, isStray: Bool = false,
            origin: Origin? = nil
        ) {
            self.position = position
            self.qos = qos
            self.isReceived = isReceived
            self.bytes = bytes
            self.isStray = isStray
            self.origin = origin
        }
    }

    package struct Stray: Hashable, Sendable {
        package var delivery: Delivery
        package var entry: Entry

        package init(delivery: Delivery, entry: Entry) {
            self.delivery = delivery
            self.entry = entry
        }
    }

    package struct Origin: Hashable, Sendable {
        package var group: SessionID
        /// In the group's queue.
        package var qos: QoS

        package init(group: SessionID, qos: QoS) {
            self.group = group
            self.qos = qos
        }
    }
}
