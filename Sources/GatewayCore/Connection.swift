import MQTT

/// A client's Network Connection.
struct Connection {
    let id: ConnectionID
    let listener: Int
    var phase: Phase
    var lastHeardAt: Instant
    var certificate = Rare<CertificateNames>(nil)

    // From CONNECT on.
    var version = ProtocolVersion.v3_1_1
    var clientIdentifier = ""
    var keepAliveSeconds: UInt16 = 0
    /// QoS 1 and 2 messages this client sent and we have not settled: bounded by our Receive Maximum.
    var inboundUnsettledCount = 0
    /// Topic Names by their alias less one [MQTT5-3.3.2-8].
    var topicAliases: [[UInt8]?] = []
    /// nil when the client takes none.
    var outboundAliases: TopicAliases?
    /// The client's Maximum Packet Size.
    var packetBytesMax: UInt32?
    /// How its profile treats it; nil where there are no profiles.
    var treatment: Treatment?
    /// Of the treatment.
    var aspects: PublishAspects = []
    /// Its place among the watches; nil where its profile has no liveness.
    var watch: Int?
    var userName = Rare<String>(nil)
    /// What its CONNACK said: our Receive Maximum, and where its profile says so Maximum QoS and Maximum Packet Size.
    var inFlightMax: UInt16 = 0
    var maximumQoS = QoS.exactlyOnce
    var takenBytesMax: UInt32?
    /// Its Request Problem Information.
    var wantsReasons = true
    /// It said so by a bit of the Protocol Level: to 3.1 and 3.1.1 what No Local and Retain As Published are to 5.0.
    var isBridge = false
    /// Before MQTT 5: what it published while there was no room.
    var held = HeldPublishes()
    var isReadingPaused = false

    enum Phase: Equatable {
        /// Accepted; CONNECT has not come.
        case awaitingConnect
        /// CONNACK is parked: packets are taken, and what they are answered waits behind it.
        case connecting(SessionID)
        case connected(SessionID)
        /// We closed it; whatever still comes from it is ignored.
        case closing
    }

    var session: SessionID? {
        switch phase {
        case .connecting(let session), .connected(let session): session
        case .awaitingConnect, .closing: nil
        }
    }
}

/// Something that happens when its time comes, unless it has become untrue by then: deadlines are not taken
/// back, they are looked at.
struct Deadline: Comparable {
    let at: Instant
    /// Breaks ties in the order of creation, so that the order is the same everywhere.
    let ordinal: UInt64
    let what: What

    enum What {
        case connect(ConnectionID)
        case keepAlive(ConnectionID)
        case will(SessionID)
        case sessionEnd(SessionID)
        case unrecordedAcknowledgements
        case retainedExpiry(topic: [UInt8])
        /// A flow that had sent enough for one round goes on.
        case round(SessionID)
        /// An uplink's drain has room for more.
        case drain(UplinkIndex)
        /// Packets held for want of room are tried again.
        case heldPackets
        /// Places that were full are looked at again.
        case fullStores
        /// The `$SYS` tree is told anew.
        case systemTopics
        /// A device that was not heard for as long as its profile says.
        case silence(watch: Int)
        /// A client that published too fast may go on.
        case rate(ConnectionID)
        /// A value that was news too soon goes up.
        case heldBack(topic: [UInt8])
        /// Every Session that was connected before the start and has not come back.
        case returnGrace
    }

    static func < (a: Self, b: Self) -> Bool { (a.at, a.ordinal) < (b.at, b.ordinal) }
    static func == (a: Self, b: Self) -> Bool { (a.at, a.ordinal) == (b.at, b.ordinal) }
}
