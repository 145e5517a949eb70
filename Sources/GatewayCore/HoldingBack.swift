import MQTT

/// Of each topic the last value that was news too soon: it goes up when the minimum interval is over, unless another takes
/// its place or it is no news any more. A device that speaks only when something changes may not speak again.
///
/// In memory only: its message has been taken as every one that is no news, and after a start the next value is news.
struct HeldBack {
    struct Value {
        let publish: Publish
        let expiresAt: Instant?
        let publisher: SessionID
        let treatment: Treatment
        let number: Double
        let due: Instant
        var topic: [UInt8] { Array(publish.message.topic) }
    }

    private(set) var all: [Value] = []
    private(set) var bytes = 0
    private var places: [[UInt8]: Int] = [:]

    var isEmpty: Bool { all.isEmpty }

    func value(of topic: [UInt8]) -> Value? { places[topic].map { all[$0] } }

    mutating func hold(_ value: Value) {
        remove(value.topic)
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
}

extension Gateway {
    /// Notes what became of a value under a rule: it is the last that is known of its topic.
    mutating func holdBack(
        _ verdict: Reports.Verdict, of publish: Publish, by publisher: SessionID, as treatment: Treatment,
        at now: Instant
    ) {
        switch verdict {
        case .news, .noNews:
            if !heldBack.isEmpty { heldBack.remove(Array(publish.message.topic)) }
        case .tooSoon(let number, let due):
            let value = HeldBack.Value(
                publish: publish, expiresAt: publish.messageExpirySeconds.map { now.advanced(bySeconds: $0) },
                publisher: publisher, treatment: treatment, number: number, due: due)
            let isNew = heldBack.value(of: value.topic)?.due != due
            heldBack.hold(value)
            if isNew { schedule(.heldBack(topic: value.topic), at: due) }
        }
    }

    mutating func checkHeldBack(_ topic: [UInt8], at now: Instant, into effects: inout [Effect]) {
        guard let value = heldBack.value(of: topic), value.due <= now else { return }
        heldBack.remove(topic)
        sendUp(value, at: now, into: &effects)
    }

    /// Nothing is held back any longer: the rules change, or the gateway stops.
    mutating func sendUpHeldBack(at now: Instant, into effects: inout [Effect]) {
        let values = heldBack.all
        heldBack = HeldBack()
        for value in values { sendUp(value, at: now, into: &effects) }
    }

    /// It has been refused to nobody and acknowledged, so as with a Will there is room for it.
    private mutating func sendUp(_ value: HeldBack.Value, at now: Instant, into effects: inout [Effect]) {
        if let expiresAt = value.expiresAt, expiresAt <= now { return }
        let message = value.publish.message
        var shares = shares(
            of: message.topic, published: value.publish.qos, retain: value.publish.retain,
            by: value.publisher)
        shares.removeAll { uplinkName(of: $0.session) == nil }
        lead(&shares, as: value.treatment.profile.uplink)
        guard !shares.isEmpty else { return }
        var record = MessageRecord(
            qos: value.publish.qos, message: message, expiresAt: value.expiresAt)
        let passing = shares.filter { $0.qos == .atMostOnce }
        let wanted = shares.count
        let position = keep(&record, for: shares, at: now, into: &effects)
        noteWentUp(value.number, record, passing, wanted: wanted, at: now)
        pass(record, to: passing, after: position, at: now, into: &effects)
        uncountSuppressed(message, of: value.treatment)
    }
}
