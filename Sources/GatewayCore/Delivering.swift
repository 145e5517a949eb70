import MQTT

// A queue flows to its receiver: PUBLISH and PUBREL out, PUBACK, PUBREC and PUBCOMP back.
extension Gateway {
    // MARK: Sending

    /// Sends what may be sent now from a queue, and to a member of groups also what waits in theirs.
    ///
    /// - Complexity: O(deliveries sent)
    mutating func pump(_ session: SessionID, at now: Instant, into effects: inout [Effect]) {
        guard
            let (isGroup, groups, uplink) = update(
                session, { ($0.sharing != nil, $0.groups.keys, $0.sharedUplink) })
        else { return }
        guard !isGroup else { return share(session, at: now, into: &effects) }
        if let uplink { return pumpLanes(of: uplink, at: now, into: &effects) }
        flow(session, at: now, into: &effects)
        for group in groups { share(group, at: now, into: &effects) }
    }

    /// Sends what the receiver may have now: in order, as much as its Receive Maximum, its socket and the
    /// durability of each message allow.
    ///
    /// - Complexity: O(deliveries sent)
    mutating func flow(_ session: SessionID, at now: Instant, into effects: inout [Effect]) {
        guard isFlowOpen(session), mayGoOn(session, at: now),
            sendLeading(session, at: now, into: &effects)
        else { return }
        while let step = nextStep(session, at: now) {
            switch step {
            case .skip(let next):
                _ = update(session) { $0.flow?.passOver(upTo: next) }
            case .release(let id):
                resume(id, of: session, at: now, into: &effects)
                advance(session)
            case .publish(let packet, let delivery):
                _ = update(session) { $0.queue.markSent(delivery) }
                sendInRound(packet, to: session, at: now, into: &effects)
                advance(session)
                if packet.qos == .atMostOnce {
                    // A server that knows no more than QoS 0 will not answer: sent is settled.
                    _ = settleQuietly(delivery, of: session)
                    listUnrecorded(session, at: now, into: &effects)
                }
                guard mayGoOn(session, at: now) else { return }
            case .drop(let delivery, let reason):
                if reason == .tooLarge,
                    keepDeadLetter(delivery, of: session, .packetTooLarge, at: now, into: &effects)
                {
                    continue
                }
                letGo(delivery, of: session, reason, at: now, into: &effects)
            case .waitForDurable:
                waitForDurable(session)
                return
            case .confirmFloor:
                recordAcknowledgements(of: session, .handshake, into: &effects)
                waitForDurable(session)
                guard mayUseIdentifier(ofNext: session) else { return }
            case .pace(let bytes):
                guard mayDrain(bytes, of: session, at: now) else {
                    return readAhead(session, into: &effects)
                }
                _ = update(session) { $0.flow?.isGranted = true }
            case .load:
                load(session, into: &effects)
                let isThere = update(session) { $0.queue.isResident($0.flow?.next ?? $0.queue.end) }
                guard isThere == true else { return }
            case .index:
                return index(session, into: &effects)
            }
        }
        readAhead(session, into: &effects)
    }

    // MARK: One round

    /// PUBLISH to a receiver, counted towards what it may be sent before the transport is heard.
    private mutating func sendInRound(
        _ publish: Publish, to session: SessionID, at now: Instant, into effects: inout [Effect]
    ) {
        _ = update(session) { $0.flow?.noteSent(publish.roughSize, at: now) }
        emit(publish, for: session, at: now, into: &effects)
    }

    /// Whether this round has room for more; if not, the flow goes on a millisecond later. Without it a
    /// window full of large messages would be in the transport's buffer before it can say that it is full.
    private mutating func mayGoOn(_ session: SessionID, at now: Instant) -> Bool {
        guard let sent = update(session, { $0.flow?.bytesSent(at: now) }) ?? nil else { return false }
        guard sent >= plan.limits.bytesPerRoundMax else { return true }
        let isNew = update(session) { session in
            defer { session.flow?.isRationed = true }
            return session.flow?.isRationed == false
        }
        if isNew == true { schedule(.round(session), at: now.advanced(byMilliseconds: 1)) }
        return false
    }

    mutating func beginRound(_ session: SessionID, at now: Instant, into effects: inout [Effect]) {
        _ = update(session) { $0.flow?.isRationed = false }
        pump(session, at: now, into: &effects)
    }

    /// Sends the retained messages a new subscription brought at QoS 0, after its SUBACK.
    ///
    /// - Returns: false when the round is over.
    private mutating func sendLeading(
        _ session: SessionID, at now: Instant, into effects: inout [Effect]
    ) -> Bool {
        let durable = gate.durable
        while let first = update(session, { $0.flow?.leading.first }) ?? nil {
            guard first.after <= durable else {
                waitForDurable(session)
                return true
            }
            _ = update(session) { $0.flow?.leading.removeFirst() }
            guard let flow = state[session]?.flow else { return false }
            if let packet = Self.packet(
                first.message, qos: .atMostOnce, id: nil, duplicate: false, on: flow, at: now)
            {
                sendInRound(packet, to: session, at: now, into: &effects)
            } else if let owner = state[session]?.owner {
                effects.append(.report(.dropped(owner: owner, .tooLarge, count: 1)))
            }
            guard mayGoOn(session, at: now) else { return false }
        }
        return true
    }

    private enum Step {
        /// Everything before this delivery is settled.
        case skip(Delivery)
        case release(PacketIdentifier)
        case publish(Publish, Delivery)
        case drop(Delivery, DropReason)
        case waitForDurable
        case confirmFloor
        /// The drain must have room for a message of so many bytes.
        case pace(Int)
        case load
        case index
    }

    func isFlowOpen(_ session: SessionID) -> Bool {
        guard let (peer, isWritable) = read(session, { $0.flow.map { ($0.peer, $0.isWritable) } }) ?? nil
        else { return false }
        switch peer {
        case .client(let id):
            return isWritable && connections.read(id) { $0.phase == .connected(session) } == true
        case .uplink(let index, let epoch):
            let uplink = uplinks[index.number]
            return isWritable && uplink.epoch == epoch && uplink.isConnected
                && uplink.subscribesAfter == nil
        }
    }

    /// What to do about the first delivery not looked at on this connection; nil when there is nothing to do
    /// now.
    private mutating func nextStep(_ session: SessionID, at now: Instant) -> Step? {
        let durable = gate.durable
        let (spanMax, releasesMax) = (plan.limits.identifierSpan, plan.limits.unprovenReleasesMax)
        let offTimes = state.offTimes
        let wall = wall
        return update(session) {
            Self.nextStep(
                &$0, durable: durable, spanMax: spanMax, releasesMax: releasesMax, offTimes, wall, at: now)
        } ?? nil
    }

    private static func nextStep(
        _ session: inout Session, durable: Position, spanMax: UInt64, releasesMax: Int, _ offTimes: OffTimes,
        _ wall: WallClock?, at now: Instant
    ) -> Step? {
        guard let flow = session.flow else { return nil }
        let delivery = flow.next
        guard delivery >= session.queue.floor else { return .skip(session.queue.floor) }
        guard let entry = session.queue[delivery] else {
            guard delivery < session.queue.end else { return nil }
            return session.queue.gap(at: delivery).map(Step.skip) ?? .index
        }
        let id = session.identifiers.identifier(of: delivery, qos: entry.qos)
        switch entry.phase {
        case .settled:
            return .skip(session.queue.floor)
        case .received:
            if entry.isUnreadable, !session.mayReleaseUnproven(atMost: releasesMax) {
                return .drop(delivery, .damaged)
            }
            return .release(id)  // [MQTT5-4.4.0-1], and never PUBLISH again [MQTT5-4.3.3-6]
        case .waiting, .sent:
            guard flow.inFlightCount < flow.inFlightMax else { return nil }
            let span = min(spanMax, session.identifiers.span)
            guard session.queue.mayUseIdentifier(of: delivery, durable: durable, span: span) else {
                return .confirmFloor
            }
            if flow.isPaced, !flow.isGranted { return .pace(Int(entry.bytes)) }
            guard session.queue.isResident(delivery) else { return .load }
            // What was already sent at QoS 2 never expires: its handshake must end.
            let isCommitted = entry.phase == .sent && entry.qos == .exactlyOnce
            guard var message = session.queue.message(of: delivery) else {
                guard isCommitted, session.mayReleaseUnproven(atMost: releasesMax) else {
                    return .drop(delivery, .damaged)
                }
                // Its receiver may hold the identifier, and would one day take another message for this one.
                session.queue.markUnreadable(delivery)
                return .release(id)
            }
            message.expiresAt = offTimes.deadline(message.expiresAt, of: entry.position)
            if let assignment = session.queue.assignment(of: delivery) {
                // From the moment it may have been sent it is nobody else's, durably [MQTT5-4.8.2-5].
                if entry.qos == .exactlyOnce, assignment.recordedAt > durable { return .waitForDurable }
                message = session.share(message, of: assignment.group)
            }
            // QoS 2 goes to nobody before it is durable (rules A3, A5).
            if message.publishedQoS == .exactlyOnce || entry.qos == .exactlyOnce, entry.position > durable {
                return .waitForDurable
            }
            if let expiresAt = message.expiresAt, expiresAt <= now, !isCommitted {
                return .drop(delivery, .messageExpired)
            }
            if session.isWithdrawn(delivery, message.message.topic), !isCommitted {
                return .drop(delivery, .notAllowed)
            }
            let qos = min(entry.qos, flow.maximumQoS)  // [MQTT5-3.2.2-11]
            let packet = packet(
                message, as: delivery, at: entry.position, session.owner, qos: qos,
                id: qos == .atMostOnce ? nil : id, duplicate: entry.phase == .sent && qos > .atMostOnce,
                on: flow, wall, offTimes, at: now)
            guard let packet else { return .drop(delivery, .tooLarge) }
            guard session.sendsAfter <= durable else { return .waitForDurable }
            return .publish(packet, delivery)
        }
    }

    /// Whether the next delivery's identifier cannot be one that a power cut would bring back (rule A7).
    private mutating func mayUseIdentifier(ofNext session: SessionID) -> Bool {
        let durable = gate.durable
        let spanMax = plan.limits.identifierSpan
        return update(session) { session in
            let span = min(spanMax, session.identifiers.span)
            guard let next = session.flow?.next else { return false }
            return session.queue.mayUseIdentifier(of: next, durable: durable, span: span)
        } ?? false
    }

    /// PUBLISH as this receiver gets it, with its provenance where a cloud is told that and takes so much; nil when it
    /// is larger than the receiver takes [MQTT5-3.1.2-25].
    ///
    /// - Parameters:
    ///   - delivery: its number in the queue, if it is in one.
    ///   - position: of its Record.
    static func packet(
        _ stored: StoredMessage, as delivery: Delivery? = nil, at position: Position, _ owner: SessionOwner,
        qos: QoS, id: PacketIdentifier?, duplicate: Bool, on flow: OutboundFlow, _ wall: WallClock?,
        _ offTimes: OffTimes, at now: Instant
    ) -> Publish? {
        if let provenance = flow.provenance {
            let stamped = stored.stamped(
                provenance, by: owner, delivery: delivery, at: position, wall: wall, offTimes, at: now)
            if let packet = packet(stamped, qos: qos, id: id, duplicate: duplicate, on: flow, at: now) {
                return packet
            }
        }
        return packet(stored, qos: qos, id: id, duplicate: duplicate, on: flow, at: now)
    }

    /// PUBLISH as this receiver gets it; nil when it is larger than the receiver takes [MQTT5-3.1.2-25].
    static func packet(
        _ stored: StoredMessage, qos: QoS, id: PacketIdentifier?, duplicate: Bool, on flow: OutboundFlow,
        at now: Instant
    ) -> Publish? {
        var message = stored.message
        if let rename = stored.rename {
            guard let topic = rename.applied(to: message.topic) else { return nil }
            message = message.renamed(to: topic)
        }
        // The Message Expiry Interval less the time waited [MQTT5-3.3.2-6].
        let expirySeconds = stored.expiresAt.map {
            UInt32(clamping: ($0.milliseconds(since: now) + 999) / 1000)
        }
        let publish = Publish(
            message: message, qos: qos, id: id, retain: stored.retain && flow.retainAvailable,
            duplicate: duplicate, messageExpirySeconds: expirySeconds,
            subscriptionIdentifiers: stored.subscriptionIdentifiers)
        if let max = flow.packetBytesMax, publish.encodedSize(version: flow.version) > Int(max) { return nil }
        return publish
    }

    private mutating func emit(
        _ packet: Publish, for session: SessionID, at now: Instant, into effects: inout [Effect]
    ) {
        switch read(session, { $0.flow?.peer }) ?? nil {
        case .client(let id): send(packet, to: id, into: &effects)
        case .uplink(let index, _):
            noteDrained(packet, of: session, index, at: now)
            noteSent(packet, to: index, at: now)
            effects.append(.uplink(index, .send(.publish(packet))))
        case nil: break
        }
    }

    /// PUBREL on a new connection. A client's CONNACK has waited for the Record of its PUBREC; an uplink that was
    /// away only for a moment has waited for nothing (rule A6).
    private mutating func resume(
        _ id: PacketIdentifier, of session: SessionID, at now: Instant, into effects: inout [Effect]
    ) {
        guard let peer = update(session, { $0.flow?.peer }) ?? nil else { return }
        let position: Position =
            switch peer {
            case .client: .zero
            case .uplink: lastPromptPosition
            }
        promise(.pubrel(Acknowledgement(id)), to: peer, after: position, at: now, into: &effects)
    }

    private mutating func advance(_ session: SessionID) {
        _ = update(session) { $0.flow?.sentNext() }
    }

    // MARK: Reading back from flash

    /// - Parameter thereBytes: of messages that are in memory already, where more is there than what is in flight.
    mutating func load(
        _ session: SessionID, beside thereBytes: Int = 0, into effects: inout [Effect]
    ) {
        let (count, bytes) = (plan.limits.loadedAtOnceMax, plan.limits.residentBytesMax - thereBytes)
        let found = update(session) { $0.queue.positionsToLoad(atMost: count, bytes: bytes) }
        guard let (positions, group) = found, !positions.isEmpty
        else { return }
        effects.append(.load(session, positions, target: group ?? session))
    }

    /// Asks the index of the log for more of a queue that is running low in memory.
    mutating func index(_ session: SessionID, into effects: inout [Effect]) {
        let low = plan.limits.queueEntriesMax / 4
        let stretch = update(session) { session in
            session.queue.stretchToIndex(
                from: session.flow?.next ?? session.sharing?.next ?? session.queue.floor, keeping: low)
        }
        if let stretch = stretch ?? nil { effects.append(.index(session, stretch)) }
    }

    /// What the index has becomes part of the queue again, as much as memory has room for; what it should have and
    /// has not is lost, counted.
    mutating func indexed(
        _ postings: [Posting]?, of stretch: Stretch, for session: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        if replays.contains(session) {
            return replayIndexed(postings, of: stretch, for: session, at: now, into: &effects)
        }
        let isWanted = update(session) { session in
            session.queue.isIndexing = false
            return session.flow != nil || session.sharing != nil
        }
        guard isWanted == true else { return }
        // Whatever flash may say.
        var known = (postings ?? []).filter { stretch.contains($0.position) }
        if zip(known, known.dropFirst()).contains(where: { $0.delivery > $1.delivery }) {
            known.sort(by: Posting.isBefore)
        }
        let count = max(1, plan.limits.queueEntriesMax / 2)
        var missing = update(session) { $0.queue.missing(in: known, of: stretch, atMost: count) } ?? []
        let (inFlightMax, releasesMax) = (Int(plan.limits.inFlightMax), plan.limits.unprovenReleasesMax)
        let held =
            update(session) {
                $0.mayHold(missing, inFlightMax: inFlightMax, atMost: releasesMax)
            } ?? []
        if !held.isEmpty {
            missing.removeAll(where: Set(held).contains)
            // Nothing is read there: they only end their handshakes.
            known += held.map { Posting(delivery: $0, position: stretch.first, qos: .exactlyOnce, bytes: 0) }
            known.sort(by: Posting.isBefore)
        }
        if !missing.isEmpty { drop(missing, of: session, .damaged, at: now, into: &effects) }
        state.pageIn(session, stretch, known, atMost: count)
        for delivery in held { _ = update(session) { $0.queue.markUnreadable(delivery) } }
        pump(session, at: now, into: &effects)
    }

    /// Asks for more before the receiver has to wait for it.
    private mutating func readAhead(_ session: SessionID, into effects: inout [Effect]) {
        let low = plan.limits.residentBytesMax / 2
        let found = update(session) { ($0.queue.residentBytes, $0.queue.pagedCount > 0) }
        guard let (bytes, isPaged) = found else { return }
        if isPaged { index(session, into: &effects) }
        if bytes < low { load(session, beside: bytes, into: &effects) }
    }

    mutating func loaded(
        _ messages: [(Position, StoredMessage?)], for session: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        if replays.contains(session) {
            return replayLoaded(messages, for: session, at: now, into: &effects)
        }
        let budget = plan.limits.residentBytesOfAbsentMax
        let damaged = update(session) { session in
            let damaged = session.queue.loaded(messages)
            if session.flow == nil, session.sharing == nil { session.queue.trimResident(to: budget) }
            return damaged
        }
        if let damaged, !damaged.isEmpty { drop(damaged, of: session, .damaged, at: now, into: &effects) }
        pump(session, at: now, into: &effects)
    }

    // MARK: Settling

    /// PUBACK from a receiver [MQTT5-4.3.2-3].
    mutating func acknowledged(
        _ puback: Acknowledgement, by session: SessionID, at now: Instant, into effects: inout [Effect]
    ) {
        guard let (delivery, entry) = inFlight(puback.id, of: session) else { return }
        // An uplink whose server has a Maximum QoS of 1 is sent QoS 2 messages at 1.
        guard
            entry.qos == .atLeastOnce || state[session]?.flow?.maximumQoS != .exactlyOnce
                || takesCloudForQoS1(session, into: &effects)
        else { return refuseAnswer(of: session, at: now, into: &effects) }
        guard entry.phase == .sent else { return }
        if puback.reason.isError, refuseByCloud(delivery, of: session, puback.reason, at: now, into: &effects)
        {
            return
        }
        settle(delivery, of: session, puback.reason, at: now, into: &effects)
        guard !puback.reason.isError else {
            // Who refuses a message does not have it: were its Record not written, a start would count it as delivered.
            if entry.position > gate.durable { effects.append(.hasten(entry.position)) }
            return
        }
        noteAcknowledged(entry.position, by: session, into: &effects)
    }

    /// PUBREC from a receiver: durable before PUBREL leaves (rule A6).
    mutating func received(
        _ pubrec: Acknowledgement, by session: SessionID, at now: Instant, into effects: inout [Effect]
    ) {
        guard let peer = state[session]?.flow?.peer else { return }
        guard let (delivery, entry) = inFlight(pubrec.id, of: session) else {
            // An error asks for no PUBREL, whatever it is about [MQTT5-4.3.3-4].
            guard !pubrec.reason.isError else { return }
            // [MQTT5-3.6.2-1]
            let answer = Acknowledgement(pubrec.id, .packetIdentifierNotFound)
            return promise(.pubrel(answer), to: peer, after: .zero, at: now, into: &effects)
        }
        guard entry.qos == .exactlyOnce else { return refuseAnswer(of: session, at: now, into: &effects) }
        if pubrec.reason.isError {
            // The receiver will not have it; there is no second half [MQTT5-4.3.3-4].
            if refuseByCloud(delivery, of: session, pubrec.reason, at: now, into: &effects) { return }
            return settle(delivery, of: session, pubrec.reason, at: now, into: &effects)
        }
        var position = lastPromptPosition
        if entry.phase == .sent || entry.isUnreadable {
            position = commit(
                .outboundReceived(session, delivery), ifKept: session, .handshake, into: &effects)
        }
        if entry.isUnreadable { _ = update(session) { $0.unprovenReleases = 0 } }
        if !isPersistent(session) { position = .zero }
        promise(.pubrel(Acknowledgement(pubrec.id)), to: peer, after: position, at: now, into: &effects)
    }

    /// PUBCOMP from a receiver: the handshake is over [MQTT5-4.3.3-5].
    mutating func completed(
        _ pubcomp: Acknowledgement, by session: SessionID, at now: Instant, into effects: inout [Effect]
    ) {
        guard let (delivery, entry) = inFlight(pubcomp.id, of: session) else { return }
        guard entry.phase == .received else { return refuseAnswer(of: session, at: now, into: &effects) }
        guard !entry.isUnreadable else {
            // Most receivers answer the same, be it that it had come or not.
            _ = update(session) { session -> Void in
                session.flow?.inFlightCount -= 1
                session.unprovenReleases = 0
            }
            drop([delivery], of: session, .damaged, at: now, into: &effects)
            return pump(session, at: now, into: &effects)
        }
        settle(delivery, of: session, .success, at: now, into: &effects)
    }

    /// A server of before MQTT 5 has no words for a Maximum QoS. One that answers a QoS 2 message with PUBACK, as
    /// RabbitMQ does, has taken it at QoS 1: it would never answer otherwise, and everything behind it would wait for
    /// ever. From here on this connection's messages go out at QoS 1.
    ///
    /// - Returns: whether the Session is such a cloud's.
    private mutating func takesCloudForQoS1(_ session: SessionID, into effects: inout [Effect]) -> Bool {
        guard case .uplink(let index, _) = state[session]?.flow?.peer,
            uplinks[index.number].version < .v5_0
        else { return false }
        uplinks[index.number].terms?.maximumQoS = .atLeastOnce
        for lane in uplinks[index.number].lanes {
            _ = update(lane.session) { $0.flow?.maximumQoS = .atLeastOnce }
        }
        effects.append(.report(.uplinkLacksQoS2(name: plan.uplinks[index.number].name)))
        return true
    }

    /// An answer that does not belong to what was sent under its identifier: PUBACK at QoS 2, PUBREC at QoS 1, PUBCOMP
    /// before PUBREC. It is a Protocol Error [MQTT5-4.13.1-1]; ignored, the delivery would hang for as long as the
    /// connection lasts. What uplinks may answer is their ledger's concern.
    private mutating func refuseAnswer(
        of session: SessionID, at now: Instant, into effects: inout [Effect]
    ) {
        guard case .client(let id) = state[session]?.flow?.peer else { return }
        end(id, .protocolError(.protocolError), at: now, into: &effects)
    }

    /// The unsettled delivery with this identifier, if it was sent on this connection.
    private func inFlight(
        _ id: PacketIdentifier, of session: SessionID
    ) -> (Delivery, MessageQueue.Entry)? {
        guard let session = state[session], let flow = session.flow,
            let delivery = session.queue.unsettled(id, by: session.identifiers), delivery < flow.next,
            let entry = session.queue[delivery]
        else { return nil }
        return (delivery, entry)
    }

    private mutating func settle(
        _ delivery: Delivery, of session: SessionID, _ reason: ReasonCode, at now: Instant,
        into effects: inout [Effect]
    ) {
        let isNew =
            reason.isError
            ? refuse(delivery, of: session, into: &effects) : settleQuietly(delivery, of: session)
        guard isNew else { return }
        settleSource(of: delivery, session, at: now, into: &effects)
        if reason.isError, let owner = state[session]?.owner {
            effects.append(.report(.dropped(owner: owner, .refusedByReceiver, count: 1)))
        }
        listUnrecorded(session, at: now, into: &effects)
        pump(session, at: now, into: &effects)
    }

    /// - Returns: false when it was settled before.
    private mutating func settleQuietly(_ delivery: Delivery, of session: SessionID) -> Bool {
        update(session) { session in
            guard session.queue.settle(delivery) else { return false }
            session.flow?.inFlightCount -= 1
            return true
        } ?? false
    }

    /// The receiver will not have it: a Record says so, for the books.
    ///
    /// - Returns: false when it was settled before.
    private mutating func refuse(
        _ delivery: Delivery, of session: SessionID, into effects: inout [Effect]
    ) -> Bool {
        let isNew = update(session) { session in
            guard let entry = session.queue[delivery], entry.phase != .settled else { return false }
            session.flow?.inFlightCount -= 1
            return true
        }
        guard isNew == true else { return false }
        _ = commit(.dropped(session, [delivery], .refusedByReceiver), ifKept: session, .lazy, into: &effects)
        return true
    }

    mutating func drop(
        _ deliveries: [Delivery], of session: SessionID, _ reason: DropReason, _ urgency: Urgency = .lazy,
        at now: Instant, into effects: inout [Effect]
    ) {
        guard let owner = state[session]?.owner else { return }
        effects.append(.report(.dropped(owner: owner, reason, count: deliveries.count)))
        for delivery in deliveries { settleSource(of: delivery, session, at: now, into: &effects) }
        forgetReports(of: deliveries, in: session)
        _ = commit(.dropped(session, deliveries, reason), ifKept: session, urgency, into: &effects)
        listUnrecorded(session, at: now, into: &effects)
    }
}

extension Publish {
    /// Of the packet, in bytes, within a few dozen.
    var roughSize: Int { message.bytes.count + 16 }
}
