import MQTT

// What is let go instead of being sent.
extension Gateway {
    /// Lets a delivery go that comes to be sent and is not.
    ///
    /// At QoS 2 a power cut could bring it back as one that was sent, and it would come behind others: so they wait for the
    /// Record.
    mutating func letGo(
        _ delivery: Delivery, of session: SessionID, _ reason: DropReason, at now: Instant,
        into effects: inout [Effect]
    ) {
        let mayComeBack =
            (reason == .messageExpired || reason == .notAllowed) && isPersistent(session)
            && read(session, { $0.queue[delivery]?.qos }) == .exactlyOnce
        guard mayComeBack else { return drop([delivery], of: session, reason, at: now, into: &effects) }
        // With what else has expired: one Record is waited for, and not one for each.
        let others = reason == .messageExpired ? expired(behind: delivery, of: session, at: now) : []
        drop([delivery] + others, of: session, reason, .handshake, at: now, into: &effects)
        let position = lastPosition
        _ = update(session) { $0.sendsAfter = position }
    }

    /// Of what is in memory, and was not sent.
    private mutating func expired(behind first: Delivery, of session: SessionID, at now: Instant)
        -> [Delivery]
    {
        let (durable, offTimes, count) = (gate.durable, state.offTimes, UInt64(plan.limits.loadedAtOnceMax))
        return update(session) { session in
            let end = min(session.queue.end.number, first.number &+ count)
            guard first.number + 1 < end else { return [] }
            return (first.number + 1..<end).map { Delivery($0) }.filter { delivery in
                guard let entry = session.queue[delivery], entry.phase == .waiting, entry.position <= durable,
                    session.queue.assignment(of: delivery) == nil,
                    let message = session.queue.message(of: delivery),
                    let expiresAt = offTimes.deadline(message.expiresAt, of: entry.position)
                else { return false }
                return expiresAt <= now
            }
        } ?? []
    }
}
