import DequeModule
import MQTT

/// The messages that may yet go unwritten: QoS 1, not retained, and everyone they are owed to through a power cut
/// is here and was sent them (rules E1 and E2). Who has not acknowledged a message is counted; when nobody is left
/// before its Record is written, it need not be (rule E3).
///
/// - Complexity: everything O(1) a message while candidates come one after another, else O(log candidates)
struct Candidates {
    private struct Candidate {
        let position: Position
        var targets: [MessageRecord.Target]
        /// How many targets have not acknowledged it; nil once it was elided.
        var owing: Int?
        /// Of the publisher's PUBACK.
        var ticket: CommitGate.Ticket?
    }

    /// In order of position; the first was not elided.
    private var candidates: Deque<Candidate> = []

    var count: Int { candidates.count }

    mutating func add(_ position: Position, _ targets: [MessageRecord.Target]) {
        candidates.append(Candidate(position: position, targets: targets, owing: targets.count))
    }

    /// The publisher's PUBACK waits for the message at `position`.
    mutating func park(_ ticket: CommitGate.Ticket, for position: Position) {
        if let index = index(of: position) { candidates[index].ticket = ticket }
    }

    /// A receiver has the message. Who is not among the targets does not count: a Session that ends with its connection
    /// gets and acknowledges it, too, and is owed nothing through a power cut (rule E2).
    ///
    /// - Returns: whether it was the last of those it is owed to; nil when the message is no candidate, or not its.
    /// - Complexity: O(targets)
    mutating func acknowledged(_ position: Position, by session: SessionID) -> Bool? {
        guard let index = index(of: position), let owing = candidates[index].owing,
            candidates[index].targets.contains(where: { $0.session == session })
        else { return nil }
        candidates[index].owing = owing - 1
        return owing == 1
    }

    /// The message at `position` will not be written.
    mutating func elided(_ position: Position) -> (
        targets: [MessageRecord.Target], ticket: CommitGate.Ticket?
    )? {
        guard let index = index(of: position), candidates[index].owing != nil else { return nil }
        let (targets, ticket) = (candidates[index].targets, candidates[index].ticket)
        candidates[index].owing = nil
        candidates[index].targets = []
        while let first = candidates.first, first.owing == nil { candidates.removeFirst() }
        return (targets, ticket)
    }

    /// Everything up to `position` is written or elided.
    mutating func forget(through position: Position) {
        while let first = candidates.first, first.position <= position { candidates.removeFirst() }
    }

    private func index(of position: Position) -> Int? {
        candidates.index(of: position.number) { $0.position.number }
    }
}

// Messages that everyone has before they are written are not written (rules E1 to E7).
extension Gateway {
    /// Whether a QoS 1 message may yet go unwritten: everyone who is owed it through a power cut is here and is
    /// sent it at once (rule E2). A group is not: whom it will choose, and whether that one keeps what it has, is
    /// another matter. The retained store and the Session of a Will have it only once it is durable (rule E1).
    mutating func mayBeElided(_ record: borrowing MessageRecord, at now: Instant) -> Bool {
        guard record.retained == .none, record.willOf == nil else { return false }
        var isOwed = false
        for target in record.targets where isPersistent(target.session) {
            guard isAtHand(target.session, at: now) else { return false }
            isOwed = true
        }
        return isOwed
    }

    private mutating func isAtHand(_ session: SessionID, at now: Instant) -> Bool {
        guard isFlowOpen(session) else { return false }
        guard mayLeaveAtOnce(session, at: now) else { return false }
        let (durable, limits) = (gate.durable, plan.limits)
        return update(session) { session in
            // A server that takes no more than QoS 0 never says that it has anything.
            guard let flow = session.flow, session.sharing == nil, flow.maximumQoS > .atMostOnce,
                max(flow.next, session.queue.floor) == session.queue.end, flow.leading.isEmpty,
                flow.inFlightCount < flow.inFlightMax, !flow.isRationed,
                flow.bytesSent(at: now) < limits.bytesPerRoundMax
            else { return false }
            return session.queue.mayUseIdentifier(
                of: session.queue.end, durable: durable,
                span: min(limits.identifierSpan, session.identifiers.span))
        } ?? false
    }

    /// The message at `position` may be elided: from now on it is counted who has it.
    mutating func addCandidate(_ position: Position, _ targets: [MessageRecord.Target]) {
        candidates.add(position, targets)
        let durable = gate.durable
        for target in targets {
            _ = update(target.session) { $0.flow?.noteCandidate(position, durable: durable) }
        }
    }

    /// A receiver has the message at `position`. The last one to have it makes its Record needless (rule E3).
    mutating func noteAcknowledged(
        _ position: Position, by session: SessionID, into effects: inout [Effect]
    ) {
        guard position > gate.durable, let isLast = candidates.acknowledged(position, by: session)
        else { return }
        _ = update(session) { $0.flow?.candidateCount -= 1 }
        if isLast { effects.append(.elide(position)) }
    }

    /// The Record at `position` will not be written: its deliveries need none, and its publisher hears of it.
    mutating func elided(_ position: Position, at now: Instant, into effects: inout [Effect]) {
        guard let (targets, ticket) = candidates.elided(position) else { return }
        for target in targets {
            if let delivery = target.delivery { state.elided(delivery, of: target.session, at: position) }
        }
        guard let ticket else { return }
        gate.excuse(ticket)
        releasePromises(at: now, into: &effects)
    }

    /// A receiver's connection is gone: what it was sent and may yet be elided need not linger (rule E4).
    mutating func loseFlow(of session: SessionID, into effects: inout [Effect]) {
        let flow = update(session) { session in
            defer { session.flow = nil }
            return session.flow
        }
        guard let flow = flow ?? nil, flow.candidateCount > 0, flow.newestCandidate > gate.durable else {
            return
        }
        effects.append(.hasten(flow.newestCandidate))
    }
}
