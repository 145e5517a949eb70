import MQTT

/// What the simulated cloud is like. Times are microseconds; chances are out of a hundred.
package struct CloudPlan: Sendable {
    package var version = ProtocolVersion.v5_0
    /// In the names of its messages; nobody else has it.
    package var author: UInt16
    /// Where it publishes, in its own name space.
    package var topics: [String] = []
    /// Between two messages, on the average; nil for never.
    package var publishesEvery: UInt64?
    /// How often each QoS is chosen among so many.
    package var qosShares = [1, 2, 2]
    package var paddingMax = 100
    /// In flight at a time, if the gateway allows so many.
    package var window = 10

    /// How long a connection lasts on the average before it ends it; nil for ever.
    package var endsConnectionsAfter: UInt64?
    /// Of connections that end, after how many its session is gone.
    package var forgetsPercent = 0
    /// Of connections that end, after how many it is as it was some time before.
    package var goesBackPercent = 0
    /// How often it takes down how it is, for going back to.
    package var savesEvery: UInt64 = 5_000_000
    /// Of connections that end, after how many nobody accepts another for about so long.
    package var isAbsentPercent = 0
    package var isAbsentFor: UInt64 = 5_000_000
    /// Of CONNECTs, how many it answers with an error.
    package var turnsAwayPercent = 0
    /// Of messages of QoS 1 and 2, how many it refuses for good. Only in MQTT 5 there are words for it.
    package var refusesPercent = 0
    /// Of connections, on how many it allows no QoS above 1. Only in MQTT 5.
    package var capsQoSPercent = 0
    /// On each connection it takes up to so many messages at a time, or fewer. Only in MQTT 5.
    package var receiveMaximum: UInt16?
    package var maximumPacketSize: UInt32?
    package var topicAliasMaximum: UInt16?
    /// It answers a QoS 2 message with PUBACK. Only before MQTT 5.
    package var acknowledgesQoS2AsQoS1 = false
    /// Up to so long it takes to answer.
    package var answersWithin: UInt64 = 0
    /// Now and then it says PUBREL, PUBREC and PUBCOMP twice.
    package var stuttersPercent = 0

    package init(author: UInt16) { self.author = author }
}
