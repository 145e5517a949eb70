import MQTT

/// Of each topic the last value that was news too soon: it goes up when the minimum interval is over, unless another takes
/// its place or it is no news any more. A device that speaks only when something changes may not speak again.
///
/// In memory only: its message has been taken as every one that is no news, and after a start the next value is news.
struct HeldBack {
    struct Value {
        let publish: Publish
        let receivedAt: Instant
        let expiresAt: Instant?
        let publisher: SessionID
        let treatment: Treatment
        let number: Double
        let due: Instant
        var topic: [UInt8] { Array(publish.message.topic) }
    }

    private(set) var all: [Value] = []
    /// Of the values, and of the deadlines that are set.
    private(set) var bytes = 0
    private var places: [[UInt8]: Int] = [:]
    /// The earliest deadline set for each topic, whatever became of its value since.
    private var checks: [[UInt8]: Instant] = [:]
    /// What a deadline takes in memory beside its topic, about.
    private static let checkBytes = 128

    var isEmpty: Bool { all.isEmpty }

    func value(of topic: [UInt8]) -> Value? { places[topic].map { all[$0] } }

    /// - Precondition: nothing of its topic is.
    mutating func hold(_ value: Value) {
        places[value.topic] = all.count
        all.append(value)
        bytes += value.publish.heldBytes
    }

    @discardableResult
    mutating func remove(_ topic: [UInt8]) -> Value? {
        guard let place = places.removeValue(forKey: topic) else { return nil }
        let value = all[place]
        bytes -= value.publish.heldBytes
        let last = all.removeLast()
        if place < all.count {
            all[place] = last
            places[last.topic] = place
        }
        return value
    }

    /// - Returns: what was held back, in no order that means anything.
    mutating func removeAll() -> [Value] {
        let values = all
        for value in values { remove(value.topic) }
        return values
    }

    /// Whether a deadline is to be set: one a topic is enough, however often its value is replaced.
    mutating func mustCheck(_ topic: [UInt8], at: Instant) -> Bool {
        if let set = checks[topic], set <= at { return false }
        if checks.updateValue(at, forKey: topic) == nil { bytes += topic.count + Self.checkBytes }
        return true
    }

    /// A deadline is met.
    mutating func checked(_ topic: [UInt8], at now: Instant) {
        guard let set = checks[topic], set <= now else { return }
        checks[topic] = nil
        bytes -= topic.count + Self.checkBytes
    }
}

extension Gateway {
    /// Notes what became of a value under a rule: it is the last that is known of its topic.
    mutating func holdBack(
        _ verdict: Reports.Verdict, of publish: Publish, by publisher: SessionID, as treatment: Treatment,
        at now: Instant
    ) {
        switch verdict {
        case .news, .noNews:
            if !heldBack.isEmpty { letGo(Array(publish.message.topic)) }
        case .tooSoon(let number, let due):
            let value = HeldBack.Value(
                publish: publish, receivedAt: now,
                expiresAt: publish.messageExpirySeconds.map { now.advanced(bySeconds: $0) },
                publisher: publisher, treatment: treatment, number: number, due: due)
            letGo(value.topic)
            heldBack.hold(value)
            scheduleHeldBack(value)
        }
    }

    /// Something newer is known of a topic.
    mutating func letGo(_ topic: [UInt8]) {
        guard let value = heldBack.remove(topic) else { return }
        countSuppressed(value.publish.message, of: value.treatment)
    }

    private mutating func scheduleHeldBack(_ value: HeldBack.Value) {
        if heldBack.mustCheck(value.topic, at: value.due) {
            schedule(.heldBack(topic: value.topic), at: value.due)
        }
    }

    mutating func checkHeldBack(_ topic: [UInt8], at now: Instant, into effects: inout [Effect]) {
        heldBack.checked(topic, at: now)
        guard let value = heldBack.value(of: topic) else { return }
        guard value.due <= now else { return scheduleHeldBack(value) }
        heldBack.remove(topic)
        sendUp(value, at: now, into: &effects)
    }

    /// Nothing is held back any longer: the rules change, or the gateway stops.
    mutating func sendUpHeldBack(at now: Instant, into effects: inout [Effect]) {
        for value in heldBack.removeAll() { sendUp(value, at: now, into: &effects) }
    }

    /// It has been refused to nobody and acknowledged, so as with a Will there is room for it.
    private mutating func sendUp(_ value: HeldBack.Value, at now: Instant, into effects: inout [Effect]) {
        let message = value.publish.message
        if let expiresAt = value.expiresAt, expiresAt <= now {
            return countSuppressed(message, of: value.treatment)
        }
        var shares = shares(
            of: message.topic, published: value.publish.qos, retain: value.publish.retain,
            by: value.publisher)
        shares.removeAll { uplinkName(of: $0.session) == nil }
        lead(&shares, as: value.treatment.profile.uplink)
        guard !shares.isEmpty else { return countSuppressed(message, of: value.treatment) }
        var record = MessageRecord(
            qos: value.publish.qos, message: message, expiresAt: value.expiresAt)
        let passing = shares.filter { $0.qos == .atMostOnce }
        let wanted = shares.count
        let position = keep(
            &record, for: shares, receivedAt: value.receivedAt, at: now, into: &effects)
        noteWentUp(value.number, record, passing, wanted: wanted, at: now)
        pass(record, to: passing, after: position, at: now, into: &effects)
    }
}
