import MQTT

/// Deliveries whose Records are lost, and that may have been sent before.
///
/// A receiver that has answered one of them with PUBREC holds its Packet Identifier until PUBREL comes, and would take
/// another message under it for the one that it has [MQTT5-4.3.3-10]. So the numbers are not given again, and PUBREL goes
/// out for them; whoever holds nothing answers that the identifier is not found [MQTT5-3.7.2.1], and that is all.
struct LostNumbers: Hashable {
    /// So many, those that were sent first: few receivers have a larger Receive Maximum.
    static let countMax: UInt64 = 1024

    var numbers: Range<UInt64>
}

extension Session {
    private var isKnownByIdentifiers: Bool {
        switch owner {
        case .client, .uplink, .lane: isPersistent
        case .deadLetters, .group: false
        }
    }

    /// Takes note that the numbers before this one, from the end of the queue on, are those of lost Records.
    mutating func noteLost(upTo number: UInt64) {
        let first = queue.end.number
        guard isKnownByIdentifiers, number > first, number - first < Delivery.jump else { return }
        lostNumbers = Rare(LostNumbers(numbers: first..<min(number, first + LostNumbers.countMax)))
    }

    /// A Record has a number for the queue to go on at: those before it are of Records that were never written, or are
    /// lost.
    ///
    /// - Parameter losses: how many Records are lost up to here.
    /// - Returns: false when the queue is beyond that number.
    mutating func goOn(at number: Delivery, losses: UInt64, _ position: Position) -> Bool {
        let isAfterLoss = lossesSeen < losses
        if isAfterLoss { noteLost(upTo: number.number) }
        lossesSeen = losses
        return booking(.arrived(afterLoss: isAfterLoss)) { $0.queue.skip(to: number, at: position) }
    }

    /// Numbers are about to be given again, and so many Records are lost behind the last one that says which is next.
    mutating func passOverLost(_ count: UInt64) {
        guard isKnownByIdentifiers else { return }
        noteLost(upTo: queue.end.number + min(count, LostNumbers.countMax))
        queue.jump()
    }

    /// The Packet Identifiers at QoS 2 of what is lost, once on each connection, until the receiver has answered the last
    /// of them.
    ///
    /// - Complexity: O(lost deliveries)
    mutating func lostIdentifiers() -> [PacketIdentifier] {
        guard let lost = lostNumbers.value, flow?.hasReleasedLost == false else { return [] }
        // Before identifiers come round again.
        guard Delivery.count(from: lost.numbers.lowerBound, to: queue.end.number) < 2 * LostNumbers.countMax,
            mayReleaseUnproven()
        else {
            forgetLost()
            return []
        }
        flow?.hasReleasedLost = true
        return lost.numbers.map { identifiers.identifier(of: Delivery($0), qos: .exactlyOnce) }
    }

    /// Those of damaged deliveries, in rising order, that may have been sent at QoS 2 as far as anybody knows.
    ///
    /// - Complexity: O(deliveries)
    mutating func mayHold(_ damaged: [Delivery]) -> [Delivery] {
        let end = min(queue.sentBelow, Delivery(queue.floor.number + LostNumbers.countMax))
        let sent = damaged.prefix { $0 < end }
        return isKnownByIdentifiers && !sent.isEmpty && mayReleaseUnproven() ? Array(sent) : []
    }

    /// PUBCOMP came for what is in no queue.
    mutating func released(_ id: PacketIdentifier) {
        guard let last = lostNumbers.value?.numbers.last else { return }
        unprovenReleaseIsAnswered()
        if identifiers.identifier(of: Delivery(last), qos: .exactlyOnce) == id { forgetLost() }
    }

    /// Whoever takes offence at PUBREL for what it was never sent, and leaves, must be able to come back some time.
    static let unprovenReleasesMax = 8

    /// Whether PUBREL may go out, on this connection, for what its receiver may never have been sent.
    mutating func mayReleaseUnproven() -> Bool {
        if flow?.hasReleasedUnproven == true { return true }
        guard unprovenReleasesLeft > 0 else { return false }
        unprovenReleasesLeft -= 1
        flow?.hasReleasedUnproven = true
        return true
    }

    mutating func unprovenReleaseIsAnswered() { unprovenReleasesLeft = Self.unprovenReleasesMax }

    /// There is nothing that the receiver could hold.
    mutating func forgetLost() { lostNumbers = Rare(nil) }
}

extension DurableState {
    /// Makes sure that no queue gives a number again that a lost Record may have given: after recovery, and before any
    /// message comes.
    ///
    /// - Returns: whether there are identifiers to be released.
    /// - Complexity: O(Sessions) after a loss, else O(1)
    mutating func passOverLost() -> Bool {
        guard losses > 0 else { return false }
        let losses = losses
        var hasLostNumbers = false
        for id in sessionIDs {
            let isHeld = update(id) { session in
                if session.lossesSeen < losses { session.passOverLost(losses - session.lossesSeen) }
                return session.lostNumbers.value != nil
            }
            if isHeld == true { hasLostNumbers = true }
        }
        return hasLostNumbers
    }
}

extension Delivery {
    /// Beyond this no number can be counted on from; only damage has such ones.
    static let countableLimit: UInt64 = 1 << 62
    /// How far a queue's numbers go on behind lost Records: more than it ever gives, and as far from the identifiers
    /// before it as it can be, at QoS 2, be it a client's queue or an uplink's.
    static let jump: UInt64 = (1 << 40) + 0x4800

    /// How many numbers were given between two ends of a queue, at or behind which nothing waits: jumps left out.
    package static func count(from first: UInt64, to last: UInt64) -> UInt64 { (last &- first) % jump }
}
