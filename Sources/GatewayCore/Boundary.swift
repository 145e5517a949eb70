import MQTT

/// Everything that can happen to the gateway.
package enum Input: Sendable {
    /// A client's connection was accepted; the certificate is the one it has shown and its listener has verified.
    case opened(ConnectionID, listener: Int, certificate: CertificateNames? = nil)
    case received(ConnectionID, Packet)
    /// The peer broke a rule of the encoding; nothing more is read from it. The version is that of its CONNECT, also
    /// of one that could not be read to its end; nil when it did not get that far.
    case malformed(ConnectionID, MalformedPacket, in: ProtocolVersion? = nil)
    /// The connection is gone, whoever closed it.
    case closed(ConnectionID)
    /// The connection's send buffer filled up (`false`) or drained (`true`).
    case writability(ConnectionID, Bool)
    case storage(StorageEvent)
    case uplink(UplinkIndex, UplinkEvent)
    /// The gateway was off before this start for a time that is only now proven.
    case wasOff(OffTime)
    /// What the wall clock says, in milliseconds since 1970, once a second or so; nil while it is not believed. What it
    /// proves of time off comes before.
    case wallClock(milliseconds: Int64?)
    /// The configuration changed: limits, routes, drains and provenance. What only a start can change is ignored.
    indirect case reconfigured(GatewayPlan)
    /// How many bytes clients have sent and were sent since the start, as the transport counted them: for the
    /// `$SYS` tree, once a second or so.
    case traffic(bytesReceived: UInt64, bytesSent: UInt64)
    /// `nextDeadline` has come.
    case deadline
    /// Close every connection in good order; nothing is accepted any more.
    case stop
}

/// What the storage tells the core.
package enum StorageEvent: Sendable {
    /// Every Record up to this position survives a power cut. Never moves backwards.
    case durable(upTo: Position)
    /// The Record at this position was not written and never will be: everyone who was owed its message has it
    /// (rule E3).
    case elided(Position)
    /// Nothing is appended to this stretch of the log any more, and it has an index: from now on `Effect.index`
    /// answers for it. The Sessions are those whose queues it holds messages for.
    case sealed(Stretch, queues: [SessionID])
    /// Answers `Effect.index`; nil when it is damaged beyond use.
    case indexed(SessionID, Stretch, [Posting]?)
    /// Answers `Effect.load`; nil where the bytes on disk were damaged.
    case loaded(SessionID, [(Position, StoredMessage?)])
    /// Room for new messages ran out (`true`) or came back (`false`) (promise P4).
    case pressure(Bool)
    /// Nothing can be made durable for want of room, not even at the cost of what was kept for that (`true`); or it can
    /// again.
    case stuck(Bool)
    /// Nothing can be made durable: the disk fails, also in a new file. It is tried again, ever less often.
    case failed
    /// What `.failed` said is over: the disk works again, and everything appended so far will be durable.
    case recovered
}

/// What a message Record holds for one receiver.
package struct StoredMessage: Hashable, Sendable {
    package var message: ApplicationMessage
    /// The QoS it was published at.
    package var publishedQoS: QoS
    package var expiresAt: Instant?
    package var retain: Bool
    package var subscriptionIdentifiers: [UInt32]
    package var rename: TopicRename?
    package var received: MessageRecord.Received? { rareReceived.value }
    private let rareReceived: Rare<MessageRecord.Received>
    /// Of a dead letter: the queue that could not deliver it.
    package var refusedIn: SessionID? { rareRefusedIn.value }
    private let rareRefusedIn: Rare<SessionID>

    package init(
        message: ApplicationMessage, publishedQoS: QoS, expiresAt: Instant?, retain: Bool,
        subscriptionIdentifiers: [UInt32], rename: TopicRename?, received: MessageRecord.Received? = nil,
        refusedIn: SessionID? = nil
    ) {
        self.message = message
        self.publishedQoS = publishedQoS
        self.expiresAt = expiresAt
        self.retain = retain
        self.subscriptionIdentifiers = subscriptionIdentifiers
        self.rename = rename
        rareReceived = Rare(received)
        rareRefusedIn = Rare(refusedIn)
    }

    /// The share of `session` in `record`; nil when it is not among the targets.
    ///
    /// - Complexity: O(targets)
    package init?(_ record: MessageRecord, for session: SessionID) {
        guard let target = record.targets.first(where: { $0.session == session }) else { return nil }
        self.init(record, to: target)
    }
}

/// What an uplink tells the core. Packets are those of the cloud's connection, with the cloud's Packet
/// Identifiers for what it publishes and the queue's own for what it acknowledges.
package enum UplinkEvent: Hashable, Sendable {
    /// CONNACK with success came.
    case connected(UplinkTerms)
    /// PUBLISH, PUBACK, PUBREC, PUBREL or PUBCOMP from the cloud.
    case received(Packet)
    /// A PUBLISH from the cloud that is larger than what is taken from it, without its payload.
    case receivedTooLarge(Publish)
    /// The connection's send buffer filled up (`false`) or drained (`true`); it has room when it begins.
    case writability(Bool)
    case disconnected
}

/// What the cloud's CONNACK allows on this connection.
package struct UplinkTerms: Hashable, Sendable {
    package var version: ProtocolVersion
    package var sessionPresent: Bool
    package var receiveMaximum: UInt16
    package var maximumQoS: QoS
    package var maximumPacketSize: UInt32?
    package var retainAvailable: Bool
    /// It sends what we publish to our own subscriptions, too: there was no way to tell it not to.
    package var returnsOwnMessages: Bool

    package init(
        version: ProtocolVersion, sessionPresent: Bool, receiveMaximum: UInt16 = .max,
        maximumQoS: QoS = .exactlyOnce, maximumPacketSize: UInt32? = nil, retainAvailable: Bool = true,
        returnsOwnMessages: Bool = false
    ) {
        self.version = version
        self.sessionPresent = sessionPresent
        self.receiveMaximum = receiveMaximum
        self.maximumQoS = maximumQoS
        self.maximumPacketSize = maximumPacketSize
        self.retainAvailable = retainAvailable
        self.returnsOwnMessages = returnsOwnMessages
    }
}

/// What the core asks of the world.
package enum Effect: Sendable {
    /// Encode in the connection's version and write.
    case send(ConnectionID, Packet)
    /// Close once what was sent before is written.
    case close(ConnectionID)
    /// Stop (`false`) or go on (`true`) reading this client.
    case reading(ConnectionID, Bool)
    /// From its next packet on this client may send none of more bytes, if that is less than its listener takes.
    case packetSize(ConnectionID, atMost: UInt32)
    /// Write the Record at the next position: the n-th `append` of a gateway's life has position n.
    case append(Record, Urgency)
    /// Read these message Records, in rising order, for a Session; answered by `.storage(.loaded)`. Wanted is
    /// what they hold for `target`: the Session itself, or the group that assigned the messages to it.
    case load(SessionID, [Position], target: SessionID)
    /// Read what the index of a stretch knows of a Session's queue; answered by `.storage(.indexed)`.
    case index(SessionID, Stretch)
    /// Everyone who was owed the message at this position has it: it need not be written. Answered by
    /// `.storage(.elided)`, unless it is too late.
    case elide(Position)
    /// No Record up to here can hope for `elide` any more: a receiver is gone (rule E4).
    case hasten(Position)
    case uplink(UplinkIndex, UplinkCommand)
    case report(Observation)
}

/// How soon a Record must be durable.
package enum Urgency: Sendable, CaseIterable {
    /// With the next batch, or after a few seconds: losing it costs a legal redelivery (rule A8).
    case lazy
    /// A QoS 1 publisher waits, and everyone who is owed the message is here and may have it within the window
    /// (rules E1-E7).
    case elidable
    /// A QoS 1 publisher waits: with the next commit that the budget allows, at the latest after the window.
    case message
    /// A publisher waits that can: with the next commit, at the latest after a second.
    case relaxed
    /// A QoS 2 exchange waits (rules A2-A7).
    case handshake
    /// A connection, a subscription or the end of a Session waits (rules A9, A10).
    case control
}

/// What the core asks of an uplink.
package enum UplinkCommand: Sendable {
    /// Connect, and keep connecting whenever the link is lost. With `cleanStart` the first connection asks the
    /// cloud to forget what it knows of us: there is no state on our side to match it.
    case open(cleanStart: Bool)
    /// PUBLISH with the queue's own Packet Identifier, PUBREL, and acknowledgements of what the cloud
    /// published, each only once it may leave.
    case send(Packet)
    /// Subscribe to what the `in` routes ask for: only now, because from here on the cloud owes us messages
    /// that a clean start would make it forget.
    case subscribe
    /// Drop the network connection and connect again.
    case reconnect
    /// Say goodbye and stay away.
    case close
}

/// Something worth a log line or a counter; carries no behaviour.
package enum Observation: Hashable, Sendable {
    case connected(clientIdentifier: String, version: ProtocolVersion, sessionPresent: Bool)
    case refused(clientIdentifier: String, ReasonCode)
    case disconnected(clientIdentifier: String, DisconnectCause)
    case sessionEnded(clientIdentifier: String, SessionEnd, undelivered: Int)
    /// Its profile does not allow so many of its subscriptions any more: nothing comes by them until it does again.
    case subscriptionsRest(clientIdentifier: String, profile: String, count: Int)
    case dropped(owner: SessionOwner, DropReason, count: Int)
    case uplinkConnected(name: String, sessionPresent: Bool, waiting: Int)
    case uplinkDisconnected(name: String, waiting: Int)
    /// The cloud takes QoS 2 messages as if they were of QoS 1: what is published here once may arrive there twice.
    case uplinkLacksQoS2(name: String)
    /// An uplink's cloud will not have a message: it is among the dead letters now.
    case deadLetter(uplink: String, ReasonCode)
    /// The configuration has it no longer; what waits for it stays in the journal.
    case uplinkRemoved(name: String, waiting: Int)
    case pressure(Bool)
    /// The disk is full so that nothing can be kept at all, or that is over.
    case stuck(Bool)
    /// There is no room for a message in one place, while there is elsewhere: its publishers are refused or wait. Told
    /// once, until `.drained`.
    case full(Store)
    /// What was full has room again, a tenth at least.
    case drained(Store)
    case storageFailed
    case storageRecovered
    /// This long, in milliseconds, before the start or one not long before it, as is only now proven.
    case wasOff(milliseconds: UInt64)
}

/// A place that can be full.
package enum Store: Hashable, Sendable {
    /// The queue of somebody; it takes so many messages.
    case queue(SessionOwner, messagesMax: Int)
    /// Retained messages; of all together so many bytes are kept.
    case retained(bytesMax: Int)
}

package enum DisconnectCause: Hashable, Sendable {
    case byClient(ReasonCode)
    case connectionLost
    case keepAliveTimeout
    case takenOver
    case malformed(MalformedPacket)
    case protocolError(ReasonCode)
    case connectTimeout
    case stopping
}
