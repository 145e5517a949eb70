import MQTT

/// The Topic Aliases this gateway has given a peer, a client or the cloud, so that a Topic Name which repeats itself travels once a
/// connection [MQTT5-3.3.2.3.4]. They begin and end with the connection and are in no stored message.
///
/// While aliases are free a name gets one when it is sent first. When all are taken, the one that has not been used
/// for longest changes its name, but only to one that is sent a second time while it is among the last
/// `rememberedMax` without: a peer to whom a thousand topics go round and round would just be sent three bytes more
/// with each.
package struct TopicAliases {
    /// Aliases given to one peer, however many it would take.
    package static let countMax = 16
    /// Names remembered that have no alias, by their hash.
    private static let rememberedMax = 32
    /// A name of this many bytes is no longer than the property that would stand for it.
    private static let shortTopicMax = 3

    private let countMax: Int
    /// By alias less one.
    private var given: [Given] = []
    /// Hashes of names sent without an alias, the place to write next going round.
    private var remembered: [UInt32] = []
    private var nextRemembered = 0
    private var uses: UInt64 = 0

    private struct Given {
        var topic: [UInt8]
        var hash: UInt32
        var lastUse: UInt64
    }

    /// nil when the peer takes none, its Topic Alias Maximum being 0 or absent [MQTT5-3.1.2-26, MQTT5-3.1.2-27,
    /// MQTT5-3.2.2-17, MQTT5-3.2.2-18], or when none are wanted.
    package init?(peerMaximum: UInt16?, countMax: Int = Self.countMax) {
        guard let peerMaximum, peerMaximum > 0, countMax > 0 else { return nil }
        self.countMax = min(Int(peerMaximum), countMax)
    }

    /// Puts an alias into a PUBLISH, beside its Topic Name the first time and instead of it from then on. Packets
    /// must be sent in the order in which they went through here.
    ///
    /// - Parameter packetBytesMax: the peer's Maximum Packet Size; a packet that has no room for the alias goes
    ///   without.
    /// - Complexity: O(bytes of the Topic Name + aliases)
    package mutating func apply(to publish: inout Publish, packetBytesMax: UInt32?) {
        let topic = publish.message.topic
        guard topic.count > Self.shortTopicMax else { return }
        let hash = Self.hash(topic)
        uses += 1
        if let i = given.firstIndex(where: { $0.hash == hash && $0.topic.elementsEqual(topic) }) {
            given[i].lastUse = uses
            publish.topicAlias = UInt16(i + 1)
            publish.omitsTopicName = true
            return
        }
        guard given.count < countMax || remembered.contains(hash) else { return remember(hash) }
        // The property takes three bytes, and may make each of the two lengths before it one longer.
        if let packetBytesMax, publish.encodedSize(version: .v5_0) + 5 > Int(packetBytesMax) { return }
        publish.topicAlias = UInt16(place(topic, hash) + 1)
    }

    private mutating func remember(_ hash: UInt32) {
        if remembered.count < Self.rememberedMax {
            remembered.append(hash)
        } else {
            remembered[nextRemembered] = hash
            nextRemembered = (nextRemembered + 1) % Self.rememberedMax
        }
    }

    /// - Returns: the place of a free alias, or of the one unused for longest.
    private mutating func place(_ topic: ArraySlice<UInt8>, _ hash: UInt32) -> Int {
        let new = Given(topic: Array(topic), hash: hash, lastUse: uses)
        guard given.count >= countMax,
            let oldest = given.indices.min(by: { given[$0].lastUse < given[$1].lastUse })
        else {
            given.append(new)
            return given.count - 1
        }
        given[oldest] = new
        return oldest
    }

    /// FNV-1a: the same in every process, which the standard library's is not.
    private static func hash(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        bytes.reduce(2_166_136_261) { ($0 ^ UInt32($1)) &* 16_777_619 }
    }
}

extension Gateway {
    /// Sends a PUBLISH to a client, its Topic Name shortened to an alias where that was agreed: the one way a
    /// PUBLISH leaves, for aliases are given in the order in which packets are sent.
    mutating func send(_ publish: Publish, to id: ConnectionID, into effects: inout [Effect]) {
        var publish = publish
        _ = connections.update(id) { connection in
            connection.outboundAliases?.apply(to: &publish, packetBytesMax: connection.packetBytesMax)
        }
        effects.append(.send(id, .publish(publish)))
    }
}
