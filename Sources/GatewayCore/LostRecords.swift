import MQTT

// Damage takes Records, and must take nothing else. A receiver that has answered a QoS 2 message with PUBREC holds its
// Packet Identifier until PUBREL comes, and takes another message under it for the one that it has [MQTT5-4.3.3-10].

extension Delivery {
    /// Beyond this no number can be counted on from; only damage has such ones.
    static let countableLimit: UInt64 = 1 << 62

    /// So far the numbers of a queue go on behind what lost Records may have numbered: further than any queue is long, so
    /// that it is known for what it is, and by half of a lane's identifiers at QoS 2, which is more than half of a client's.
    static let jump: UInt64 = (1 << 40) + 0x4800
    /// So many seem to be missing then, which is more than were lost as a rule.
    private static let sequenceJump: UInt64 = 4096

    /// How many numbers were given from `first` up to `last`; what was jumped over never was.
    package static func count(from first: UInt64, to last: UInt64) -> UInt64 { (last &- first) % jump }

    /// The number as people see it: where it jumped, they see some missing, and no number twice.
    var sequence: UInt64 { number % Self.jump + number / Self.jump * Self.sequenceJump }
}

extension DurableState {
    /// Makes sure that no queue gives a number again by whose identifier its receiver may know a lost delivery: after
    /// recovery, and before any message comes. Until what comes before a jump is settled, nothing behind it is sent (rule
    /// A7). Should Records behind the jump be lost too before a checkpoint is written, it leads to the same number again.
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
        case .client, .uplink, .lane: queue.jump()
        // Their messages have no identifiers.
        case .deadLetters, .group: break
        }
    }

    /// Whether PUBREL may go out, on this connection, for what its receiver may never have been sent. Whoever takes offence
    /// at that, and leaves, must be able to come back some time.
    ///
    /// - Parameter countMax: on how many connections without an answer.
    mutating func mayReleaseUnproven(atMost countMax: Int) -> Bool {
        guard flow?.maximumQoS == .exactlyOnce else { return false }
        if flow?.hasReleasedUnproven == true { return true }
        guard unprovenReleases < countMax else { return false }
        unprovenReleases += 1
        flow?.hasReleasedUnproven = true
        return true
    }

    /// Those of damaged deliveries, in rising order, that may have been sent at QoS 2 as far as anybody knows.
    ///
    /// - Parameters:
    ///   - inFlightMax: no more than so many were in flight, or than this connection allows.
    ///   - countMax: as above.
    /// - Complexity: O(deliveries + subscriptions)
    mutating func mayHold(_ damaged: [Delivery], inFlightMax: Int, atMost countMax: Int) -> [Delivery] {
        let sent = damaged.prefix(max(inFlightMax, flow?.inFlightMax ?? 0)).prefix { $0 < queue.sentBelow }
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
