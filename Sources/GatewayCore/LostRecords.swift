import MQTT

// Damage takes Records, and must take nothing else. A receiver that has answered a QoS 2 message with PUBREC holds its
// Packet Identifier until PUBREL comes, and takes another message under it for the one that it has [MQTT5-4.3.3-10].

extension Delivery {
    /// Beyond this no number can be counted on from; only damage has such ones.
    static let countableLimit: UInt64 = 1 << 62

    /// By a multiple of this the numbers of a queue go on behind what lost Records may have numbered: further than any
    /// queue is long, so that it is known for what it is.
    static let jump: UInt64 = (1 << 40) + 0x4600

    /// How often that is, after so many lost Records. An earlier start may have jumped from the same number, and what came
    /// then may be lost in its turn: the more is lost, the further it goes. Once, four and seven times are apart from each
    /// other and from where they began, in the identifiers at QoS 2 of a client (32 768) and of an uplink's lane (4096);
    /// 128 times more makes no difference to either.
    static func jumps(afterLossOf count: UInt64) -> UInt64 { 1 + 3 * (count % 3) + 128 * min(count, 4096) }

    /// How many numbers were given from `first` up to `last`; what was jumped over never was.
    package static func count(from first: UInt64, to last: UInt64) -> UInt64 { (last &- first) % jump }

    /// The number as people see it: where it jumped, they see some missing, and no number twice.
    var sequence: UInt64 { number % Self.jump + number / Self.jump }
}

extension DurableState {
    /// Makes sure that no queue gives a number again that a lost Record may have given: after recovery, and before any
    /// message comes. Until what comes before a jump is settled, nothing behind it is sent (rule A7).
    ///
    /// - Complexity: O(Sessions) after a loss, else O(1)
    mutating func passOverLost() {
        guard losses > 0 else { return }
        let losses = losses
        for id in sessionIDs { _ = update(id) { $0.passOverLost(losses) } }
    }
}

extension Session {
    /// - Parameter losses: how many Records are lost in all.
    fileprivate mutating func passOverLost(_ losses: UInt64) {
        guard isPersistent, lossesPassed < losses else { return }
        switch owner {
        case .client, .uplink, .lane: queue.jump(times: Delivery.jumps(afterLossOf: losses - lossesPassed))
        // Their messages have no identifiers.
        case .deadLetters, .group: break
        }
    }

    /// Whether PUBREL may go out, on this connection, for what its receiver may never have been sent. Whoever takes offence
    /// at that, and leaves, must be able to come back some time.
    ///
    /// - Parameter countMax: on how many connections without an answer.
    mutating func mayReleaseUnproven(atMost countMax: Int) -> Bool {
        if flow?.hasReleasedUnproven == true { return true }
        guard flow?.maximumQoS == .exactlyOnce, unprovenReleases < countMax else { return false }
        unprovenReleases += 1
        flow?.hasReleasedUnproven = true
        return true
    }

    /// Those of damaged deliveries, in rising order, that may have been sent at QoS 2 as far as anybody knows.
    ///
    /// - Parameters:
    ///   - inFlightMax: no more than so many were in flight.
    ///   - countMax: as above.
    /// - Complexity: O(deliveries + subscriptions)
    mutating func mayHold(_ damaged: [Delivery], inFlightMax: Int, atMost countMax: Int) -> [Delivery] {
        let sent = damaged.prefix(inFlightMax).prefix { $0 < queue.sentBelow }
        guard !sent.isEmpty else { return [] }
        switch owner {
        case .client:
            guard subscriptions.values.contains(where: { $0.maximumQoS == .exactlyOnce }) else { return [] }
        case .uplink, .lane: break
        case .deadLetters, .group: return []
        }
        return mayReleaseUnproven(atMost: countMax) ? Array(sent) : []
    }
}
