/// The bounds of everything that foreign data can make grow: what each counts, and what happens at the bound.
package struct Limits: Hashable, Sendable {
    /// Deliveries in flight to one client, and the Receive Maximum announced to it. Beyond it deliveries
    /// wait in the queue; a publisher that exceeds it is disconnected with 0x93 [MQTT5-3.3.4-7].
    package var inFlightMax: UInt16 = 100
    /// How far, in deliveries, the newest in flight may run ahead of the oldest unsettled one. It keeps
    /// Packet Identifiers apart; beyond it deliveries wait.
    package var identifierSpan: UInt64 = PacketIdentifierRule.whole.span
    /// Connections of one receiver on which PUBREL goes out, and is not answered, for damaged messages that it may have
    /// been sent at QoS 2. Beyond it they are let go without the end of their handshakes.
    package var unprovenReleasesMax = 8
    /// Bytes of a whole packet from a client; beyond it the client is disconnected with 0x95.
    package var packetBytesMax: UInt32 = 1 << 20
    /// Acknowledgements parked for one connection; beyond it its socket is not read until half have left.
    package var parkedPerConnectionMax = 1000
    /// PUBLISH packets of one client of before MQTT 5 that wait for room, and their bytes; more than clients have in
    /// flight. Beyond either its QoS 0 messages are dropped, counted, and with the next one of QoS 1 or 2 its socket
    /// is not read until half are taken.
    package var heldPerConnectionMax = 1000
    package var heldBytesPerConnectionMax = 1 << 20
    /// The bytes of all clients together, to the same effect for those that have any waiting.
    package var heldBytesMax = 16 << 20
    /// Bytes of messages of one cloud that wait for room. Beyond it what it publishes at QoS 1 and 2 is let go without
    /// an answer, so that it stays the cloud's; once those that wait are taken, the connection is made anew, and the
    /// cloud sends the others again. A single message may be larger.
    package var heldBytesPerUplinkMax = 4 << 20
    /// Messages waiting in one Session's queue. Beyond it a persistent Session's publisher is refused
    /// (0x97, or it waits), a volatile Session's newest message is dropped and counted.
    package var queuedMessagesMax = 10_000_000
    package var queuedMessagesOfVolatileMax = 1000
    /// Bytes of messages waiting for a volatile Session, all of them in memory: beyond it the newest is dropped and
    /// counted too. A single message may be larger.
    package var queuedBytesOfVolatileMax = 4 << 20
    /// Whether a payload that is not the UTF-8 its Payload Format Indicator promises is refused with 0x99.
    package var validatesPayloadFormat = false
    /// Bytes of messages of one queue held in memory; the rest is read back from flash as it is sent.
    package var residentBytesMax = 64 << 10
    /// The same for a Session that is away.
    package var residentBytesOfAbsentMax = 4 << 10
    /// Entries of one queue in memory, beside those in flight and those in the segment being written. Of what comes
    /// behind them only the index of the log knows where it is.
    package var queueEntriesMax = 1024
    /// Messages asked from the journal at a time for one queue.
    package var loadedAtOnceMax = 256
    /// Topic Aliases a client may use; announced in CONNACK [MQTT5-3.2.2-17].
    package var topicAliasMax: UInt16 = 16
    /// Topic Filters of one Session; beyond it SUBSCRIBE is answered with 0x97.
    package var subscriptionsPerSessionMax = 10_000
    /// Levels of a Topic Name or Topic Filter; beyond it 0x90 or 0x8F. As many as Mosquitto allows: 200 separators.
    package var topicLevelsMax = 201
    /// Milliseconds from accept to CONNECT; then the connection is closed [MQTT5-3.1.4].
    package var connectTimeoutMilliseconds: UInt64 = 10_000
    /// Milliseconds a client's PUBACK may wait for its Record (rule A8 allows five seconds).
    package var lazyAcknowledgementMilliseconds: UInt64 = 1000
    /// Settled deliveries of one queue that are recorded without waiting for that time.
    package var lazyAcknowledgementsMax = 2000
    /// Milliseconds after a start in which a client that was connected before it may return before its Will
    /// is published or its Session ends.
    package var returnGraceMilliseconds: UInt64 = 30_000
    /// Wills, Sessions and retained messages that were due while the gateway was off come to it this many at a time,
    /// with this pause between.
    package var overdueAtOnceMax = 64
    package var overduePauseMilliseconds: UInt64 = 10

    /// Bytes sent to one receiver before the transport can say whether it takes more; what is owed beyond
    /// goes out a millisecond later, if it does. QoS 0 messages are dropped and counted from eight times on.
    package var bytesPerRoundMax = 128 << 10
    /// Sessions that outlive their connection; beyond it new ones are refused with 0x97, or 0x03 before MQTT 5.
    package var sessionsMax = 50_000
    /// Bytes of all retained messages. Beyond it those for new topics are refused (0x97, or they wait) at QoS 1
    /// and 2, and not kept at QoS 0 [MQTT5-3.3.1-5].
    package var retainedBytesMax = 32 << 20
    /// Messages of one live lane that are in flight or wait, and their bytes; beyond either new ones join the backlog.
    package var liveMessagesMax = 1000
    package var liveBytesMax = 1 << 20
    /// Devices that are watched for silence; of more than that nothing is told. One that is silent and away is not.
    package var watchesMax = 100_000
    /// Clients that went away before they might publish a whole burst again; of those beyond, who went first may at once.
    package var formerPacesMax = 10_000
    /// Topics of which it is remembered what went up last, for reports by exception, and their bytes; beyond either that
    /// half is forgotten that went up longest ago, and the next value of each goes up.
    package var reportTopicsMax = 100_000
    package var reportTopicBytesMax = 8 << 20
    /// Bytes of values that are held back until their minimum interval is over, and of deadlines set for them; beyond it
    /// they go up at once.
    package var heldBackBytesMax = 4 << 20
    /// Retained QoS 0 messages on their way to one new subscriber; beyond it they are dropped and counted.
    package var leadingMax = 100_000

    package init() {}
}
