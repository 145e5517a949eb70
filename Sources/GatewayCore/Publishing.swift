import MQTT

// An Application Message comes in: from a client, from the cloud, or as a Will.
extension Gateway {
    // MARK: From a client

    mutating func publish(
        _ publish: consuming Publish, from id: ConnectionID, _ session: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        let known = connections.read(id) {
            ($0.version, $0.inboundUnsettledCount, $0.inFlightMax, $0.held.isEmpty, $0.aspects)
        }
        guard let (version, unsettledCount, inFlightMax, holdsNothing, aspects) = known else { return }
        if let refusal = resolveTopicAlias(&publish, of: id) {
            return end(id, .protocolError(refusal), at: now, into: &effects)
        }
        // A QoS 2 message that was taken stays taken, whatever has changed since: refused when it is sent again, its
        // identifier would stay in use, and swallow the next message that is given it [MQTT5-4.3.3-10].
        let isKnown = isKnown(publish, from: session)
        // [MQTT5-3.3.4-7]; older versions have no such bound, they are slowed down instead.
        if version == .v5_0, publish.qos > .atMostOnce, unsettledCount >= Int(inFlightMax), !isKnown {
            return end(id, .protocolError(.receiveMaximumExceeded), at: now, into: &effects)
        }
        if isKnown {
            if aspects.contains(.rate) { slowDown(id, for: publish, at: now, into: &effects) }
        } else if !isAdmitted(&publish, aspects, version, from: id, at: now, into: &effects) {
            return
        }
        let treatment =
            aspects.isDisjoint(with: .keeping) ? nil : connections.read(id) { $0.treatment } ?? nil
        let isTaken =
            holdsNothing
            && take(
                publish, from: session, peer: .client(id), version: version, as: treatment, at: now,
                into: &effects)
        if !isTaken {
            // Honest pressure (promise P4): MQTT 5 is told, older versions wait.
            if version == .v5_0 {
                return refuse(publish, .quotaExceeded, from: id, at: now, into: &effects)
            }
            hold(publish, from: id, at: now, into: &effects)
        }
    }

    /// Whether a message may be taken, if there is room; one that may not is answered.
    private mutating func isAdmitted(
        _ publish: inout Publish, _ aspects: PublishAspects, _ version: ProtocolVersion,
        from id: ConnectionID, at now: Instant, into effects: inout [Effect]
    ) -> Bool {
        let refusal: ReasonCode? =
            if TopicLevels.count(in: publish.message.topic) > plan.limits.topicLevelsMax {
                .topicNameInvalid
            } else if plan.limits.validatesPayloadFormat, !publish.message.payloadIsOfItsFormat {
                .payloadFormatInvalid
            } else if owns(publish.message.topic), version == .v5_0, publish.qos > .atMostOnce {
                .notAuthorized
            } else {
                nil
            }
        if let refusal {
            refuse(publish, refusal, from: id, at: now, into: &effects)
            return false
        }
        return aspects.isDisjoint(with: .admission)
            || admit(&publish, aspects, from: id, at: now, into: &effects)
    }

    /// Whether it is a QoS 2 message that was taken before, sent again.
    func isKnown(_ publish: borrowing Publish, from session: SessionID) -> Bool {
        guard publish.qos == .exactlyOnce, let id = publish.id else { return false }
        return inboundPosition(of: id, from: session) != nil
    }

    /// The Record that took the QoS 2 message with this identifier; nil when none is held.
    private func inboundPosition(of id: PacketIdentifier, from session: SessionID) -> Position? {
        read(session) { $0.inbound.position(of: id) } ?? nil
    }

    /// Puts the Topic Name in place of its alias [MQTT5-3.3.2-7 … 3.3.2-12]; returns why it cannot.
    private mutating func resolveTopicAlias(_ publish: inout Publish, of id: ConnectionID) -> ReasonCode? {
        guard let alias = publish.topicAlias else { return nil }
        guard alias > 0, alias <= plan.limits.topicAliasMax else { return .topicAliasInvalid }
        let topic = publish.message.topic
        let known: [UInt8]?? = connections.update(id) { connection in
            if connection.topicAliases.isEmpty {
                connection.topicAliases = Array(repeating: nil, count: Int(plan.limits.topicAliasMax))
            }
            if !topic.isEmpty { connection.topicAliases[Int(alias) - 1] = Array(topic) }
            return connection.topicAliases[Int(alias) - 1]
        }
        guard let name = known ?? nil else { return .protocolError }
        if topic.isEmpty { publish.message = publish.message.renamed(to: name) }
        publish.topicAlias = nil
        return nil
    }

    /// Answers a PUBLISH that is not taken; before MQTT 5 there is no way to say so but to close.
    mutating func refuse(
        _ publish: Publish, _ reason: ReasonCode, from id: ConnectionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        guard connections[id]?.version == .v5_0, let packet = publish.id else {
            return end(id, .protocolError(reason), at: now, into: &effects)
        }
        _ = connections.update(id) { $0.inboundUnsettledCount += 1 }
        let answer = Acknowledgement(packet, reason)
        let refusal = publish.qos == .exactlyOnce ? Packet.pubrec(answer) : .puback(answer)
        promise(explained(refusal, to: id), to: .client(id), after: .zero, at: now, into: &effects)
    }

    /// Whether a new message can be kept for everyone it is owed to (promise P4); says for whom not.
    private mutating func hasRoom(
        for publish: Publish, _ shares: [MessageRecord.Target], at now: Instant, into effects: inout [Effect]
    ) -> Bool {
        guard publish.qos > .atMostOnce else { return true }
        if isUnderPressure { return false }
        guard hasRoomToRetain(publish) else {
            noteRetainedFull(at: now, into: &effects)
            return false
        }
        let most = plan.limits.queuedMessagesMax
        let size = publish.message.bytes.count
        let full = shares.indices.first { i in
            guard shares[i].qos > .atMostOnce else { return false }
            // Looked at, not decided inside: that would copy the Session.
            let found = read(shares[i].session) { ($0.isPersistent, $0.queue.waitingCount, $0.bounds) }
            guard let (isPersistent, count, bounds) = found else { return false }
            if isPersistent, count >= most { return true }
            guard let bounds, bounds.whenFull == .refuse else { return false }
            return read(shares[i].session) { bounds.isReached(by: $0.queue, plus: size) } == true
        }
        guard let full else { return true }
        noteFull(shares[full].session, at: now, into: &effects)
        return false
    }

    /// Whether the retained messages leave room for this one; replacing or removing one always has.
    private func hasRoomToRetain(_ publish: Publish) -> Bool {
        guard publish.retain, !publish.message.payload.isEmpty else { return true }
        return hasRoomToKeep(publish.message)
    }

    func hasRoomToKeep(_ message: ApplicationMessage) -> Bool {
        state.retained.bytes + message.bytes.count <= plan.limits.retainedBytesMax
            || state.retained[message.topic] != nil
    }

    // MARK: Taking over responsibility

    /// Makes a message ours and answers for it: PUBACK or PUBREC waits in the gate until the Record survives a
    /// power cut.
    ///
    /// - Parameters:
    ///   - treatment: of its publisher, where that says how it is kept.
    ///   - isRouted: false for a message that nobody here asked for: it is answered and goes no further.
    ///   - maximumQoS: at which it is passed on; the handshake with its publisher is at its own QoS.
    ///   - version: of the connection it came on.
    /// - Returns: false when there is no room for it: nothing has happened then.
    mutating func take(
        _ publish: Publish, from session: SessionID, peer: Peer, version: ProtocolVersion,
        as treatment: Treatment? = nil, isRouted: Bool = true, maximumQoS: QoS = .exactlyOnce,
        at now: Instant, into effects: inout [Effect]
    ) -> Bool {
        if publish.qos == .exactlyOnce, let id = publish.id,
            let taken = inboundPosition(of: id, from: session), !isRolledBack(publish, id, from: session)
        {
            // Known: answered again once its Record is durable, and taken no further [MQTT5-4.3.3-10].
            promise(.pubrec(Acknowledgement(id)), to: peer, after: taken, at: now, into: &effects)
            return true
        }
        // Nobody but the gateway itself publishes under $SYS; who cannot be told so is answered, and no more.
        var shares =
            isRouted && !owns(publish.message.topic)
            ? shares(
                of: publish.message.topic, published: min(publish.qos, maximumQoS), retain: publish.retain,
                by: session) : []
        // Not in a closure: what one can change cannot be given up below without a copy.
        var verdict: Reports.Verdict?
        if let treatment { verdict = choose(&shares, of: publish.message, as: treatment, at: now) }
        guard hasRoom(for: publish, shares, at: now, into: &effects) else { return false }
        let uplinkCount = verdict == nil && !mayBeReported ? 0 : uplinkCount(in: shares)
        if publish.qos > .atMostOnce, case .client(let id) = peer {
            _ = connections.update(id) { $0.inboundUnsettledCount += 1 }
        }
        let heldID = publish.qos == .exactlyOnce ? publish.id : nil
        // A Session that ends with a power cut needs no Record of the identifier (rule A11).
        let recordsID = heldID != nil && isPersistent(session)
        var record = MessageRecord(
            publisher: recordsID ? session : nil, inboundID: recordsID ? heldID : nil, qos: publish.qos,
            retained: isRouted ? retainedEffect(of: publish) : .none, message: publish.message,
            expiresAt: publish.messageExpirySeconds.map { now.advanced(bySeconds: $0) })
        if let treatment, keepsLastValue(of: publish, as: treatment) { record.retained = .store }
        let isShared = !shares.isEmpty
        let passing = shares.atMostOnce
        let position = keep(
            &record, for: consume shares, within: treatment?.profile.durability, at: now, into: &effects)
        if let treatment, let verdict {
            note(verdict, of: record, passing, wanted: uplinkCount, as: treatment, at: now)
            holdBack(verdict, of: publish, by: session, as: treatment, at: now)
        } else if uplinkCount > 0 {
            supersede(publish.message.topic)
        }
        if let heldID, !recordsID { _ = update(session) { $0.inbound.hold(heldID, at: position) } }
        if let id = publish.id {
            let isWanted =
                version < .v5_0 || isShared || verdict != nil || isRouted && hasOwnSubscriber(publish)
            let answer = Acknowledgement(id, isWanted ? .success : .noMatchingSubscribers)
            if publish.qos == .exactlyOnce {
                promise(.pubrec(answer), to: peer, after: position, at: now, into: &effects)
            } else {
                let ticket = promiseOrPark(
                    .puback(answer), to: peer, after: position, at: now, into: &effects)
                if let ticket { candidates.park(ticket, for: position) }
            }
        }
        // After the answer: who hears itself gets PUBREC before its own message, as from other servers.
        pass(record, to: passing, after: position, at: now, into: &effects)
        return true
    }

    /// Whether a cloud uses a Packet Identifier for another message than the one it has not released: its session is an
    /// older one than it was, as after the death of a broker that saves its state now and then. Taken for a
    /// repetition, as the specification has it [MQTT5-4.3.3-10], the new message would be lost.
    private func isRolledBack(_ publish: Publish, _ id: PacketIdentifier, from session: SessionID) -> Bool {
        let known = read(session) { $0.inbound.digest(of: id) } ?? 0
        return known != 0 && !publish.duplicate && known != publish.message.digest
    }

    /// Whether there is a subscriber after all for a message that goes to nobody: its publisher, with No Local.
    private func hasOwnSubscriber(_ publish: Publish) -> Bool {
        !owns(publish.message.topic)
            && !state.routing.shares(
                of: publish.message.topic, published: publish.qos, retain: publish.retain, by: nil
            ).isEmpty
    }

    private func retainedEffect(of publish: Publish) -> MessageRecord.RetainedEffect {
        guard publish.retain, !owns(publish.message.topic) else { return .none }
        // An empty payload removes what is there and is not kept itself [MQTT5-3.3.1-6, MQTT5-3.3.1-7].
        if publish.message.payload.isEmpty {
            return state.retained[publish.message.topic] == nil ? .none : .clear
        }
        // A retained QoS 0 message may be let go at any time [MQTT5-3.3.1-5]; with no room left it is.
        if publish.qos == .atMostOnce, isUnderPressure || !hasRoomToRetain(publish) { return .none }
        return .store
    }

    /// Makes a message everyone's it is owed to, in one Record.
    ///
    /// - Parameters:
    ///   - record: gets its targets.
    ///   - shares: given up, so that mostly they become the targets without being copied.
    ///   - window: of its publisher's profile.
    ///   - receivedAt: when it came, if not now.
    /// - Returns: the position that promises about it wait for.
    mutating func keep(
        _ record: inout MessageRecord, for shares: consuming [MessageRecord.Target],
        within window: DurabilityWindow? = nil, receivedAt: Instant? = nil, at now: Instant,
        into effects: inout [Effect]
    ) -> Position {
        record.targets = consume shares
        if tellsWhen(record.targets) { record.received = .init(at: receivedAt ?? now) }
        let areAllKept = record.targets.indices.allSatisfy { i in
            guard record.targets[i].qos > .atMostOnce,
                let (isPersistent, bounds) = read(record.targets[i].session, { ($0.isPersistent, $0.bounds) })
            else { return false }
            return isPersistent && bounds == nil
        }
        var droppedAt = Position.zero
        if !areAllKept {
            let size = record.message.bytes.count
            let targets = record.targets
            record.targets = []
            for target in targets where target.qos > .atMostOnce {
                if makesRoom(for: size, in: target.session, at: now, into: &effects) {
                    record.targets.append(target)
                } else if isPersistent(target.session) {
                    droppedAt = lastPosition
                }
            }
        }
        let urgency: Urgency =
            switch record.qos {
            case .atMostOnce: .lazy
            case .atLeastOnce:
                droppedAt == .zero && window != .latency && mayBeElided(record, at: now)
                    ? .elidable : window.urgency(else: .message)
            case .exactlyOnce: window.urgency(else: .handshake)  // rule E7
            }
        return max(commitMessage(&record, urgency, into: &effects), droppedAt)
    }

    /// Sends a message that is kept to those who are here.
    ///
    /// - Parameter passing: who gets it at QoS 0, besides its targets.
    mutating func pass(
        _ record: MessageRecord, to passing: [MessageRecord.Target], after position: Position,
        at now: Instant, into effects: inout [Effect]
    ) {
        if record.retained == .store, let expiresAt = record.expiresAt {
            scheduleRetainedExpiry(of: Array(record.message.topic), at: expiresAt)
        }
        for share in passing {
            sendAtMostOnce(
                StoredMessage(record, to: share), to: share.session, after: position, at: now, into: &effects)
        }
        for i in record.targets.indices { pump(record.targets[i].session, at: now, into: &effects) }
    }

    /// Whether a queue takes one more; a full one of a Session that keeps nothing loses the newest, counted.
    func hasVolatileRoom(for session: SessionID, into effects: inout [Effect]) -> Bool {
        let (countMax, bytesMax) = (
            plan.limits.queuedMessagesOfVolatileMax, plan.limits.queuedBytesOfVolatileMax
        )
        let full = read(session) { receiver in
            !receiver.isPersistent
                && (receiver.queue.waitingCount >= countMax || receiver.queue.residentBytes >= bytesMax)
                ? receiver.owner : nil
        }
        guard let owner = full ?? nil else { return true }
        effects.append(.report(.dropped(owner: owner, .queueFull, count: 1)))
        return false
    }

    /// A QoS 0 delivery goes to whoever is here. One that was published at QoS 2 first waits for its Record
    /// like every other forwarding of it (rule A3).
    mutating func sendAtMostOnce(
        _ message: StoredMessage, to session: SessionID, after position: Position, at now: Instant,
        into effects: inout [Effect]
    ) {
        guard
            let (flow, owner) = update(session, { session in session.flow.map { ($0, session.owner) } })
                ?? nil
        else {
            return shareAtMostOnce(message, with: session, after: position, at: now, into: &effects)
        }
        let packet = Self.packet(
            message, at: position, owner, qos: .atMostOnce, id: nil, duplicate: false, on: flow, wall,
            state.offTimes, at: now)
        guard let packet else {
            forgetReport(of: message.message.topic, to: session)
            effects.append(.report(.dropped(owner: owner, .tooLarge, count: 1)))
            return
        }
        let mustWait = message.publishedQoS == .exactlyOnce && position > gate.durable
        guard flow.isWritable, flow.bytesSent(at: now) < 8 * plan.limits.bytesPerRoundMax else {
            forgetReport(of: message.message.topic, to: session)
            effects.append(.report(.dropped(owner: owner, .queueFull, count: 1)))
            return
        }
        _ = update(session) { $0.flow?.noteSent(packet.roughSize, at: now) }
        switch flow.peer {
        case .client(let id):
            if mustWait || connections[id]?.phase == .connecting(session) {
                promise(
                    .publish(packet), to: flow.peer, after: mustWait ? position : .zero, at: now,
                    into: &effects)
            } else {
                send(packet, to: id, into: &effects)
            }
        case .uplink(let index, _):
            noteDrained(packet, of: session, index, at: now)
            noteSent(packet, to: index, at: now)
            if mustWait {
                promise(.publish(packet), to: flow.peer, after: position, at: now, into: &effects)
            } else {
                effects.append(.uplink(index, .send(.publish(packet))))
            }
        }
    }

    // MARK: QoS 2, second half

    /// PUBREL from a publisher: the identifier is free again, durably, before PUBCOMP says so (rule A4).
    mutating func release(
        _ pubrel: Acknowledgement, from session: SessionID, peer: Peer, at now: Instant,
        into effects: inout [Effect]
    ) {
        guard inboundPosition(of: pubrel.id, from: session) != nil else {
            // Perhaps released a moment ago by a Record that is not durable yet: PUBCOMP waits for everything.
            let position = isPersistent(session) ? lastPromptPosition : .zero
            let answer = Acknowledgement(pubrel.id, .packetIdentifierNotFound)
            return promise(.pubcomp(answer), to: peer, after: position, at: now, into: &effects)
        }
        var position = Position.zero
        if isPersistent(session) {
            position = commit(
                .inboundReleased(session, pubrel.id), window(of: peer).urgency(else: .handshake),
                into: &effects)
        } else {
            _ = update(session) { $0.inbound.release(pubrel.id) }
        }
        promise(.pubcomp(Acknowledgement(pubrel.id)), to: peer, after: position, at: now, into: &effects)
    }

    private func window(of peer: Peer) -> DurabilityWindow? {
        guard case .client(let id) = peer else { return nil }
        return connections.read(id) {
            $0.aspects.contains(.durability) ? $0.treatment?.profile.durability : nil
        } ?? nil
    }

    // MARK: Wills and retained messages

    /// Publishes a Session's Will and clears it there, in one Record [MQTT5-3.1.2-8, MQTT5-3.1.2-10].
    ///
    /// - Returns: the position of that Record; `.zero` when there was no Will.
    @discardableResult
    mutating func publishWill(of session: SessionID, at now: Instant, into effects: inout [Effect])
        -> Position
    {
        guard let (owner, known) = read(session, { ($0.owner, $0.will) }), let will = known else {
            return .zero
        }
        let publish = Publish(message: will.message, qos: will.qos, retain: will.retain)
        let ready = profiles.profile(named: read(session) { $0.profile } ?? "")
        let profile = ready.profile
        if case .client(let client) = owner, !ready.allowsWill(to: will.message.topic, ofAbsent: client) {
            // Cleared without being published.
            effects.append(.report(.dropped(owner: owner, .notAllowed, count: 1)))
            var record = MessageRecord(willOf: session, qos: will.qos, message: will.message)
            return commitMessage(&record, into: &effects)
        }
        let expirySeconds =
            profile.messageExpiry.map { $0.seconds(for: will.messageExpirySeconds) }
            ?? will.messageExpirySeconds
        var record = MessageRecord(
            willOf: session, qos: will.qos, retained: retainedEffect(of: publish), message: will.message,
            expiresAt: expirySeconds.map { now.advanced(bySeconds: $0) })
        var shares = shares(
            of: will.message.topic, published: will.qos, retain: will.retain, by: session)
        if profile.uplink != UplinkChoice() { lead(&shares, as: profile.uplink) }
        return keepAndPass(&record, to: shares, at: now, into: &effects)
    }

    /// A message that nobody here waits to have acknowledged becomes everyone's it is owed to.
    ///
    /// - Returns: the position of its Record; `.zero` when it needs none.
    @discardableResult
    mutating func keepAndPass(
        _ record: inout MessageRecord, to shares: [MessageRecord.Target], at now: Instant,
        into effects: inout [Effect]
    ) -> Position {
        let passing = shares.atMostOnce
        if mayBeReported, uplinkCount(in: shares) > 0 { supersede(record.message.topic) }
        let position = keep(&record, for: shares, at: now, into: &effects)
        pass(record, to: passing, after: position, at: now, into: &effects)
        return position
    }

    /// One deadline a topic is enough, however often its message is replaced.
    mutating func scheduleRetainedExpiry(of topic: [UInt8], at: Instant) {
        if let set = retainedChecks[topic], set <= at { return }
        retainedChecks[topic] = at
        schedule(.retainedExpiry(topic: topic), at: at)
    }

    /// A retained message whose time is over goes [MQTT5-3.3.2.3.3].
    mutating func checkRetained(_ topic: [UInt8], at now: Instant, into effects: inout [Effect]) {
        if let set = retainedChecks[topic], set <= now { retainedChecks[topic] = nil }
        guard let retained = state.retained[topic[...]], let expiresAt = state.expiry(of: retained) else {
            return
        }
        guard expiresAt <= now else { return scheduleRetainedExpiry(of: topic, at: expiresAt) }
        let cleared = MessageRecord(
            qos: .atMostOnce, retained: .clear,
            message: ApplicationMessage(topic: topic, payload: EmptyCollection<UInt8>()))
        _ = commit(.message(cleared), .lazy, into: &effects)
    }
}

extension [MessageRecord.Target] {
    /// Those who get it at QoS 0: mostly nobody.
    fileprivate var atMostOnce: [MessageRecord.Target] {
        indices.contains { self[$0].qos == .atMostOnce } ? filter { $0.qos == .atMostOnce } : []
    }
}

extension DurabilityWindow? {
    /// How soon what a client waits for must be durable.
    fileprivate func urgency(else usual: Urgency) -> Urgency {
        switch self {
        case .latency: .control
        case .flashSaver: .relaxed
        case .balanced, nil: usual
        }
    }
}
