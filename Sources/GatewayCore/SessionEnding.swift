import MQTT

// The ends of connections and Sessions: Wills, Session Expiry, and what was open when the power failed.
extension Gateway {
    /// The Network Connection of a Session ended.
    ///
    /// - Parameters:
    ///   - expirySeconds: as DISCONNECT changed it; nil leaves it.
    ///   - discardsWill: the client said goodbye [MQTT5-3.14.4-3].
    ///   - closedAt: when, if not now.
    ///   - overdue: counts what was due before `now`, if anything can be.
    mutating func closeSession(
        _ id: SessionID, expirySeconds: UInt32? = nil, discardsWill: Bool = false, closedAt: Instant? = nil,
        overdue: inout Overdue, at now: Instant, into effects: inout [Effect]
    ) {
        guard let (expiry, hasWill) = update(id, { ($0.expirySeconds, $0.will != nil) }) else { return }
        let closed = SessionClosed(
            session: id, at: closedAt ?? now, expirySeconds: expirySeconds ?? expiry,
            discardsWill: discardsWill)
        // A Will that must not be published should not survive a power cut in its place (rule A10).
        let urgency: Urgency = discardsWill && hasWill ? .control : .lazy
        _ = commit(.sessionClosed(closed), about: id, urgency, into: &effects)
        loseFlow(of: id, into: &effects)
        scheduleEnds(of: id, closedAt: closedAt ?? now, overdue: &overdue, at: now, into: &effects)
    }

    /// The Network Connection of a Session ended now.
    mutating func closeSession(
        _ id: SessionID, expirySeconds: UInt32? = nil, discardsWill: Bool = false, at now: Instant,
        into effects: inout [Effect]
    ) {
        var none = Overdue(from: now, plan.limits)
        closeSession(
            id, expirySeconds: expirySeconds, discardsWill: discardsWill, overdue: &none, at: now,
            into: &effects)
    }

    /// Publishes the Will and ends the Session, now or when their time comes.
    private mutating func scheduleEnds(
        of id: SessionID, closedAt: Instant, overdue: inout Overdue, at now: Instant,
        into effects: inout [Effect]
    ) {
        guard let session = state[id] else { return }
        let off = state.offMilliseconds(since: closedAt)
        var endsAt =
            session.expirySeconds == .max
            ? nil : closedAt.advanced(bySeconds: session.expirySeconds).earlier(byMilliseconds: off)
        // The Will Delay, and no later than the Session's end [MQTT5-3.1.3-9, MQTT5-3.1.2-8].
        var willDue = session.will.map { will in
            min(
                closedAt.advanced(bySeconds: will.delaySeconds).earlier(byMilliseconds: off),
                endsAt ?? .distantFuture)
        }
        if let first = willDue ?? endsAt, first <= now {
            let turn = overdue.next()
            willDue = willDue.map { max($0, turn) }
            endsAt = endsAt.map { max($0, turn) }
        }
        if let due = willDue {
            _ = update(id) { $0.willDueAt = due }
            if due <= now {
                checkWill(id, at: now, into: &effects)
            } else {
                scheduleWillCheck(of: id, at: due)
            }
        }
        guard let endsAt else { return }
        _ = update(id) { $0.endsAt = endsAt }
        if endsAt <= now {
            checkSessionEnd(id, at: now, into: &effects)
        } else {
            scheduleEndCheck(of: id, at: endsAt)
        }
    }

    private mutating func scheduleWillCheck(of id: SessionID, at: Instant) {
        let isNew = update(id) { session in
            if let set = session.willCheckAt, set <= at { return false }
            session.willCheckAt = at
            return true
        }
        if isNew == true { schedule(.will(id), at: at) }
    }

    private mutating func scheduleEndCheck(of id: SessionID, at: Instant) {
        let isNew = update(id) { session in
            if let set = session.endCheckAt, set <= at { return false }
            session.endCheckAt = at
            return true
        }
        if isNew == true { schedule(.sessionEnd(id), at: at) }
    }

    mutating func checkWill(_ id: SessionID, at now: Instant, into effects: inout [Effect]) {
        _ = update(id) { if let set = $0.willCheckAt, set <= now { $0.willCheckAt = nil } }
        guard let due = update(id, { $0.willDueAt }) ?? nil else { return }
        guard due <= now else { return scheduleWillCheck(of: id, at: due) }
        _ = update(id) { $0.willDueAt = nil }
        publishWill(of: id, at: now, into: &effects)
    }

    mutating func checkSessionEnd(_ id: SessionID, at now: Instant, into effects: inout [Effect]) {
        _ = update(id) { if let set = $0.endCheckAt, set <= now { $0.endCheckAt = nil } }
        guard let (endsAt, expirySeconds) = update(id, { ($0.endsAt, $0.expirySeconds) }), let endsAt else {
            return
        }
        guard endsAt <= now else { return scheduleEndCheck(of: id, at: endsAt) }
        _ = endSession(id, expirySeconds == 0 ? .disconnected : .expired, at: now, into: &effects)
    }

    /// Ends a Session: its Will is published [MQTT5-3.1.2-8], and what it was owed is dropped, counted. A
    /// client that was connected when the power failed, and is back already, owes no Will.
    ///
    /// - Returns: the position to wait for before anyone is told; `.zero` when it left no trace.
    mutating func endSession(
        _ id: SessionID, _ reason: SessionEnd, at now: Instant, into effects: inout [Effect]
    ) -> Position {
        let isBack = reason == .cleanStart && update(id) { $0.closedAt == nil } == true
        if !isBack { publishWill(of: id, at: now, into: &effects) }
        let givenBack = giveBack(of: id, at: now, into: &effects)
        // What it acknowledged is not dropped with it.
        recordAcknowledgements(of: id, into: &effects)
        guard let session = state[id] else { return .zero }
        if session.isPersistent, case .client(let identifier) = session.owner {
            let undelivered = session.queue.waitingCount
            effects.append(
                .report(.sessionEnded(clientIdentifier: identifier, reason, undelivered: undelivered)))
        }
        let position = commit(.sessionEnded(id, reason), about: id, into: &effects)
        if position != .zero, case .client(let identifier) = session.owner {
            endedSessions.note(identifier, at: position)
        }
        goOn(session.groups.keys + givenBack, at: now, into: &effects)
        return position
    }

    // MARK: After a start

    /// Whatever was due while the gateway was off, in turn: a few at a time, and not before clients had some time to
    /// come back.
    struct Overdue {
        private var turn: Instant
        private var left: Int
        private let limits: Limits

        init(from start: Instant, _ limits: Limits) {
            turn = start
            left = limits.overdueAtOnceMax
            self.limits = limits
        }

        mutating func next() -> Instant {
            if left == 0 {
                turn = turn.advanced(byMilliseconds: limits.overduePauseMilliseconds)
                left = limits.overdueAtOnceMax
            }
            left -= 1
            return turn
        }
    }

    private var returnGraceEndsAt: Instant {
        startedAt.advanced(byMilliseconds: plan.limits.returnGraceMilliseconds)
    }

    /// Sessions that were connected count as closed at the persisted clock's last moment; clients get some time to
    /// come back before Wills are published and Sessions end.
    mutating func recoverSessions(at now: Instant, into effects: inout [Effect]) {
        var mayReturn = false
        var overdue = Overdue(from: returnGraceEndsAt, plan.limits)
        for id in state.sessionIDs {
            guard let session = state[id], case .client = session.owner else { continue }
            restoreGroups(of: session, into: &effects)
            _ = update(id) { $0.queue.assumeSent(isAway: session.closedAt != nil, span: $0.identifiers.span) }
            if let closedAt = session.closedAt {
                scheduleEnds(of: id, closedAt: closedAt, overdue: &overdue, at: now, into: &effects)
            } else {
                mayReturn = true
            }
        }
        for id in state.sessionIDs where state[id]?.sharing != nil {
            recoverGroup(id, at: now, into: &effects)
        }
        scheduleRetainedExpiries(overdue: &overdue, at: now)
        if mayReturn { schedule(.returnGrace, at: returnGraceEndsAt) }
    }

    private mutating func scheduleRetainedExpiries(overdue: inout Overdue, at now: Instant) {
        for retained in state.retained.all {
            guard let expiresAt = state.expiry(of: retained) else { continue }
            scheduleRetainedExpiry(
                of: Array(retained.message.topic), at: expiresAt <= now ? overdue.next() : expiresAt)
        }
    }

    /// What came before the start has waited for longer than the clock says: whose time is over by that ends.
    ///
    /// - Complexity: O(Sessions + retained messages)
    mutating func wasOff(_ off: OffTime, at now: Instant, into effects: inout [Effect]) {
        _ = commit(.wasOff(off), into: &effects)
        effects.append(.report(.wasOff(milliseconds: off.milliseconds)))
        var overdue = Overdue(from: max(now, returnGraceEndsAt), plan.limits)
        for id in state.sessionIDs {
            guard let session = state[id], case .client = session.owner, let closedAt = session.closedAt,
                closedAt <= off.since
            else { continue }
            scheduleEnds(of: id, closedAt: closedAt, overdue: &overdue, at: now, into: &effects)
        }
        scheduleRetainedExpiries(overdue: &overdue, at: now)
    }

    /// Who was connected before the start and has not come back by now is gone, since then.
    ///
    /// - Complexity: O(Sessions), once
    mutating func endReturnGrace(at now: Instant, into effects: inout [Effect]) {
        var overdue = Overdue(from: now, plan.limits)
        for id in state.sessionIDs {
            guard let session = state[id], case .client = session.owner, session.closedAt == nil,
                session.flow == nil
            else { continue }
            closeSession(id, closedAt: stoppedAt, overdue: &overdue, at: now, into: &effects)
        }
    }
}
