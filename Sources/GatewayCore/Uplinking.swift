import MQTT

/// An uplink as the core sees it: a Session like any other, whose connection is the cloud's.
struct Upstream {
    /// Of its first lane.
    let session: SessionID
    /// Tells its connections apart; 0 before the first.
    var epoch: UInt64 = 0
    var isConnected = false
    /// The configuration has it no longer: it stays away, and what waits for it stays.
    var isRemoved = false
    /// In the order in which they are pumped.
    var lanes: [Lane] = []
    /// The Topic Filters of its routes as they are in `Routing`.
    var routed: [TopicFilter] = []
    /// What the cloud allows on this connection.
    var terms: UplinkTerms?
    /// Deliveries in flight of all lanes together.
    var inFlightMax = 0
    /// How fast it may drain; nil when nothing says so.
    var bucket: TokenBucket?
    /// In this round a lane waits for the bucket.
    var isDry = false
    /// The earliest deadline that will let it go on; an earlier one may be needed when the drain becomes faster.
    var drainsAt: Instant?
    var version = ProtocolVersion.v5_0
    /// Where the Record is which says that the cloud's session is ours; nil until there is one.
    var establishedAt: Position?
    /// The routes' subscriptions go out once this position is durable, and so does the queue: a clean start
    /// after a power cut would make the cloud forget which identifiers it has completed. nil when they have.
    var subscribesAfter: Position?
    /// Messages from the cloud that there is no room for: unacknowledged, so no more than there are identifiers,
    /// and with a cloud that minds our Receive Maximum no more than that; and of their bytes no more than
    /// `Limits.heldBytesPerUplinkMax`.
    var held: [(publish: Publish, isWhole: Bool)] = []
    var heldBytes = 0
    /// There were more, which only another connection brings again: until then nothing that came behind them is taken.
    var hasLetGo = false

    mutating func hold(_ publish: Publish, isWhole: Bool, bytesMax: Int) {
        guard !hasLetGo, heldBytes < bytesMax else {
            hasLetGo = true
            return
        }
        held.append((publish, isWhole))
        heldBytes += publish.heldBytes
    }

    mutating func takeHeld() -> [(publish: Publish, isWhole: Bool)] {
        defer { (held, heldBytes, hasLetGo) = ([], 0, false) }
        return held
    }
}

// The cloud side: the uplink's queue is the bridge's outbox, and its Session survives whatever becomes of the
// cloud's.
extension Gateway {
    /// Takes up or begins the Session of every configured uplink, and asks for its connection.
    mutating func openUplinks(at now: Instant, into effects: inout [Effect]) {
        for number in plan.uplinks.indices { openUplink(UplinkIndex(number), at: now, into: &effects) }
    }

    /// The next one, as the plan has it.
    mutating func openUplink(_ index: UplinkIndex, at now: Instant, into effects: inout [Effect]) {
        let owner = SessionOwner.uplink(name: plan.uplinks[index.number].name)
        let known = state.session(of: owner)
        let session = known ?? newSessionID(inJournal: true)
        if known == nil {
            let opened = SessionOpened(
                session: session, owner: owner, version: .v5_0, expirySeconds: .max, isPersistent: true,
                will: nil)
            _ = commit(.sessionOpened(opened), into: &effects)
        }
        // A cloud session without state on our side, say after the card was replaced, must not go on
        // (DESIGN: Session Present 1 with no state).
        let isEstablished = state[session]?.isEstablished ?? false
        uplinks.append(Upstream(session: session, establishedAt: isEstablished ? gate.durable : nil))
        layLanes(of: index, at: now, into: &effects)
        for lane in uplinks[index.number].lanes {
            _ = update(lane.session) { $0.queue.assumeSent(isAway: false, span: $0.identifiers.span) }
        }
        effects.append(.uplink(index, .open(cleanStart: !isEstablished)))
    }

    mutating func uplink(
        _ index: UplinkIndex, _ event: UplinkEvent, at now: Instant, into effects: inout [Effect]
    ) {
        guard uplinks.indices.contains(index.number) else { return }
        switch event {
        case .connected(let terms): uplinkConnected(index, terms, at: now, into: &effects)
        case .disconnected: uplinkDisconnected(index, at: now, into: &effects)
        case .received(let packet):
            guard uplinks[index.number].isConnected else { return }
            uplinkReceived(packet, on: index, at: now, into: &effects)
        case .receivedTooLarge(let publish):
            guard uplinks[index.number].isConnected else { return }
            takeFromCloud(publish, isWhole: false, on: index, at: now, into: &effects)
        case .writability(let isWritable):
            for lane in uplinks[index.number].lanes {
                _ = update(lane.session) { $0.flow?.isWritable = isWritable }
            }
            if isWritable { pumpLanes(of: index, at: now, into: &effects) }
        }
    }

    private mutating func uplinkConnected(
        _ index: UplinkIndex, _ terms: UplinkTerms, at now: Instant, into effects: inout [Effect]
    ) {
        guard !isStopping, !uplinks[index.number].isRemoved else { return }
        reports.linksChanged()
        let epoch = newUplinkEpoch()
        uplinks[index.number].epoch = epoch
        uplinks[index.number].isConnected = true
        uplinks[index.number].version = terms.version
        echoes[uplinks[index.number].session] =
            terms.returnsOwnMessages ? echoes[uplinks[index.number].session] ?? Echoes() : nil
        let id = uplinks[index.number].session
        // A new message under an identifier that was void only in memory would be taken for a known one after a
        // power cut: the cloud publishes nothing before SUBSCRIBE.
        let voided = terms.sessionPresent ? .zero : forgetCloudSession(of: index, at: now, into: &effects)
        // From SUBSCRIBE on the cloud owes us messages, which another clean start would make it forget.
        let established =
            uplinks[index.number].establishedAt ?? commit(.uplinkEstablished(id), into: &effects)
        uplinks[index.number].establishedAt = established
        uplinks[index.number].subscribesAfter = max(established, voided)
        uplinks[index.number].terms = terms
        uplinks[index.number].inFlightMax = Int(min(terms.receiveMaximum, plan.limits.inFlightMax))
        openLanes(of: index)
        tellUplinkState(index, at: now, into: &effects)
        effects.append(
            .report(
                .uplinkConnected(
                    name: plan.uplinks[index.number].name, sessionPresent: terms.sessionPresent,
                    waiting: waitingCount(of: index))))
        subscribeUplinks(at: now, into: &effects)
    }

    /// Lets uplinks subscribe whose cloud session is durably known to be ours.
    mutating func subscribeUplinks(at now: Instant, into effects: inout [Effect]) {
        for number in uplinks.indices {
            guard uplinks[number].isConnected, let position = uplinks[number].subscribesAfter,
                position <= gate.durable
            else { continue }
            uplinks[number].subscribesAfter = nil
            effects.append(.uplink(UplinkIndex(number), .subscribe))
            pump(uplinks[number].session, at: now, into: &effects)
        }
    }

    /// The cloud has no session for us: identifiers of what it had published are void, what it had PUBREC'd
    /// is its own, and everything else is sent as new.
    ///
    /// - Returns: the Record that says so; `.zero` when nothing was held.
    private mutating func forgetCloudSession(
        of index: UplinkIndex, at now: Instant, into effects: inout [Effect]
    ) -> Position {
        let id = uplinks[index.number].session
        var voided = Position.zero
        if update(id, { $0.inbound.count > 0 }) == true {
            voided = commit(.inboundVoided(id), into: &effects)
        }
        for lane in uplinks[index.number].lanes { forgetSent(lane.session, at: now, into: &effects) }
        return voided
    }

    private mutating func forgetSent(_ id: SessionID, at now: Instant, into effects: inout [Effect]) {
        // There is no handshake to end any more.
        let unreadable = update(id) { $0.queue.unreadable } ?? []
        if !unreadable.isEmpty { drop(unreadable, of: id, .damaged, at: now, into: &effects) }
        let span = plan.limits.identifierSpan
        let record = update(id) { session in
            let received = session.queue.received
            for delivery in received { _ = session.queue.settle(delivery) }
            session.queue.assumeNotSent()
            session.droppableFrom = session.queue.floor
            return received.isEmpty ? nil : session.queue.acknowledgedRecord(for: id, lookingAhead: span)
        }
        if let record = record ?? nil { _ = commit(.acknowledged(record), .lazy, into: &effects) }
    }

    /// What all lanes owe the cloud.
    func waitingCount(of index: UplinkIndex) -> Int {
        uplinks[index.number].lanes.reduce(0) { sum, lane in
            sum + (read(lane.session) { $0.queue.waitingCount } ?? 0)
        }
    }

    mutating func uplinkDisconnected(
        _ index: UplinkIndex, at now: Instant, into effects: inout [Effect]
    ) {
        let upstream = uplinks[index.number]
        guard upstream.isConnected else { return }
        reports.linksChanged()
        uplinks[index.number].isConnected = false
        uplinks[index.number].terms = nil
        _ = uplinks[index.number].takeHeld()
        let budget = plan.limits.residentBytesOfAbsentMax
        for lane in upstream.lanes {
            loseFlow(of: lane.session, into: &effects)
            _ = update(lane.session) { $0.queue.trimResident(to: budget) }
        }
        tellUplinkState(index, at: now, into: &effects)
        effects.append(
            .report(
                .uplinkDisconnected(
                    name: plan.uplinks[index.number].name,
                    waiting: waitingCount(of: index))))
    }

    private mutating func uplinkReceived(
        _ packet: Packet, on index: UplinkIndex, at now: Instant, into effects: inout [Effect]
    ) {
        let upstream = uplinks[index.number]
        let peer = Peer.uplink(index, epoch: upstream.epoch)
        switch packet {
        case .publish(let publish): takeFromCloud(publish, on: index, at: now, into: &effects)
        case .pubrel(let pubrel): release(pubrel, from: upstream.session, peer: peer, at: now, into: &effects)
        case .puback(let puback):
            acknowledged(puback, by: laneSession(of: puback.id, on: index), at: now, into: &effects)
        case .pubrec(let pubrec):
            received(pubrec, by: laneSession(of: pubrec.id, on: index), at: now, into: &effects)
        case .pubcomp(let pubcomp):
            completed(pubcomp, by: laneSession(of: pubcomp.id, on: index), at: now, into: &effects)
        // The uplink keeps these to itself.
        case .connect, .connack, .subscribe, .suback, .unsubscribe, .unsuback, .pingreq, .pingresp,
            .disconnect,
            .auth:
            break
        }
    }

    /// Takes a message of the cloud, or answers it and lets it go no further, counted: one that no route asks for, one
    /// that this gateway sent itself, and one without its payload, which would only be sent again and again if nobody acknowledged it.
    private mutating func takeFromCloud(
        _ publish: Publish, isWhole: Bool = true, on index: UplinkIndex, at now: Instant,
        into effects: inout [Effect]
    ) {
        let upstream = uplinks[index.number]
        let peer = Peer.uplink(index, epoch: upstream.epoch)
        var local = publish
        local.subscriptionIdentifiers = []
        let isEcho =
            isWhole && echoes.read(upstream.session) { $0.expects(publish.message, at: now) } == true
        let isLoop = isEcho || isWhole && isOwn(publish.message)
        let route =
            isWhole && !isLoop
            ? plan.uplinks[index.number].in.first { $0.carries(publish.message.topic) } : nil
        // A topic that the route cannot name locally keeps the cloud's name rather than being lost.
        if let topic = route?.rename?.applied(to: publish.message.topic), TopicName.isValid(topic) {
            local.message = publish.message.renamed(to: topic)
        }
        if route?.carriesRetain == false { local.retain = false }
        // Our own limit is nothing the cloud could be told: such a message is passed on and not retained.
        if TopicLevels.count(in: local.message.topic) > plan.limits.topicLevelsMax { local.retain = false }
        let isKnown = publish.id.map { state[upstream.session]?.inbound.position(of: $0) != nil } ?? false
        let isTaken =
            (upstream.held.isEmpty && !upstream.hasLetGo || publish.qos == .atMostOnce)
            && take(
                local, from: upstream.session, peer: peer, version: upstream.version, isRouted: route != nil,
                maximumQoS: route?.maximumQoS ?? .exactlyOnce, at: now, into: &effects)
        guard isTaken else {
            // Not taken, so not acknowledged: the cloud still owns it.
            uplinks[index.number].hold(publish, isWhole: isWhole, bytesMax: plan.limits.heldBytesPerUplinkMax)
            return retryHeldPackets(at: now)
        }
        if isEcho, !isKnown { _ = echoes.update(upstream.session) { $0.cameBack(publish.message) } }
        if route == nil, !isKnown {
            let owner = SessionOwner.uplink(name: plan.uplinks[index.number].name)
            let reason: DropReason = isLoop ? .loop : isWhole ? .noRoute : .largerThanTaken
            effects.append(.report(.dropped(owner: owner, reason, count: 1)))
        }
    }

    mutating func takeHeldUplinkPackets(at now: Instant, into effects: inout [Effect]) {
        for number in uplinks.indices where !uplinks[number].held.isEmpty {
            let hasLetGo = uplinks[number].hasLetGo
            for (publish, isWhole) in uplinks[number].takeHeld() {
                takeFromCloud(publish, isWhole: isWhole, on: UplinkIndex(number), at: now, into: &effects)
            }
            guard hasLetGo else { continue }
            uplinks[number].hasLetGo = true
            if uplinks[number].held.isEmpty { effects.append(.uplink(UplinkIndex(number), .reconnect)) }
        }
    }

    mutating func closeUplinks(into effects: inout [Effect]) {
        for (number, upstream) in uplinks.enumerated() {
            uplinks[number].isConnected = false
            for lane in upstream.lanes { _ = update(lane.session) { $0.flow = nil } }
            effects.append(.uplink(UplinkIndex(number), .close))
        }
    }
}
