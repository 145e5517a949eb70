import HeapModule
import MQTT

/// The whole gateway as a deterministic machine without I/O: packets, completed syncs and deadlines go in,
/// packets, Records and log lines come out. It has no clock, no randomness and no thread.
///
/// The contract with its host: Records in `Effect.append` are written in order; `.storage(.durable(upTo:))`
/// is reported only after a completed sync; effects are carried out in order. Then nothing acknowledged is
/// lost, wherever the power fails.
package struct Gateway: ~Copyable {
    /// Its uplinks are in the order of `uplinks`, with those that are removed.
    package internal(set) var plan: GatewayPlan
    package internal(set) var state: DurableState
    var gate: CommitGate
    var candidates = Candidates()
    var connections = Roster<ConnectionID, Connection>()
    /// Of the plan.
    var profiles: Profiles
    /// By the place of the profile.
    package internal(set) var profileCounts: [ProfileCounts]
    /// How much clients may publish now whose profile has a rate.
    var paces = Roster<ConnectionID, Pace>()
    var formerPaces = FormerPaces()
    var uplinks: [Upstream] = []
    /// Whether any uplink has a lane for what is new.
    var hasLiveLanes = false
    /// What went up last, where profiles have reports by exception.
    var reports = Reports()
    var heldBack = HeldBack()
    var watches = Watches()
    /// Dead letters on their way back, by the Session that keeps them.
    var replays = Roster<SessionID, Replay>()
    /// Of uplinks whose cloud sends back what it is sent, by their Session.
    var echoes = Roster<SessionID, Echoes>()
    /// Position of the last Record handed to the journal.
    package private(set) var lastPosition: Position
    /// Position of the last Record that somebody waits for, and that is written: what is answered again waits for
    /// this one, for a lazy Record behind it may stay unwritten for seconds and an elidable one for ever.
    private(set) var lastPromptPosition: Position
    private(set) var deadlines = Heap<Deadline>()
    private var deadlineOrdinal: UInt64 = 0
    private var nextVolatileSession: UInt64 = SessionID.volatileBit
    private var nextUplinkEpoch: UInt64 = 1
    /// Sessions whose next delivery waits for its Record (rules A3, A5).
    private var waitingForDurable: [SessionID] = []
    /// Sessions with settled deliveries that no Record covers yet (rule A8).
    var unrecorded: [SessionID] = []
    var statistics: Statistics
    /// What the `$SYS` tree last told; empty when nobody has asked for a while.
    var systemTopics: [SystemTopic] = []
    /// nil while it is not believed.
    var wall: WallClock?
    let startedAt: Instant
    /// The last moment of the clock that is known of the time before the start.
    let stoppedAt: Instant
    /// The earliest deadline set for each retained message that expires.
    var retainedChecks: [[UInt8]: Instant] = [:]
    /// There is no room for new messages (promise P4).
    private var lacksRoom = false
    /// The disk writes nothing at present.
    private(set) var storageHasFailed = false
    /// The disk writes nothing at present, because it is full.
    private(set) var isStuck = false
    /// No new message is acknowledged, and nothing is begun that must be kept.
    var isUnderPressure: Bool { lacksRoom || storageHasFailed }
    var endedSessions = EndedSessions()
    var isRetryScheduled = false
    /// What was said to be full, and not yet to have room again.
    var fullStores = FullStores()
    /// Bytes of all PUBLISH packets of clients that wait for room.
    var heldBytes = 0
    var isStopping = false
    private let place = StaysInPlace()

    /// Starts from what recovery brought back.
    ///
    /// - Parameters:
    ///   - state: every durable Record applied, in order.
    ///   - lastPosition: position of the last of them.
    ///   - stoppedAt: the persisted clock; `now` when nil.
    ///   - now: the persisted clock and the time off that is proven already.
    package init(
        plan: GatewayPlan, state: consuming DurableState, lastPosition: Position, stoppedAt: Instant? = nil,
        now: Instant, into effects: inout [Effect]
    ) {
        self.init(
            plan: plan, state: state, lastPosition: lastPosition, stoppedAt: stoppedAt ?? now, startedAt: now)
        self.state.passOverLost()
        // First the routes: a Will that is due at once goes up too.
        openUplinks(at: now, into: &effects)
        if !profiles.isEmpty {
            treatAbsent(at: now, into: &effects)
            recoverWatches(at: now)
        }
        recoverSessions(at: now, into: &effects)
        if let interval = plan.systemTopicsMilliseconds {
            schedule(.systemTopics, at: now.advanced(byMilliseconds: interval))
        }
    }

    // Stands alone because Swift 6.2 lets no initializer both set a `let` of a ~Copyable type and call a
    // mutating method of it; 6.3 does.
    private init(
        plan: GatewayPlan, state: consuming DurableState, lastPosition: Position, stoppedAt: Instant,
        startedAt now: Instant
    ) {
        self.plan = plan
        profiles = Profiles(plan)
        profileCounts = Array(repeating: ProfileCounts(), count: profiles.all.count)
        self.state = state
        self.state.limits = plan.limits
        self.lastPosition = lastPosition
        lastPromptPosition = lastPosition
        gate = CommitGate(durable: lastPosition)
        statistics = Statistics(startedAt: now)
        self.stoppedAt = stoppedAt
        startedAt = now
    }

    /// The earliest moment at which `.deadline` must be handed in; nil when nothing is pending.
    package var nextDeadline: Instant? { deadlines.min?.at }

    package var connectionCount: Int { connections.count }

    /// Takes one input and appends what follows from it to `effects`.
    ///
    /// - Complexity: O(what the input touches); no input walks all Sessions but `.stop`, `.wasOff`, and the
    ///   deadline of the `$SYS` tree while somebody subscribes to it.
    package mutating func handle(_ input: consuming Input, at now: Instant, into effects: inout [Effect]) {
        let first = effects.count
        switch consume input {
        case .opened(let connection, let listener, let certificate):
            statistics.opened()
            accept(connection, listener: listener, certificate, at: now, into: &effects)
        case .received(let connection, let packet):
            statistics.received(packet)
            receive(packet, from: connection, at: now, into: &effects)
        case .malformed(let connection, let error, let version):
            refuse(error, from: connection, in: version, at: now, into: &effects)
        case .closed(let connection):
            lose(connection, at: now, into: &effects)
        case .writability(let connection, let isWritable):
            setWritable(isWritable, of: connection, at: now, into: &effects)
        case .storage(let event):
            stored(event, at: now, into: &effects)
        case .uplink(let index, let event):
            uplink(index, event, at: now, into: &effects)
        case .wasOff(let off):
            wasOff(off, at: now, into: &effects)
        case .wallClock(let milliseconds):
            wall = milliseconds.map { WallClock(milliseconds: $0, at: now) }
        case .reconfigured(let plan):
            reconfigure(plan, at: now, into: &effects)
        case .traffic(let received, let sent):
            statistics.carried(bytesReceived: received, bytesSent: sent)
        case .deadline:
            break
        case .stop:
            stop(at: now, into: &effects)
        }
        meetDeadlines(at: now, into: &effects)
        if plan.systemTopicsMilliseconds != nil { statistics.carriedOut(effects[first...]) }
    }

    // MARK: Changing durable state

    /// Applies a Record and hands it to the journal; returns its position, for `promise`.
    mutating func commit(_ record: Record, _ urgency: Urgency = .control, into effects: inout [Effect])
        -> Position
    {
        lastPosition = lastPosition.next
        state.apply(record, at: lastPosition)
        append(record, urgency, into: &effects)
        return lastPosition
    }

    /// Appends a Record that changes nothing, for a journal that cannot free space before something comes.
    package mutating func markTime(into effects: inout [Effect]) {
        _ = commit(.counters(nextSession: state.nextSession), .lazy, into: &effects)
    }

    /// Applies a Record that names only what leaves no trace.
    mutating func applyVolatile(_ record: Record) { state.apply(record, at: .zero) }

    /// Applies a Record about a Session: in the journal if the Session is, else in memory only.
    ///
    /// - Returns: the position to wait for; `.zero` when there is nothing to wait for.
    mutating func commit(
        _ record: Record, about session: SessionID, _ urgency: Urgency = .control,
        into effects: inout [Effect]
    ) -> Position {
        if session.isVolatile {
            applyVolatile(record)
            return .zero
        }
        return commit(record, urgency, into: &effects)
    }

    /// Applies a Record about the queue or the subscriptions of a Session: in the journal if those are kept
    /// through a power cut, else in memory only. What is there only for its Will keeps neither.
    ///
    /// - Returns: the position to wait for; `.zero` when there is nothing to wait for.
    mutating func commit(
        _ record: Record, ifKept session: SessionID, _ urgency: Urgency = .control,
        into effects: inout [Effect]
    ) -> Position {
        guard isPersistent(session) else {
            applyVolatile(record)
            return .zero
        }
        return commit(record, urgency, into: &effects)
    }

    /// Applies a message Record to everyone, and writes it if it promises anything that must survive: a
    /// persistent receiver, a retained message, a Will or a held Packet Identifier.
    ///
    /// - Parameter record: each target gets its number.
    mutating func commitMessage(
        _ record: inout MessageRecord, _ urgency: Urgency = .control, into effects: inout [Effect]
    ) -> Position {
        var lastingCount = 0
        // Written with its number, so that no lost or unwritten Record before it can change its identifier (rule A5).
        for i in record.targets.indices {
            record.targets[i].delivery = state.nextDelivery(of: record.targets[i].session)
            if record.targets[i].delivery != nil { lastingCount += 1 }
        }
        guard
            lastingCount > 0 || record.retained != .none || record.willOf != nil || record.inboundID != nil
        else {
            state.apply(record, at: .zero)
            return .zero
        }
        lastPosition = lastPosition.next
        state.apply(record, at: lastPosition)
        var written = record
        if lastingCount < written.targets.count { written.targets.removeAll { $0.delivery == nil } }
        if urgency == .elidable { addCandidate(lastPosition, written.targets) }
        append(.message(consume written), urgency, into: &effects)
        return lastPosition
    }

    private mutating func append(_ record: consuming Record, _ urgency: Urgency, into effects: inout [Effect])
    {
        switch urgency {
        case .message, .relaxed, .handshake, .control: lastPromptPosition = lastPosition
        case .lazy, .elidable: break
        }
        effects.append(.append(consume record, urgency))
    }

    func isPersistent(_ session: SessionID) -> Bool { state.isPersistent(session) }

    /// Looks at a Session without copying it: one is too large to be copied for every message.
    func read<Result>(_ session: SessionID, _ body: (borrowing Session) -> Result) -> Result? {
        state.read(session, body)
    }

    /// Changes the part of a Session that no Record covers.
    mutating func update<Result>(_ session: SessionID, _ body: (inout Session) -> Result) -> Result? {
        state.update(session, body)
    }

    // MARK: Promising

    /// Sends `packet` to `peer` once the Record at `position` survives a power cut: the only way PUBACK,
    /// PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK and CONNACK leave.
    mutating func promise(
        _ packet: Packet, to peer: Peer, after position: Position, at now: Instant,
        into effects: inout [Effect]
    ) {
        _ = promiseOrPark(packet, to: peer, after: position, at: now, into: &effects)
    }

    /// The same; returns where the packet waits, nil when it has left.
    mutating func promiseOrPark(
        _ packet: consuming Packet, to peer: Peer, after position: Position, at now: Instant,
        into effects: inout [Effect]
    ) -> CommitGate.Ticket? {
        guard gate.mustPark(for: peer, after: position) else {
            deliverPromise(consume packet, to: peer, at: now, into: &effects)
            return nil
        }
        let ticket = gate.park(consume packet, to: peer, after: position)
        if case .client(let id) = peer, gate.parkedCount(with: ticket) >= plan.limits.parkedPerConnectionMax {
            pauseReading(id, into: &effects)
        }
        return ticket
    }

    /// Lets everything go that need not wait any more.
    mutating func releasePromises(at now: Instant, into effects: inout [Effect]) {
        while let promise = gate.release() {
            let peer = promise.peer
            deliverPromise((consume promise).packet, to: peer, at: now, into: &effects)
        }
    }

    private mutating func deliverPromise(
        _ packet: consuming Packet, to peer: Peer, at now: Instant, into effects: inout [Effect]
    ) {
        switch peer {
        case .client(let id):
            let known = connections.read(id) { ($0.phase == .closing, $0.isReadingPaused) }
            guard let (isClosing, isReadingPaused) = known, !isClosing else { return }
            let (isConnack, settlesInbound) = (packet.isConnack, packet.settlesInbound)
            if case .publish(let publish) = packet {
                send(publish, to: id, into: &effects)
            } else {
                effects.append(.send(id, consume packet))
            }
            if isConnack {
                established(id, at: now, into: &effects)
            } else if settlesInbound {
                _ = connections.update(id) { $0.inboundUnsettledCount = max(0, $0.inboundUnsettledCount - 1) }
            }
            if isReadingPaused { readOn(id, at: now, into: &effects) }
        case .uplink(let index, let epoch):
            guard uplinks[index.number].epoch == epoch, uplinks[index.number].isConnected else { return }
            effects.append(.uplink(index, .send(packet)))
        }
    }

    // MARK: Storage

    private mutating func stored(_ event: StorageEvent, at now: Instant, into effects: inout [Effect]) {
        switch event {
        case .durable(let position):
            gate.advance(to: position)
            candidates.forget(through: gate.durable)
            endedSessions.forget(through: gate.durable)
            releasePromises(at: now, into: &effects)
            subscribeUplinks(at: now, into: &effects)
            let waiting = waitingForDurable
            waitingForDurable = []
            for session in waiting {
                _ = update(session) { $0.isListedWaiting = false }
                pump(session, at: now, into: &effects)
            }
        case .elided(let position):
            elided(position, at: now, into: &effects)
        case .sealed(let stretch, let queues):
            state.seal(stretch, queues: queues)
        case .indexed(let session, let stretch, let postings):
            indexed(postings, of: stretch, for: session, at: now, into: &effects)
        case .loaded(let session, let messages):
            loaded(messages, for: session, at: now, into: &effects)
        case .pressure(let lacksRoom):
            guard self.lacksRoom != lacksRoom else { return }
            self.lacksRoom = lacksRoom
            effects.append(.report(.pressure(lacksRoom)))
            if !isUnderPressure { takeHeldPackets(at: now, into: &effects) }
        case .stuck(let isStuck):
            guard self.isStuck != isStuck else { return }
            self.isStuck = isStuck
            effects.append(.report(.stuck(isStuck)))
        case .failed:
            // Nothing leaves the gate until the disk works again; QoS 0 and what is on the disk flow on.
            storageHasFailed = true
            effects.append(.report(.storageFailed))
        case .recovered:
            storageHasFailed = false
            effects.append(.report(.storageRecovered))
            if !isUnderPressure { takeHeldPackets(at: now, into: &effects) }
        }
    }

    /// Puts a Session on the list of those that go on when something becomes durable.
    mutating func waitForDurable(_ session: SessionID) {
        let isNew = update(session) { session in
            defer { session.isListedWaiting = true }
            return !session.isListedWaiting
        }
        if isNew == true { waitingForDurable.append(session) }
    }

    // MARK: Deadlines

    mutating func schedule(_ what: Deadline.What, at: Instant) {
        deadlineOrdinal += 1
        deadlines.insert(Deadline(at: at, ordinal: deadlineOrdinal, what: what))
    }

    private mutating func meetDeadlines(at now: Instant, into effects: inout [Effect]) {
        while let at = deadlines.min?.at, at <= now {
            switch deadlines.removeMin().what {
            case .connect(let id): checkConnectTimeout(id, at: now, into: &effects)
            case .keepAlive(let id): checkKeepAlive(id, at: now, into: &effects)
            case .will(let id): checkWill(id, at: now, into: &effects)
            case .sessionEnd(let id): checkSessionEnd(id, at: now, into: &effects)
            case .unrecordedAcknowledgements: recordAcknowledgements(into: &effects)
            case .retainedExpiry(let topic): checkRetained(topic, at: now, into: &effects)
            case .returnGrace: endReturnGrace(at: now, into: &effects)
            case .round(let id): beginRound(id, at: now, into: &effects)
            case .drain(let index): drain(index, at: now, into: &effects)
            case .silence(let place): checkSilence(place, at: now, into: &effects)
            case .rate(let id): checkRate(id, at: now, into: &effects)
            case .heldBack(let topic): checkHeldBack(topic, at: now, into: &effects)
            case .heldPackets:
                isRetryScheduled = false
                takeHeldPackets(at: now, into: &effects)
            case .fullStores: checkFullStores(at: now, into: &effects)
            case .systemTopics: publishSystemTopics(at: now, into: &effects)
            }
        }
    }

    // MARK: Numbers

    mutating func newSessionID(inJournal: Bool) -> SessionID {
        if inJournal { return SessionID(state.nextSession) }
        nextVolatileSession += 1
        return SessionID(nextVolatileSession)
    }

    mutating func newUplinkEpoch() -> UInt64 {
        defer { nextUplinkEpoch += 1 }
        return nextUplinkEpoch
    }
}

extension Packet {
    fileprivate var isConnack: Bool {
        if case .connack = self { true } else { false }
    }

    /// Whether this answer ends the handshake of a QoS 1 or 2 message that came in, and so gives its sender
    /// one more to send [MQTT5-4.9].
    fileprivate var settlesInbound: Bool {
        switch self {
        case .puback, .pubcomp: true
        case .pubrec(let answer): answer.reason.isError
        case .connect, .connack, .publish, .pubrel, .subscribe, .suback, .unsubscribe, .unsuback, .pingreq,
            .pingresp, .disconnect, .auth:
            false
        }
    }
}
