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
    /// The books of all Sessions that have ended.
    package private(set) var endedBooks = Books()
    /// How many Records recovery found missing.
    private(set) var losses: UInt64 = 0
    package private(set) var offTimes = OffTimes()
    /// The number the next Session in the journal gets.
    private(set) var nextSession: UInt64 = 1
    /// Here they say how much of a queue is kept in memory.
    package var limits: Limits

    /// - Parameter blockBits: deliveries are counted by blocks of so many Records, as a power of two: the smaller, the
    ///   sooner a short segment is known to be needless, and the more memory that takes.
    package init(blockBits: UInt64? = nil, limits: Limits = Limits()) {
        if let blockBits { live.blockBits = blockBits }
        self.limits = limits
    }

    // MARK: Reading

    package subscript(id: SessionID) -> Session? { sessions[id] }
    /// Looks at a Session without copying it.
    func read<Result>(_ id: SessionID, _ body: (borrowing Session) -> Result) -> Result? {
        sessions.read(id, body)
    }
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
    /// - Complexity: O(Records in the stretch / 1024 + stretches with pages)
    package func owes(from first: Position, through last: Position) -> Bool {
        live.isOwed(from: first, through: last)
    }

    /// How many deliveries need message Records of a stretch, with those of its edges.
    ///
    /// - Complexity: O(Records in the stretch / 1024 + stretches with pages)
    package func owedCount(in stretch: Stretch) -> Int { live.count(in: stretch) }

    /// Whether the message of a delivery is still owed by the very queue that a message Record names it in.
    package func needs(_ session: SessionID, _ delivery: Delivery) -> Bool {
        sessions.read(session) { $0.isPersistent && $0.queue.needs(delivery) } ?? false
    }

    /// Whether all these deliveries are; no where that is not seen at a glance.
    package func needsAll(_ session: SessionID, _ deliveries: ClosedRange<Delivery>) -> Bool {
        sessions.read(session) { $0.isPersistent && $0.queue.needsAll(deliveries) } ?? false
    }

    /// Positions in a stretch that are needed although no message Record names the delivery: its group assigned it,
    /// or a member gave it back.
    ///
    /// - Complexity: O(Sessions + entries in memory of queues with such deliveries)
    package func strayPositions(in stretch: Stretch) -> Set<Position> {
        var positions: Set<Position> = []
        for session in sessions.values where session.isPersistent {
            session.queue.addStrayPositions(in: stretch, to: &positions)
        }
        return positions
    }

    /// The number of the next message for a Session whose queue survives a power cut; nil for any other.
    func nextDelivery(of session: SessionID) -> Delivery? {
        // Looked at, not decided inside: that would copy the Session.
        guard let (isPersistent, end) = sessions.read(session, { ($0.isPersistent, $0.queue.end) }) else {
            return nil
        }
        return isPersistent ? end : nil
    }

    /// - Complexity: O(subscriptions)
    var census: Census {
        var census = Census()
        for i in sessions.values.indices {
            guard case .client = sessions.values[i].owner else { continue }
            if sessions.values[i].isPersistent, sessions.values[i].flow == nil { census.absentClients += 1 }
            census.subscriptions += sessions.values[i].subscriptions.count
            census.sharedSubscriptions += sessions.values[i].subscriptions.keys.count { $0.shareName != nil }
            // A damaged journal may call any number of them waiting.
            census.storedMessages &+= sessions.values[i].queue.waitingCount
        }
        census.storedMessages &+= retained.count
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
                session.queue.noteAway()
                // What is in no Record cannot be read back.
                if session.isPersistent { session.queue.trimResident(to: limits.residentBytesOfAbsentMax) }
            }
        case .sessionEnded(let id, _): end(id)
        case .subscribed(let id, let subscriptions): subscribe(id, subscriptions)
        case .unsubscribed(let id, let filters): unsubscribe(id, filters)
        case .message(let message): apply(message, at: position)
        case .inboundReleased(let id, let identifier):
            _ = sessions.update(id) { $0.inbound.release(identifier) }
        case .inboundVoided(let id):
            _ = sessions.update(id) { $0.inbound.releaseAll() }
        case .outboundReceived(let id, let delivery):
            releasing(id, .delivered) { $0.markReceived(delivery, into: &$1) }
        case .acknowledged(let acknowledged):
            releasing(acknowledged.session, .delivered) { $0.apply(acknowledged, at: position, into: &$1) }
        case .dropped(let id, let deliveries, let reason):
            drop(deliveries, of: id, reason, at: position)
        case .uplinkEstablished(let id):
            _ = sessions.update(id) { $0.isEstablished = true }
        case .assigned(let assigned):
            guard assigned.group != assigned.member, goOn(with: assigned, at: position) else { return }
            booking(assigned.group, .handedOver) { state in
                state.booking(assigned.member, .takenOver) { $0.assign(assigned, at: position) }
            }
        case .returned(let id, let deliveries):
            giveBack(deliveries, of: id, at: position)
        case .wasOff(let off):
            offTimes.add(off)
        case .profiled(let id, let name):
            _ = sessions.update(id) { $0.profile = name }
        case .counters(let nextSession):
            self.nextSession = max(self.nextSession, nextSession)
        case .retained(let record):
            retained.store(record)
        case .inboundHeld(let id, let identifiers):
            _ = sessions.update(id) { session -> Void in
                for held in identifiers {
                    session.inbound.hold(held.id, digest: held.digest, at: position)
                }
            }
        case .queue(let record):
            restore(record)
        case .books(let id?, let books):
            _ = sessions.update(id) { $0.books = books }
        case .books(nil, let books):
            endedBooks = books
        case .lost(_, let count):
            losses &+= count
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
        var session = Session(opened)
        (session.lossesSeen, session.lossesPassed) = (losses, losses)
        sessions[opened.session] = session
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
        if session.isPersistent {
            session.queue.forEachNeeded {
                live.release($0)
            } paged: {
                live.release(paged: $1, in: $0)
            }
            endedBooks += session.finalBooks
        }
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
                Routing.Subscriber(session: id, subscription), filter: subscription.filter)
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
                session: group,
                Subscription(filter: filter, maximumQoS: highest, retainAsPublished: true)),
            filter: filter)
    }

    /// Numbers before the one that is assigned are of Records that were never written, or are lost.
    ///
    /// - Returns: false when the member's queue has gone beyond that number.
    private mutating func goOn(with record: AssignedRecord, at position: Position) -> Bool {
        guard let number = record.number else { return true }
        let losses = losses
        return sessions.update(record.member) { session in
            guard session.goOn(at: number, losses: losses, position) else { return false }
            session.lossesPassed = losses
            return true
        } ?? true
    }

    /// Both queues are kept through a power cut, so whoever had needed the message's Record, someone still does.
    private mutating func assign(_ record: AssignedRecord, at position: Position) {
        guard sessions.contains(record.member) else { return }
        var released = MessageQueue.Released()
        let taken = sessions.update(record.group) {
            $0.queue.take(record.delivery, known: record.entry, into: &released)
        }
        guard let (entry, message) = taken ?? nil else { return }
        release(released)
        live.retain(entry.position)
        let budget = limits.residentBytesMax
        _ = sessions.update(record.member) {
            $0.queue.append(
                message, bytes: entry.bytes, qos: record.qos, at: entry.position, budget: budget,
                assignedBy: record.group, groupQoS: entry.qos, source: nil, recordedAt: position)
        }
    }

    private mutating func giveBack(_ deliveries: [Delivery], of id: SessionID, at position: Position) {
        let budget = limits.residentBytesMax
        for delivery in deliveries {
            guard let assignment = sessions.read(id, { $0.queue.assignment(of: delivery) }) ?? nil
            else { continue }
            var released = MessageQueue.Released()
            let hasGroup = assignment.group != id && sessions.contains(assignment.group)
            let taken = sessions.update(id) {
                $0.booking(hasGroup ? .handedOver : .dropped(.sessionEnded)) {
                    $0.queue.take(delivery, into: &released)
                }
            }
            guard let (entry, message) = taken ?? nil else { continue }
            release(released)
            let isTaken: Void? = sessions.update(assignment.group) {
                $0.booking(.takenOver) {
                    $0.queue.append(
                        message, bytes: entry.bytes, qos: assignment.groupQoS, at: entry.position,
                        budget: budget, isStray: true)
                }
            }
            if isTaken != nil { live.retain(entry.position) }
        }
    }

    // MARK: Messages

    /// The same of a message.
    mutating func apply(_ record: MessageRecord, at position: Position) {
        if let publisher = record.publisher, let id = record.inboundID {
            let message = record.message
            _ = sessions.update(publisher) {
                // Only a cloud is not believed: see `Gateway.isRolledBack`.
                $0.inbound.hold(id, digest: $0.owner.uplinkName != nil ? message.digest : 0, at: position)
            }
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
        let isTakenOver = record.moved.map { handOver($0, to: record.targets, at: position) } ?? false
        for i in record.targets.indices {
            let losses = losses
            let (session, delivery, qos) = (
                record.targets[i].session, record.targets[i].delivery, record.targets[i].qos
            )
            let needed = sessions.update(session) { session in
                defer { (session.lossesSeen, session.lossesPassed) = (losses, losses) }
                let entry: Books.Entry =
                    isTakenOver ? .takenOver : .arrived(afterLoss: session.lossesSeen < losses)
                return session.booking(entry) { session in
                    if let delivery, !session.queue.skip(to: delivery, at: position) { return false }
                    let here = session.flow != nil || session.sharing != nil
                    session.queue.append(
                        arrived: StoredMessage(record, to: record.targets[i]),
                        bytes: record.message.bytes.count, qos: qos, at: position,
                        budget: !session.isPersistent
                            ? .max : here ? limits.residentBytesMax : limits.residentBytesOfAbsentMax,
                        // No index has the number of what was written without one.
                        isStray: session.isPersistent && delivery == nil)
                    return session.isPersistent
                }
            }
            if needed == true { live.retain(position) }
        }
    }

    /// A message leaves its queue with the Record that brings it to another. The Record it was in may be lost, and the
    /// number unknown here: then it is as if it had come and gone.
    ///
    /// - Returns: whether it was this queue's until now; whoever takes a message that nobody had receives it.
    private mutating func handOver(
        _ moved: MessageRecord.Moved, to targets: [MessageRecord.Target], at position: Position
    ) -> Bool {
        let isWanted = targets.contains { target in
            sessions.read(target.session) { session in
                target.delivery.map { $0 >= session.queue.end } ?? true
            } == true
        }
        let entry: Books.Entry = isWanted ? .handedOver : .dropped(.damaged)
        let losses = losses
        let isMissing = sessions.update(moved.from) { session in
            guard moved.delivery >= session.queue.end else { return false }
            _ = session.goOn(at: moved.delivery, losses: losses, position)
            session.booking(entry) {
                _ = $0.queue.skip(to: Delivery(moved.delivery.number + 1), at: position)
            }
            return true
        }
        guard isMissing == false else { return isWanted && isMissing != nil }
        let queued = sessions.read(moved.from) { $0.queue.queuedCount }
        releasing(moved.from, entry) { $0.drop([moved.delivery], at: position, into: &$1) }
        return isWanted && sessions.read(moved.from) { $0.queue.queuedCount } != queued
    }

    /// The Record of a settled delivery will not be written, and so none need say that it is settled. After a power
    /// cut the number is missing, which says the same.
    mutating func elided(_ delivery: Delivery, of session: SessionID, at position: Position) {
        let wasNeeded = sessions.update(session) {
            $0.booking(.delivered) { $0.queue.elided(delivery, at: position) }
        }
        if wasNeeded == true { live.release(position) }
    }

    private mutating func restore(_ record: QueueRecord) {
        let queue = MessageQueue(record)
        let isThere: Void? = sessions.update(record.session) { session in
            session.queue = queue
            session.openBooks()
        }
        guard isThere != nil else { return }
        queue.forEachNeeded {
            live.retain($0)
        } paged: {
            live.retain(paged: $1, in: $0)
        }
    }

    /// Changes a queue and lets go of the Records it no longer needs. Only persistent Sessions hold any.
    private mutating func releasing(
        _ id: SessionID, _ entry: Books.Entry,
        _ body: (inout MessageQueue, inout MessageQueue.Released) -> Void
    ) {
        var released = MessageQueue.Released()
        let holds = sessions.update(id) { session in
            session.booking(entry) { body(&$0.queue, &released) }
            return session.isPersistent
        }
        if holds == true { release(released) }
    }

    private mutating func release(_ released: MessageQueue.Released) {
        for position in released.positions { live.release(position) }
        for page in released.paged { live.release(paged: page.count, in: page.stretch) }
    }

    /// Deliveries let go; what the queue has not been given yet takes its number and is let go at once.
    private mutating func drop(
        _ deliveries: [Delivery], of id: SessionID, _ reason: DropReason, at position: Position
    ) {
        let losses = losses
        _ = sessions.update(id) { session -> Void in
            guard let first = deliveries.first(where: { $0 >= session.queue.end }) else { return }
            _ = session.goOn(at: first, losses: losses, position)
        }
        releasing(id, .dropped(reason)) { $0.drop(deliveries, at: position, into: &$1) }
    }

    // MARK: Pages

    /// Takes note that a stretch of the log is complete and has an index: what is waiting in it in long queues is
    /// counted from now on, and no longer known one by one. Not a Record, as it changes nothing but memory: live
    /// it follows `.sealed`, and whoever recovers calls it when a stretch ends, so that a long replay needs no
    /// more memory than the gateway had.
    ///
    /// - Parameter queues: whose queues have messages in it; nil when that is not known.
    /// - Complexity: O(queues + their entries in memory)
    package mutating func seal(_ stretch: Stretch, queues: [SessionID]? = nil) {
        var counts = LiveCounts()
        swap(&counts, &live)
        let most = limits.queueEntriesMax
        for id in queues ?? sessions.keys {
            _ = sessions.update(id) { session -> Void in
                guard session.isPersistent else { return }
                let next = session.flow?.next ?? session.sharing?.next ?? session.queue.floor
                var paged = 0
                session.queue.pageOut(stretch, behind: next, keeping: most) {
                    counts.release($0)
                    paged += 1
                }
                if paged > 0 { counts.retain(paged: paged, in: stretch) }
            }
        }
        swap(&counts, &live)
    }

    /// Takes from the index of a stretch what comes next in a queue.
    ///
    /// - Parameter postings: in rising order of delivery, all of that queue in that stretch.
    mutating func pageIn(_ id: SessionID, _ stretch: Stretch, _ postings: [Posting], atMost count: Int) {
        var counts = LiveCounts()
        swap(&counts, &live)
        _ = sessions.update(id) {
            $0.queue.pageIn(postings, of: stretch, atMost: count) {
                counts.retain($0)
                counts.release(paged: 1, in: stretch)
            }
        }
        swap(&counts, &live)
    }

    // MARK: Checkpoints

    /// Hands out Records that rebuild this state when applied to an empty one, `.counters` first.
    ///
    /// - Complexity: O(state)
    package func snapshot(_ body: (Record) -> Void) {
        body(.counters(nextSession: nextSession))
        if endedBooks != Books() { body(.books(nil, endedBooks)) }
        for off in offTimes.all { body(.wasOff(off)) }
        let kept = sessionIDs.filter { !$0.isVolatile }
        // Groups first: a subscription finds its group there.
        for id in kept {
            if let session = sessions[id], session.sharing != nil { body(.sessionOpened(session.opened)) }
        }
        for id in kept {
            guard let session = sessions[id] else { continue }
            if session.sharing == nil { body(.sessionOpened(session.opened)) }
            // Before the queue, which says itself what of it was not sent.
            if let closedAt = session.closedAt {
                body(
                    .sessionClosed(
                        SessionClosed(
                            session: id, at: closedAt, expirySeconds: session.expirySeconds,
                            discardsWill: false)))
            }
            if !session.profile.isEmpty { body(.profiled(id, session.profile)) }
            // What is only here for its Will has no Record of anything else.
            if session.isPersistent {
                if !session.subscriptions.isEmpty { body(.subscribed(id, session.subscriptions.values)) }
                if session.inbound.count > 0 { body(.inboundHeld(id, session.inbound.all)) }
                let queue = session.queue.record(for: id, isAway: session.closedAt != nil)
                body(.queue(queue))
                body(.books(id, session.books(with: queue)))
            }
            if session.isEstablished { body(.uplinkEstablished(id)) }
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
            rename: target.rename, received: record.received,
            refusedIn: record.moved.flatMap { $0.refusal == nil ? nil : $0.from })
    }
}
