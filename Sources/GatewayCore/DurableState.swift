import MQTT

/// All that must survive a power cut. It changes only through `apply`, live and at recovery alike, so that
/// what is replayed is what was.
///
/// Live, Sessions that leave no trace (`SessionID.isVolatile`) are in here too; no Record in the journal names
/// them, and they are in no snapshot.
package struct DurableState {
    private var sessions = Roster<SessionID, Session>()
    private var sessionOfOwner: [SessionOwner.Key: SessionID] = [:]
    var routing = Routing()
    package private(set) var retained = RetainedStore()
    private var live = LiveCounts()
    package private(set) var offTimes = OffTimes()
    /// The number the next Session in the journal gets.
    private(set) var nextSession: UInt64 = 1
    /// Bytes of messages kept in memory for a queue whose receiver is away, and for one that is here.
    var residentBytesOfAbsentMax = Limits().residentBytesOfAbsentMax
    var residentBytesMax = Limits().residentBytesMax

    package init() {}

    // MARK: Reading

    package subscript(id: SessionID) -> Session? { sessions[id] }
    func isPersistent(_ id: SessionID) -> Bool { sessions.read(id) { $0.isPersistent } ?? false }
    package func session(of owner: SessionOwner) -> SessionID? { sessionOfOwner[owner.key] }

    /// Every Session's identifier, in rising order.
    ///
    /// - Complexity: O(sessions · log sessions)
    package var sessionIDs: [SessionID] { sessions.keys.sorted() }
    package var sessionCount: Int { sessions.count }

    /// Whether any message Record in this stretch of the journal is still owed to someone. May say yes a
    /// little longer than true, never no too early.
    ///
    /// - Complexity: O(Records in the stretch / 1024)
    package func owes(from first: Position, through last: Position) -> Bool {
        live.isOwed(from: first, through: last)
    }

    /// - Complexity: O(subscriptions)
    var census: Census {
        var census = Census()
        for i in sessions.values.indices {
            guard case .client = sessions.values[i].owner else { continue }
            if sessions.values[i].isPersistent, sessions.values[i].flow == nil { census.absentClients += 1 }
            census.subscriptions += sessions.values[i].subscriptions.count
            census.sharedSubscriptions += sessions.values[i].subscriptions.keys.count { $0.shareName != nil }
            census.storedMessages += sessions.values[i].queue.waitingCount
        }
        census.storedMessages += retained.count
        return census
    }

    /// Changes what no Record covers: the connection's side of a Session, and settled deliveries before their
    /// Record.
    mutating func update<Result>(_ id: SessionID, _ body: (inout Session) -> Result) -> Result? {
        sessions.update(id, body)
    }

    /// How much longer than the clock says it is since `moment`, in milliseconds.
    package func offMilliseconds(since moment: Instant) -> UInt64 { offTimes.milliseconds(since: moment) }

    /// Whether there is anything that time may end: a Session that is away, a Will, or messages.
    ///
    /// - Complexity: O(Sessions)
    package var countsTime: Bool {
        retained.count > 0
            || sessions.values.contains { session in
                (session.closedAt != nil && session.expirySeconds != .max) || session.will != nil
                    || session.queue.waitingCount > 0
            }
    }

    /// When a retained message expires.
    func expiry(of retained: RetainedRecord) -> Instant? {
        retained.storedAt == .zero
            ? offTimes.deadline(retained.expiresAt, of: Position(1))
            : offTimes.deadline(retained.expiresAt, of: retained.storedAt)
    }

    // MARK: Applying

    /// The one way durable state changes. What a damaged journal may hold does no harm: a Record about an
    /// unknown Session or delivery changes nothing.
    ///
    /// - Parameter position: where the journal has the Record; `.zero` for Records of a checkpoint and for those
    ///   that are not written.
    /// - Complexity: O(size of the Record); `.sessionEnded` O(what the Session held)
    package mutating func apply(_ record: Record, at position: Position) {
        switch record {
        case .sessionOpened(let opened): open(opened)
        case .sessionClosed(let closed):
            _ = sessions.update(closed.session) { session -> Void in
                session.closedAt = closed.at
                session.expirySeconds = closed.expirySeconds
                if closed.discardsWill { session.will = nil }
                // What is in no Record cannot be read back.
                if session.isPersistent { session.queue.trimResident(to: residentBytesOfAbsentMax) }
            }
        case .sessionEnded(let id, _): end(id)
        case .subscribed(let id, let subscriptions): subscribe(id, subscriptions)
        case .unsubscribed(let id, let filters): unsubscribe(id, filters)
        case .message(let message): distribute(message, at: position)
        case .inboundReleased(let id, let identifier):
            _ = sessions.update(id) { $0.inbound.release(identifier) }
        case .inboundVoided(let id):
            _ = sessions.update(id) { $0.inbound.releaseAll() }
        case .outboundReceived(let id, let delivery):
            releasing(id) { [$0.markReceived(delivery)] }
        case .acknowledged(let acknowledged):
            releasing(acknowledged.session) { $0.apply(acknowledged, at: position) }
        case .dropped(let id, let deliveries, _):
            releasing(id) { $0.drop(deliveries) }
        case .uplinkEstablished(let id):
            _ = sessions.update(id) { $0.isEstablished = true }
        case .assigned(let assigned):
            assign(assigned, at: position)
        case .returned(let id, let deliveries):
            giveBack(deliveries, of: id)
        case .wasOff(let off):
            offTimes.add(off)
        case .counters(let nextSession):
            self.nextSession = max(self.nextSession, nextSession)
        case .retained(let record):
            retained.store(record)
        case .inboundHeld(let id, let identifiers):
            _ = sessions.update(id) { session -> Void in
                for identifier in identifiers { session.inbound.hold(identifier, at: position) }
            }
        case .queue(let record):
            restore(record)
        }
    }

    private mutating func open(_ opened: SessionOpened) {
        if !opened.session.isVolatile { nextSession = max(nextSession, opened.session.number + 1) }
        let exists =
            sessions.update(opened.session) { session -> Void in
                session.version = opened.version
                session.expirySeconds = opened.expirySeconds
                session.will = opened.will
                session.closedAt = nil
            } != nil
        guard !exists else { return }
        // Two Sessions of one owner are never open; should a damaged journal say so, the later one counts.
        if let older = sessionOfOwner[opened.owner.key] { end(older) }
        sessions[opened.session] = Session(opened)
        sessionOfOwner[opened.owner.key] = opened.session
        if case .group(let filter) = opened.owner { route(opened.session, filter) }
    }

    private mutating func end(_ id: SessionID) {
        guard let session = sessions[id] else { return }
        for filter in session.subscriptions.keys where filter.shareName == nil {
            routing.remove(id, filter: filter)
        }
        for group in session.groups.keys { leave(group, id) }
        if case .group(let filter) = session.owner {
            routing.remove(id, filter: filter)
            for member in session.sharing?.members.keys ?? [] {
                _ = sessions.update(member) { $0.groups[id] = nil }
            }
        }
        if session.isPersistent { release(session.queue.neededPositions) }
        let key = session.owner.key
        if sessionOfOwner[key] == id { sessionOfOwner[key] = nil }
        sessions[id] = nil
    }

    private mutating func subscribe(_ id: SessionID, _ subscriptions: [Subscription]) {
        guard sessions.contains(id) else { return }
        for subscription in subscriptions {
            _ = sessions.update(id) { $0.subscriptions[subscription.filter] = subscription }
            guard subscription.filter.shareName == nil else {
                join(subscription, id)
                continue
            }
            routing.insert(
                Routing.Subscriber(
                    session: id, maximumQoS: subscription.maximumQoS, noLocal: subscription.noLocal,
                    retainAsPublished: subscription.retainAsPublished, identifier: subscription.identifier,
                    rename: nil, rank: 0),
                filter: subscription.filter)
        }
    }

    private mutating func unsubscribe(_ id: SessionID, _ filters: [TopicFilter]) {
        for filter in filters {
            let existed = sessions.update(id) { session in
                defer { session.subscriptions[filter] = nil }
                return session.subscriptions.contains(filter)
            }
            guard existed == true else { continue }
            if filter.shareName == nil {
                routing.remove(id, filter: filter)
            } else if let group = sessionOfOwner[.group(filter)] {
                leave(group, id)
            }
        }
    }

    // MARK: Shared subscriptions

    private mutating func join(_ subscription: Subscription, _ id: SessionID) {
        let filter = subscription.filter
        guard let group = sessionOfOwner[.group(filter)] else { return }
        _ = sessions.update(group) { $0.sharing?.members[id] = subscription.maximumQoS }
        _ = sessions.update(id) { $0.groups[group] = filter }
        route(group, filter)
    }

    private mutating func leave(_ group: SessionID, _ id: SessionID) {
        _ = sessions.update(group) { $0.sharing?.members[id] = nil }
        let left = sessions.update(id) { member in
            defer { member.groups[group] = nil }
            return member.groups[group]
        }
        if let filter = left ?? nil { route(group, filter) }
    }

    /// A message reaches the group at the highest QoS any member may have; whom it is assigned to may lower it.
    private mutating func route(_ group: SessionID, _ filter: TopicFilter) {
        guard let highest = sessions.read(group, { $0.sharing?.members.values.max() ?? .atMostOnce })
        else { return }
        routing.insert(
            Routing.Subscriber(
                session: group, maximumQoS: highest, noLocal: false, retainAsPublished: true, identifier: nil,
                rename: nil, rank: 0),
            filter: filter)
    }

    /// Both queues are kept through a power cut, so whoever had needed the message's Record, someone still does.
    private mutating func assign(_ record: AssignedRecord, at position: Position) {
        guard sessions.contains(record.member),
            let (entry, message) = sessions.update(record.group, { $0.queue.take(record.delivery) }) ?? nil
        else { return }
        let budget = residentBytesMax
        _ = sessions.update(record.member) {
            $0.queue.append(
                message, qos: record.qos, at: entry.position, budget: budget, assignedBy: record.group,
                groupQoS: entry.qos, source: nil, recordedAt: position)
        }
    }

    private mutating func giveBack(_ deliveries: [Delivery], of id: SessionID) {
        let budget = residentBytesMax
        for delivery in deliveries {
            guard let assignment = sessions.read(id, { $0.queue.assignment(of: delivery) }) ?? nil,
                let (entry, message) = sessions.update(id, { $0.queue.take(delivery) }) ?? nil
            else { continue }
            let isTaken: Void? = sessions.update(assignment.group) {
                $0.queue.append(message, qos: assignment.groupQoS, at: entry.position, budget: budget)
            }
            if isTaken == nil { release([entry.position]) }
        }
    }

    // MARK: Messages

    private mutating func distribute(_ record: MessageRecord, at position: Position) {
        if let publisher = record.publisher, let id = record.inboundID {
            _ = sessions.update(publisher) { $0.inbound.hold(id, at: position) }
        }
        if let willOf = record.willOf { _ = sessions.update(willOf) { $0.will = nil } }
        switch record.retained {
        case .none:
            break
        case .store:
            retained.store(
                RetainedRecord(
                    message: record.message, qos: record.qos, expiresAt: record.expiresAt, storedAt: position)
            )
        case .clear:
            retained.clear(record.message.topic)
        }
        for target in record.targets {
            let needed = sessions.update(target.session) { session in
                let here = session.flow != nil || session.sharing != nil
                session.queue.append(
                    StoredMessage(record, to: target), qos: target.qos,
                    at: position,
                    budget: !session.isPersistent ? .max : here ? residentBytesMax : residentBytesOfAbsentMax)
                return session.isPersistent
            }
            if needed == true { live.retain(position) }
        }
    }

    private mutating func restore(_ record: QueueRecord) {
        let queue = MessageQueue(record)
        guard sessions.update(record.session, { $0.queue = queue }) != nil else { return }
        for position in queue.neededPositions { live.retain(position) }
    }

    /// Changes a queue and lets go of the Records it no longer needs. Only persistent Sessions hold any.
    private mutating func releasing(_ id: SessionID, _ body: (inout MessageQueue) -> [Position]) {
        let released = sessions.update(id) { session in
            let released = body(&session.queue)
            return session.isPersistent ? released : []
        }
        release(released ?? [])
    }

    private mutating func release(_ positions: [Position]) {
        for position in positions where position != .zero { live.release(position) }
    }

    // MARK: Checkpoints

    /// Hands out Records that rebuild this state when applied to an empty one, `.counters` first.
    ///
    /// - Complexity: O(state)
    package func snapshot(_ body: (Record) -> Void) {
        body(.counters(nextSession: nextSession))
        for off in offTimes.all { body(.wasOff(off)) }
        let kept = sessionIDs.filter { !$0.isVolatile }
        // Groups first: a subscription finds its group there.
        for id in kept {
            if let session = sessions[id], session.sharing != nil { body(.sessionOpened(session.opened)) }
        }
        for id in kept {
            guard let session = sessions[id] else { continue }
            if session.sharing == nil { body(.sessionOpened(session.opened)) }
            // What is only here for its Will has no Record of anything else.
            if session.isPersistent {
                if !session.subscriptions.isEmpty { body(.subscribed(id, session.subscriptions.values)) }
                if session.inbound.count > 0 { body(.inboundHeld(id, session.inbound.ids)) }
                body(.queue(session.queue.record(for: id)))
            }
            if session.isEstablished { body(.uplinkEstablished(id)) }
            if let closedAt = session.closedAt {
                body(
                    .sessionClosed(
                        SessionClosed(
                            session: id, at: closedAt, expirySeconds: session.expirySeconds,
                            discardsWill: false)))
            }
        }
        for record in retained.all { body(.retained(record)) }
    }
}

extension Session {
    fileprivate var opened: SessionOpened {
        SessionOpened(
            session: id, owner: owner, version: version, expirySeconds: expirySeconds,
            isPersistent: isPersistent, will: will)
    }
}

extension StoredMessage {
    init(_ record: MessageRecord, to target: MessageRecord.Target) {
        self.init(
            message: record.message, publishedQoS: record.qos, expiresAt: record.expiresAt,
            retain: target.retain, subscriptionIdentifiers: target.subscriptionIdentifiers,
            rename: target.rename)
    }
}
