import MQTT

/// How much may leave now, so that over time no more than a rate does: it fills with time up to what is let through in
/// one second.
struct TokenBucket {
    /// A message or a byte takes 1000 of these, so that each millisecond brings as many as the rate a second.
    private struct Tokens {
        let perMillisecond: Int64
        let capacity: Int64
        var count: Int64

        /// - Parameter burst: what it holds; what comes in a second where it is nil.
        init(perSecond: UInt32, burst: UInt32? = nil) {
            perMillisecond = Int64(max(1, perSecond))
            capacity = 1000 * Int64(max(1, burst ?? perSecond))
            count = capacity
        }

        mutating func fill(_ milliseconds: Int64) {
            count = min(capacity, count + perMillisecond * milliseconds)
        }

        var isFull: Bool { count >= capacity }

        /// How many milliseconds until there are `amount`, or until it is full.
        func wait(for amount: Int) -> UInt64 {
            let needed = min(capacity, 1000 * Int64(amount))
            return count >= needed ? 0 : UInt64((needed - count + perMillisecond - 1) / perMillisecond)
        }

        /// - Parameter owesAll: else it owes no more than fills it in a second.
        mutating func take(_ amount: Int, owesAll: Bool) {
            let left = count - 1000 * Int64(amount)
            count = owesAll ? left : max(left, min(count, -capacity))
        }
    }

    private var messages: Tokens?
    private var bytes: Tokens?
    private var filledAt: Instant

    /// nil when there is nothing to pace.
    init?(_ drain: UplinkRoutes.Drain, at now: Instant) {
        guard drain.messagesPerSecond != nil || drain.bytesPerSecond != nil else { return nil }
        messages = drain.messagesPerSecond.map { Tokens(perSecond: $0) }
        bytes = drain.bytesPerSecond.map { Tokens(perSecond: $0) }
        filledAt = now
    }

    /// nil when there is nothing to pace.
    init?(_ rate: PublishRate, at now: Instant) {
        guard rate.messagesPerSecond != nil || rate.bytesPerSecond != nil else { return nil }
        messages = rate.messagesPerSecond.map { Tokens(perSecond: $0, burst: rate.messagesBurst) }
        bytes = rate.bytesPerSecond.map { Tokens(perSecond: $0, burst: rate.bytesBurst) }
        filledAt = now
    }

    /// Whether it lets through as much as it ever does.
    mutating func isFull(at now: Instant) -> Bool {
        fill(at: now)
        return messages?.isFull ?? true && bytes?.isFull ?? true
    }

    /// How many milliseconds until nothing is owed.
    mutating func debt(at now: Instant) -> UInt64 {
        fill(at: now)
        return max(messages?.wait(for: 0) ?? 0, bytes?.wait(for: 0) ?? 0)
    }

    /// How many milliseconds a message of `size` bytes has to wait; one that is larger than the bucket, until it is full.
    mutating func wait(for size: Int, at now: Instant) -> UInt64 {
        fill(at: now)
        return max(messages?.wait(for: 1) ?? 0, bytes?.wait(for: size) ?? 0)
    }

    private mutating func fill(at now: Instant) {
        // No more than fits the arithmetic: 12 days.
        let passed = Int64(min(now.milliseconds(since: filledAt), 1 << 30))
        filledAt = max(filledAt, now)
        messages?.fill(passed)
        bytes?.fill(passed)
    }

    /// - Parameter hasWaited: whether it waited for its turn; what did not leaves a debt of no more than a second.
    mutating func take(_ size: Int, hasWaited: Bool, at now: Instant) {
        fill(at: now)
        messages?.take(1, owesAll: hasWaited)
        bytes?.take(size, owesAll: hasWaited)
    }
}

// The drain of an uplink: what waits leaves no faster than its rate, so that after an outage neither the cloud nor a
// metered link is flooded. What is live does not wait, and neither does QoS 0; but both count.
extension Gateway {
    /// Whether the drain has room for the next message of a queue; if not, its uplink goes on when it will.
    mutating func mayDrain(_ size: Int, of session: SessionID, at now: Instant) -> Bool {
        guard let index = read(session, { $0.sharedUplink }) ?? nil else { return true }
        // Who waits first goes on first: a large message would never have its turn if small ones took what it waits for.
        guard !uplinks[index.number].isDry else { return false }
        let wait = uplinks[index.number].bucket?.wait(for: size, at: now) ?? 0
        guard wait > 0 else { return true }
        uplinks[index.number].isDry = true
        let at = now.advanced(byMilliseconds: max(wait, Self.drainPauseMilliseconds))
        if at < uplinks[index.number].drainsAt ?? .init(milliseconds: .max) {
            uplinks[index.number].drainsAt = at
            schedule(.drain(index), at: at)
        }
        return false
    }

    /// Waking up for each message alone would cost more than sending it.
    private static var drainPauseMilliseconds: UInt64 { 10 }

    /// A message leaves for the cloud.
    mutating func noteDrained(_ packet: Publish, of session: SessionID, _ index: UplinkIndex, at now: Instant)
    {
        guard uplinks[index.number].bucket != nil else { return }
        let hasWaited = packet.qos > .atMostOnce && read(session) { $0.flow?.isPaced ?? false } ?? false
        uplinks[index.number].bucket?.take(packet.message.bytes.count, hasWaited: hasWaited, at: now)
    }

    mutating func drain(_ index: UplinkIndex, at now: Instant, into effects: inout [Effect]) {
        if let at = uplinks[index.number].drainsAt, at <= now { uplinks[index.number].drainsAt = nil }
        pumpLanes(of: index, at: now, into: &effects)
    }
}
