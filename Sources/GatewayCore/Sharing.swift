import MQTT

/// What makes a Session the group of a shared subscription [MQTT5-4.8.2].
struct Sharing {
    /// Each member's granted QoS.
    var members = Roster<SessionID, QoS>()
    /// Who has unsubscribed and still has some of its messages to settle, of a group that leaves no trace: should
    /// the group begin anew in the journal, what they hold is of that one.
    var leavers = Roster<SessionID, Void>()
    /// How many of them there may be before those are looked for that have nothing any more.
    var leaversMax = 64
    /// The place among the members that is asked first for the next message.
    var nextPlace = 0
    /// No delivery before this one is waiting.
    var next = Delivery(0)
}

// Shared subscriptions: a group's queue flows to its members, each message to one of them [MQTT5-4.8.2].
//
// A message for a member whose queue survives a power cut moves there by Record. One for a member that leaves
// no trace stays in the group's queue until it is settled, so that a power cut takes the member and not the
// message; the member's delivery remembers its source. From the moment at which a QoS 2 message may have been
// sent no other member ever gets it: a Record says so before it leaves.
extension Gateway {
    // MARK: Groups come and go

    /// Makes sure of the group that `member` is about to join: it is in the journal if any member's queue is.
    mutating func prepareGroup(of filter: TopicFilter, for member: SessionID, into effects: inout [Effect]) {
        let lasts = isPersistent(member)
        guard let known = state.session(of: .group(filter)) else {
            return openGroup(of: filter, isPersistent: lasts, into: &effects)
        }
        if lasts, !isPersistent(known) { makeLast(known, filter, into: &effects) }
    }

    private mutating func openGroup(
        of filter: TopicFilter, isPersistent: Bool, into effects: inout [Effect]
    ) {
        let group = newSessionID(inJournal: isPersistent)
        let opened = SessionOpened(
            session: group, owner: .group(filter), version: .v5_0, expirySeconds: .max,
            isPersistent: isPersistent, will: nil)
        _ = commit(.sessionOpened(opened), about: group, into: &effects)
    }

    /// The first member whose queue survives a power cut joins: a group that left no trace begins anew in the
    /// journal, and what waits in it is committed there. What its members have been assigned stays with them.
    private mutating func makeLast(_ old: SessionID, _ filter: TopicFilter, into effects: inout [Effect]) {
        guard let group = state[old], let sharing = group.sharing else { return }
        applyVolatile(.sessionEnded(old, .administrative))
        openGroup(of: filter, isPersistent: true, into: &effects)
        guard let new = state.session(of: .group(filter)) else { return }
        // Who left has nothing of the group any more but messages: they may have to be given back.
        let holders = sharing.members.keys + sharing.leavers.keys.filter { !sharing.members.contains($0) }
        for member in holders {
            let subscription = update(member) { session in
                session.queue.reassign(from: old, to: new)
                return session.subscriptions[filter]
            }
            if let subscription = subscription ?? nil { applyVolatile(.subscribed(member, [subscription])) }
        }
        for (message, qos) in group.queue.waitingMessages {
            shareAnew(message, qos, with: new, into: &effects)
        }
    }

    private mutating func shareAnew(
        _ message: StoredMessage, _ qos: QoS, with group: SessionID, into effects: inout [Effect]
    ) {
        let target = MessageRecord.Target(session: group, qos: qos, retain: message.retain)
        var record = MessageRecord(
            qos: message.publishedQoS, message: message.message, expiresAt: message.expiresAt,
            targets: [target])
        _ = commitMessage(&record, into: &effects)
    }

    /// Notes that a member with messages in its hands is about to leave a group that leaves no trace.
    ///
    /// - Complexity: O(messages assigned to it), amortised
    mutating func noteLeaver(_ member: SessionID, of group: SessionID) {
        guard group.isVolatile, holdsAny(of: group, member) else { return }
        let leavers = update(group) { session in
            session.sharing?.leavers[member] = ()
            return session.sharing.map { $0.leavers.count > $0.leaversMax ? $0.leavers.keys : [] }
        }
        guard let crowd = leavers ?? nil, !crowd.isEmpty else { return }
        let done = crowd.filter { !holdsAny(of: group, $0) }
        _ = update(group) { session in
            for leaver in done { session.sharing?.leavers[leaver] = nil }
            session.sharing?.leaversMax = max(64, 2 * (crowd.count - done.count))
        }
    }

    private mutating func holdsAny(of group: SessionID, _ member: SessionID) -> Bool {
        update(member) { $0.queue.assignments.contains { $0.group == group } } == true
    }

    /// Goes on without members that have left: the last one to go ends the group, and what waits in it is
    /// dropped, counted. That Record need not be waited for: recovery ends groups without members too.
    mutating func goOn(_ groups: [SessionID], at now: Instant, into effects: inout [Effect]) {
        for group in groups {
            guard let session = state[group], let sharing = session.sharing else { continue }
            guard sharing.members.isEmpty else {
                share(group, at: now, into: &effects)
                continue
            }
            let waiting = session.queue.unassignedCount
            if waiting > 0 {
                effects.append(.report(.dropped(owner: session.owner, .sessionEnded, count: waiting)))
            }
            _ = commit(.sessionEnded(group, .lastMemberLeft), about: group, .lazy, into: &effects)
        }
    }

    /// A group whose Record was damaged begins anew.
    mutating func restoreGroups(of session: Session, into effects: inout [Effect]) {
        for subscription in session.subscriptions.values
        where subscription.filter.shareName != nil
            && state.session(of: .group(subscription.filter)).map(session.groups.contains) != true
        {
            prepareGroup(of: subscription.filter, for: session.id, into: &effects)
            _ = commit(.subscribed(session.id, [subscription]), into: &effects)
        }
    }

    /// After a start nobody has what waits in a group. What a member without a trace may have been sent at
    /// QoS 2 went with that member [MQTT5-4.8.2-5].
    mutating func recoverGroup(_ group: SessionID, at now: Instant, into effects: inout [Effect]) {
        let sent = update(group) { session in
            session.queue.assumeNotSent()
            return session.queue.received
        }
        if let sent, !sent.isEmpty { drop(sent, of: group, .sessionEnded, at: now, into: &effects) }
        if state[group]?.sharing?.members.isEmpty == true { goOn([group], at: now, into: &effects) }
    }

    // MARK: Handing out

    /// Assigns what waits in a group to members that have room for it, in turn.
    ///
    /// - Complexity: O(assigned · members)
    mutating func share(_ group: SessionID, at now: Instant, into effects: inout [Effect]) {
        while let (delivery, entry, isPaged) = nextShared(of: group) {
            if isPaged { index(group, into: &effects) }
            guard let entry else { return }
            guard let member = nextMember(of: group, for: entry.qos) else { return }
            guard mayHandOut(delivery, of: group, into: &effects) else { return waitForDurable(group) }
            if update(group, { $0.queue.isResident(delivery) }) != true {
                load(group, into: &effects)
                if update(group, { $0.queue.isResident(delivery) }) != true { return }
            }
            guard let message = update(group, { $0.queue.message(of: delivery) }) ?? nil else {
                drop([delivery], of: group, .damaged, at: now, into: &effects)
                continue
            }
            if let expiresAt = state.offTimes.deadline(message.expiresAt, of: entry.position),
                expiresAt <= now
            {
                drop([delivery], of: group, .messageExpired, at: now, into: &effects)
                continue
            }
            _ = update(group) { $0.sharing?.nextPlace = member.place + 1 }
            assign(delivery, entry, message, of: group, to: member, at: now, into: &effects)
        }
    }

    private struct Candidate {
        let session: SessionID
        let place: Int
        /// Granted for this message [MQTT5-4.8.2-3].
        let qos: QoS
    }

    /// What is waiting first in a group; without its entry while only the index of the log has that.
    private mutating func nextShared(
        of group: SessionID
    ) -> (delivery: Delivery, entry: MessageQueue.Entry?, isPaged: Bool)? {
        let found: (Delivery, MessageQueue.Entry?, Bool)?? = update(group) { session in
            guard let next = session.sharing?.next else { return nil }
            let delivery = session.queue.firstWaiting(atOrAfter: next)
            session.sharing?.next = delivery
            guard delivery < session.queue.end else { return nil }
            return (delivery, session.queue[delivery], session.queue.pagedCount > 0)
        }
        return found ?? nil
    }

    /// The member whose turn it is, of those that can be sent a message now; nil when it must wait.
    private mutating func nextMember(of group: SessionID, for qos: QoS) -> Candidate? {
        guard let sharing = update(group, { $0.sharing }) ?? nil else { return nil }
        let members = sharing.members
        for turn in 0..<members.count {
            let place = (sharing.nextPlace + turn) % members.count
            let candidate = Candidate(
                session: members.keys[place], place: place, qos: min(qos, members.values[place]))
            if mayTake(candidate, of: group) { return candidate }
        }
        return nil
    }

    private mutating func mayTake(_ candidate: Candidate, of group: SessionID) -> Bool {
        guard isFlowOpen(candidate.session), read(candidate.session, { $0.rests(in: group) }) == false
        else { return false }
        guard candidate.qos > .atMostOnce else { return true }
        return update(candidate.session) { session in
            guard let flow = session.flow else { return false }
            let queued = session.queue.end.number - max(flow.next, session.queue.floor).number
            return UInt64(flow.inFlightCount) + queued < UInt64(flow.inFlightMax)
        } ?? false
    }

    /// Bounds how far ahead of its oldest unsettled message a group is handed out: that is how far its
    /// acknowledgement Records reach.
    private mutating func mayHandOut(
        _ delivery: Delivery, of group: SessionID, into effects: inout [Effect]
    ) -> Bool {
        let durable = gate.durable
        let span = plan.limits.identifierSpan
        let may = { (session: inout Session) in
            session.queue.mayUseIdentifier(of: delivery, durable: durable, span: span)
        }
        if update(group, may) == true { return true }
        recordAcknowledgements(of: group, .handshake, into: &effects)
        return update(group, may) == true
    }

    private mutating func assign(
        _ delivery: Delivery, _ entry: MessageQueue.Entry, _ message: StoredMessage, of group: SessionID,
        to member: Candidate, at now: Instant, into effects: inout [Effect]
    ) {
        if member.qos == .atMostOnce {
            // Sent is settled.
            _ = update(group) { $0.queue.settle(delivery) }
            var message = message
            message.expiresAt = state.offTimes.deadline(message.expiresAt, of: entry.position)
            sendShared(message, of: group, to: member.session, after: entry.position, at: now, into: &effects)
        } else if isPersistent(member.session) {
            let record = AssignedRecord(
                group: group, delivery: delivery, member: member.session, qos: member.qos,
                number: state.nextDelivery(of: member.session),
                source: .init(position: entry.position, qos: entry.qos, bytes: entry.bytes))
            _ = commit(
                .assigned(record), member.qos == .exactlyOnce ? .handshake : .lazy, into: &effects)
        } else {
            var recordedAt = Position.zero
            if member.qos == .exactlyOnce, isPersistent(group) {
                recordedAt = commit(.outboundReceived(group, delivery), .handshake, into: &effects)
            } else {
                _ = update(group) { $0.queue.markSent(delivery) }
            }
            _ = update(member.session) { session in
                session.queue.append(
                    message, bytes: entry.bytes, qos: member.qos, at: entry.position, budget: .max,
                    assignedBy: group, groupQoS: entry.qos, source: delivery, recordedAt: recordedAt)
            }
        }
        listUnrecorded(group, at: now, into: &effects)
        flow(member.session, at: now, into: &effects)
    }

    /// A QoS 0 message for a group goes to one of those who are here; one for a Session that is away, to nobody.
    mutating func shareAtMostOnce(
        _ message: StoredMessage, with group: SessionID, after position: Position, at now: Instant,
        into effects: inout [Effect]
    ) {
        guard let member = nextMember(of: group, for: .atMostOnce) else { return }
        _ = update(group) { $0.sharing?.nextPlace = member.place + 1 }
        sendShared(message, of: group, to: member.session, after: position, at: now, into: &effects)
    }

    private mutating func sendShared(
        _ message: StoredMessage, of group: SessionID, to member: SessionID, after position: Position,
        at now: Instant, into effects: inout [Effect]
    ) {
        guard let share = update(member, { $0.share(message, of: group) }) else { return }
        sendAtMostOnce(share, to: member, after: position, at: now, into: &effects)
    }

    // MARK: Coming back

    /// The source of a member's delivery is settled with it.
    mutating func settleSource(
        of delivery: Delivery, _ session: SessionID, at now: Instant, into effects: inout [Effect]
    ) {
        guard let assignment = update(session, { $0.queue.assignment(of: delivery) }) ?? nil,
            let source = assignment.source,
            update(assignment.group, { $0.queue.settle(source) }) == true
        else { return }
        listUnrecorded(assignment.group, at: now, into: &effects)
    }

    /// Gives what a Session was assigned and has not settled back to its groups, before it ends: another
    /// member gets it. Not what was sent at QoS 2, which no one else may have [MQTT5-4.8.2-5]; that is dropped
    /// with the Session.
    ///
    /// - Parameter groups: nil for all.
    /// - Returns: the groups that assigned it anything.
    mutating func giveBack(
        of id: SessionID, to groups: [SessionID]? = nil, at now: Instant, into effects: inout [Effect]
    ) -> [SessionID] {
        var assignments = update(id) { $0.queue.assignments } ?? []
        if let groups { assignments.removeAll { !groups.contains($0.group) } }
        var returned: [Delivery] = []
        for assignment in assignments {
            let delivery = assignment.delivery
            guard let entry = update(id, { $0.queue[delivery] }) ?? nil, entry.phase != .settled,
                state[assignment.group]?.sharing?.members.keys.contains(where: { $0 != id }) == true
            else { continue }
            let isSent = entry.qos == .exactlyOnce && entry.phase != .waiting
            if isPersistent(id) {
                if !isSent { returned.append(delivery) }
            } else if isSent {
                if let source = assignment.source {
                    drop([source], of: assignment.group, .sessionEnded, at: now, into: &effects)
                } else if let owner = state[assignment.group]?.owner {
                    effects.append(.report(.dropped(owner: owner, .sessionEnded, count: 1)))
                }
            } else if let message = update(id, { $0.queue.message(of: delivery) }) ?? nil {
                giveBack(assignment, message, of: id, at: now, into: &effects)
            }
        }
        if !returned.isEmpty { _ = commit(.returned(id, returned), into: &effects) }
        return assignments.map(\.group)
    }

    /// From a member that leaves no trace: the group still has the message, in its old place, unless a Record
    /// says that it may have been sent or the group is a new one; then it gets it anew.
    private mutating func giveBack(
        _ assignment: MessageQueue.Assignment, _ message: StoredMessage, of id: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        let group = assignment.group
        if let source = assignment.source, state[group]?.queue[source]?.phase == .sent {
            _ = update(group) { session in
                session.queue.markWaiting(source)
                if let next = session.sharing?.next { session.sharing?.next = min(next, source) }
            }
        } else {
            shareAnew(message, assignment.groupQoS, with: group, into: &effects)
            settleSource(of: assignment.delivery, id, at: now, into: &effects)
        }
    }
}

extension Session {
    /// A group's message as this member gets it; after it has left the group, with nothing of its subscription.
    func share(_ message: StoredMessage, of group: SessionID) -> StoredMessage {
        let subscription = groups[group].flatMap { subscriptions[$0] }
        var share = message
        share.retain = message.retain && subscription?.retainAsPublished == true
        share.subscriptionIdentifiers = subscription?.identifier.map { [$0] } ?? []
        return share
    }
}
