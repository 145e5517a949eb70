// What is settled is written down: late enough to be few Records, and early enough for identifiers (rules A7, A8).
extension Gateway {
    /// Notes that a queue has settled deliveries no Record covers; a Record follows within a second.
    mutating func listUnrecorded(_ session: SessionID, at now: Instant, into effects: inout [Effect]) {
        let isNew = update(session) { session in
            defer { session.isListedUnrecorded = true }
            return !session.isListedUnrecorded
        }
        if isNew == true {
            if unrecorded.isEmpty {
                schedule(
                    .unrecordedAcknowledgements,
                    at: now.advanced(byMilliseconds: plan.limits.lazyAcknowledgementMilliseconds))
            }
            unrecorded.append(session)
        }
        guard let (count, reach) = read(session, { ($0.queue.unrecordedCount, $0.identifiers.span) }) else {
            return
        }
        let half = Int(min(plan.limits.identifierSpan, reach) / 2) + 1
        if count >= min(plan.limits.lazyAcknowledgementsMax, half) {
            // In time, so that nothing has to wait for an identifier (rule A7).
            recordAcknowledgements(of: session, count >= half ? .handshake : .lazy, into: &effects)
        }
    }

    /// Records what is settled in every queue that has something new (rule A8).
    ///
    /// - Complexity: O(queues with settled deliveries)
    mutating func recordAcknowledgements(into effects: inout [Effect]) {
        let sessions = unrecorded
        unrecorded = []
        for session in sessions {
            _ = update(session) { $0.isListedUnrecorded = false }
            recordAcknowledgements(of: session, into: &effects)
        }
    }

    mutating func recordAcknowledgements(
        of id: SessionID, _ urgency: Urgency = .lazy, into effects: inout [Effect]
    ) {
        let span = plan.limits.identifierSpan
        // In place: a copy of the queue alive while the Record is applied would cost its whole length.
        let record = update(id) { session in
            session.queue.unrecordedCount > 0 || session.queue.isFloorSettled
                ? session.queue.acknowledgedRecord(for: id, lookingAhead: span) : nil
        }
        guard let record = record ?? nil else { return }
        _ = commit(.acknowledged(record), ifKept: id, urgency, into: &effects)
    }
}
