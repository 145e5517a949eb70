import MQTT

// From the accepted connection to CONNACK, and from there to its end.
extension Gateway {
    // MARK: Accepting

    mutating func accept(
        _ id: ConnectionID, listener: Int, _ certificate: CertificateNames?, at now: Instant,
        into effects: inout [Effect]
    ) {
        guard !isStopping else {
            effects.append(.close(id))
            return
        }
        connections[id] = Connection(id: id, listener: listener, phase: .awaitingConnect, lastHeardAt: now)
        if let certificate { _ = connections.update(id) { $0.certificate = Rare(certificate) } }
        schedule(.connect(id), at: now.advanced(byMilliseconds: plan.limits.connectTimeoutMilliseconds))
    }

    /// Sends one packet where it belongs.
    mutating func receive(
        _ packet: consuming Packet, from id: ConnectionID, at now: Instant, into effects: inout [Effect]
    ) {
        let known = connections.update(id) {
            connection -> (session: SessionID?, holdsNothing: Bool, watch: Int?)? in
            guard connection.phase != .closing else { return nil }
            connection.lastHeardAt = now
            return (connection.session, connection.held.isEmpty, connection.watch)
        }
        guard let connection = known ?? nil else { return }
        if let watch = connection.watch { heard(at: watch, now, into: &effects) }
        guard let session = connection.session else {
            // The decoder lets nothing but CONNECT come first [MQTT5-3.1.0-1].
            guard case .connect(let connect) = packet else {
                return end(id, .protocolError(.protocolError), at: now, into: &effects)
            }
            return self.connect(connect, on: id, at: now, into: &effects)
        }
        let makesRoom = !connection.holdsNothing && packet.mayMakeRoom
        take(packet, from: id, session, at: now, into: &effects)
        // What waits for room in the queue that was just drained need not wait for the next look at everybody.
        if makesRoom { takeHeld(of: id, at: now, into: &effects) }
    }

    private mutating func take(
        _ packet: consuming Packet, from id: ConnectionID, _ session: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        switch packet {
        case .publish(let publish): self.publish(publish, from: id, session, at: now, into: &effects)
        case .pubrel(let pubrel): release(pubrel, from: session, peer: .client(id), at: now, into: &effects)
        case .puback(let puback): acknowledged(puback, by: session, at: now, into: &effects)
        case .pubrec(let pubrec): received(pubrec, by: session, at: now, into: &effects)
        case .pubcomp(let pubcomp): completed(pubcomp, by: session, at: now, into: &effects)
        case .subscribe(let subscribe): self.subscribe(subscribe, from: id, session, at: now, into: &effects)
        case .unsubscribe(let unsubscribe):
            self.unsubscribe(unsubscribe, from: id, session, at: now, into: &effects)
        case .pingreq: answer(.pingresp, to: id, at: now, into: &effects)
        case .disconnect(let disconnect):
            self.disconnect(disconnect, from: id, session, at: now, into: &effects)
        // No authentication method was agreed on in CONNECT [MQTT5-4.12.0-7], and a second CONNECT or a packet
        // only servers send is a Protocol Error [MQTT5-3.1.0-2].
        case .auth, .connect, .connack, .suback, .unsuback, .pingresp:
            end(id, .protocolError(.protocolError), at: now, into: &effects)
        }
    }

    /// Sends an answer that promises nothing durable, yet never before CONNACK.
    mutating func answer(_ packet: Packet, to id: ConnectionID, at now: Instant, into effects: inout [Effect])
    {
        guard let connection = connections[id] else { return }
        switch connection.phase {
        case .connected: effects.append(.send(id, packet))
        case .connecting: promise(packet, to: .client(id), after: .zero, at: now, into: &effects)
        case .awaitingConnect, .closing: break
        }
    }

    // MARK: CONNECT

    private mutating func connect(
        _ connect: Connect, on id: ConnectionID, at now: Instant, into effects: inout [Effect]
    ) {
        let profile = profiles.profile(of: names(of: connect, on: id))
        _ = connections.update(id) { connection in
            connection.version = connect.version
            connection.clientIdentifier = connect.clientIdentifier
            connection.outboundAliases = TopicAliases(peerMaximum: connect.topicAliasMaximum)
            connection.packetBytesMax = connect.maximumPacketSize
            connection.wantsReasons = connect.requestProblemInformation
            connection.isBridge = connect.isBridge
        }
        setTerms(of: connect, on: id, profile.profile)
        if let most = profile.profile.packetBytesMax, connect.encodedSize > Int(most) {
            return refuse(connect, on: id, .packetTooLarge, into: &effects)
        }
        let refused = profile.refusal(of: names(of: connect, on: id))
        if let refusal = refused ?? refusal(of: connect, as: profile.profile) {
            return refuse(connect, on: id, refusal, into: &effects)
        }
        var identifier = connect.clientIdentifier
        if identifier.isEmpty {
            // [MQTT5-3.1.3-6] The connection's number is unique in this process, the end of the log across them.
            identifier = "tidegate-\(lastPosition.number)-\(id.number)"
            // A client that chose the same for itself keeps it [MQTT5-3.2.2-16].
            while state.session(of: .client(identifier: identifier)) != nil { identifier += "a" }
            _ = connections.update(id) { $0.clientIdentifier = identifier }
        }
        let treatment = profile.treatment(clientIdentifier: identifier, username: connect.userName)
        if let will = connect.will, let refusal = refusal(of: will, as: treatment) {
            return refuse(connect, on: id, refusal, into: &effects)
        }
        let expiry = expirySeconds(for: connect, as: profile.profile)
        // A client that cannot take its CONNACK cannot be served [MQTT5-3.1.2-24].
        var connack = connack(to: connect, on: id, identifier: identifier, expiry: expiry)
        guard isTakable(.connack(connack), by: connect) else {
            return refuse(connect, on: id, .packetTooLarge, into: &effects)
        }
        let owner = SessionOwner.client(identifier: identifier)
        var barrier = takeOver(owner, at: now, into: &effects)

        var present = state.session(of: owner)
        if let old = present, connect.cleanStart || !isPersistent(old) {
            // [MQTT5-3.1.2-4]; and what is not persistent is only here for its Will, from before the start.
            barrier = max(barrier, endSession(old, .cleanStart, at: now, into: &effects))
            present = nil
        } else if present == nil, let ended = endedSessions.position(of: identifier) {
            // It has ended a moment ago, and may be back after a power cut.
            barrier = max(barrier, ended)
        }
        let session =
            present ?? newSessionID(inJournal: expiry > 0 || connect.will != nil)
        let opened = SessionOpened(
            session: session, owner: owner, version: connect.version, expirySeconds: expiry,
            isPersistent: present != nil || expiry > 0, will: connect.will)
        barrier = max(barrier, commit(.sessionOpened(opened), about: session, into: &effects))
        barrier = max(barrier, treat(id, session, as: treatment, at: now, into: &effects))
        let flow = outboundFlow(for: connect, on: id, session)
        _ = update(session) { session in
            session.willDueAt = nil
            session.endsAt = nil
            session.flow = flow
        }
        _ = connections.update(id) { $0.phase = .connecting(session) }
        if let most = connections.read(id, { $0.takenBytesMax }) ?? nil {
            effects.append(.packetSize(id, atMost: most))
        }
        effects.append(
            .report(
                .connected(
                    clientIdentifier: identifier, version: connect.version, sessionPresent: present != nil)))
        connack.sessionPresent = present != nil
        promise(.connack(connack), to: .client(id), after: barrier, at: now, into: &effects)
        scheduleKeepAlive(id, from: now, at: now)
        if treatment.stateTopic != nil { watch(id, as: treatment, at: now, into: &effects) }
    }

    /// CONNACK has left: what the Session is owed may flow.
    mutating func established(_ id: ConnectionID, at now: Instant, into effects: inout [Effect]) {
        guard case .connecting(let session) = connections[id]?.phase else { return }
        _ = connections.update(id) { $0.phase = .connected(session) }
        pump(session, at: now, into: &effects)
    }

    private func refusal(of connect: Connect, as profile: DeviceProfile) -> ReasonCode? {
        // A 3.x client without an identifier cannot come back to its Session [MQTT311-3.1.3-8].
        if connect.clientIdentifier.isEmpty, connect.version < .v5_0,
            connect.version == .v3_1 || !connect.cleanStart
        {
            return .clientIdentifierNotValid
        }
        // MQTT 3.1 allows 1 to 23 characters (its section 3.1) and asks for Return Code 2 beyond. Mosquitto takes
        // longer ones, but what its tools and paho make up themselves has 22 or 23, so that only who chose a longer
        // one notices. Mosquitto's bridges, marked by a bit of their own, name themselves after host and connection.
        if connect.version == .v3_1, !connect.isBridge, connect.clientIdentifier.unicodeScalars.count > 23 {
            return .clientIdentifierNotValid
        }
        // [MQTT5-4.12.0-1]
        if connect.authenticationMethod != nil { return .badAuthenticationMethod }
        if let will = connect.will, TopicLevels.count(in: will.message.topic) > plan.limits.topicLevelsMax {
            return .topicNameInvalid
        }
        if let will = connect.will, plan.limits.validatesPayloadFormat, !will.message.payloadIsOfItsFormat {
            return .payloadFormatInvalid
        }
        if let will = connect.will, owns(will.message.topic) { return .notAuthorized }
        // A new Session that would be kept is refused while there is no room to record it (promise P4), and
        // when there are enough of them.
        if isUnderPressure || state.sessionCount >= plan.limits.sessionsMax,
            expirySeconds(for: connect, as: profile) > 0,
            state.session(of: .client(identifier: connect.clientIdentifier)) == nil
        {
            return connect.version == .v5_0 ? .quotaExceeded : .serverUnavailable
        }
        // While the disk writes nothing a CONNACK that waits for it would not come, and each new attempt would
        // leave one more Record in memory.
        if storageHasFailed, needsRecord(connect, as: profile) { return .serverUnavailable }
        if isStuck, needsRecord(connect, as: profile) {
            return connect.version == .v5_0 ? .quotaExceeded : .serverUnavailable
        }
        return nil
    }

    /// Whether serving this client begins with something that must be kept.
    private func needsRecord(_ connect: Connect, as profile: DeviceProfile) -> Bool {
        if connect.will != nil || expirySeconds(for: connect, as: profile) > 0 { return true }
        if endedSessions.position(of: connect.clientIdentifier) != nil { return true }
        return state.session(of: .client(identifier: connect.clientIdentifier)).map { !$0.isVolatile }
            ?? false
    }

    private mutating func refuse(
        _ connect: Connect, on id: ConnectionID, _ reason: ReasonCode, into effects: inout [Effect]
    ) {
        // [MQTT5-3.2.2-6]
        let connack = Packet.connack(Connack(sessionPresent: false, reason: reason))
        // Before MQTT 5 there is no word for a packet that is too large.
        if isTakable(connack, by: connect), reason != .packetTooLarge || connect.version == .v5_0 {
            effects.append(.send(id, explained(connack, to: id)))
        }
        effects.append(.close(id))
        effects.append(.report(.refused(clientIdentifier: connect.clientIdentifier, reason)))
        _ = connections.update(id) { $0.phase = .closing }
    }

    private func isTakable(_ packet: Packet, by connect: Connect) -> Bool {
        packet.fits(connect.maximumPacketSize, in: connect.version)
    }

    /// Session Expiry in seconds: absent is 0 in MQTT 5 [MQTT5-3.1.2.11.2]; before, Clean Session decides.
    private func expirySeconds(for connect: Connect, as profile: DeviceProfile) -> UInt32 {
        switch connect.version {
        case .v5_0:
            min(
                connect.sessionExpirySeconds ?? 0, profile.sessionExpirySecondsMax ?? plan.expirySecondsMax)
        case .v3_1, .v3_1_1:
            connect.cleanStart ? 0 : profile.sessionExpirySecondsBefore5 ?? plan.expirySecondsBefore5
        }
    }

    private func outboundFlow(for connect: Connect, on id: ConnectionID, _ session: SessionID) -> OutboundFlow
    {
        OutboundFlow(
            peer: .client(id), version: connect.version,
            inFlightMax: Int(
                min(connect.receiveMaximum ?? .max, connections[id]?.inFlightMax ?? plan.limits.inFlightMax)),
            packetBytesMax: connect.maximumPacketSize, maximumQoS: .exactlyOnce, retainAvailable: true,
            next: state[session]?.queue.floor ?? Delivery(0))
    }

    /// Maximum Packet Size as the client's listener has it [MQTT5-3.2.2-15].
    func listenerPacketBytesMax(on id: ConnectionID) -> UInt32 {
        guard let listener = connections[id]?.listener else { return plan.limits.packetBytesMax }
        return plan.packetBytesMaxByListener[listener] ?? plan.limits.packetBytesMax
    }

    /// CONNACK with success, which does not know yet whether there is a Session.
    private func connack(
        to connect: Connect, on id: ConnectionID, identifier: String, expiry: UInt32
    ) -> Connack {
        guard connect.version == .v5_0 else { return Connack(sessionPresent: false, reason: .success) }
        let listenersMax = listenerPacketBytesMax(on: id)
        let terms = connections.read(id) {
            ($0.inFlightMax, $0.maximumQoS, $0.takenBytesMax, $0.keepAliveSeconds)
        }
        let (inFlightMax, qosMax, bytesMax, keepAlive) =
            terms ?? (plan.limits.inFlightMax, .exactlyOnce, nil, connect.keepAliveSeconds)
        return Connack(
            sessionPresent: false, reason: .success,
            sessionExpirySeconds: expiry == connect.sessionExpirySeconds ?? 0 ? nil : expiry,
            receiveMaximum: inFlightMax,
            maximumQoS: qosMax == .exactlyOnce ? nil : qosMax,  // [MQTT5-3.2.2-9]
            maximumPacketSize: bytesMax ?? listenersMax,
            assignedClientIdentifier: connect.clientIdentifier.isEmpty ? identifier : nil,
            topicAliasMaximum: plan.limits.topicAliasMax,
            serverKeepAliveSeconds: keepAlive == connect.keepAliveSeconds ? nil : keepAlive)
    }

    /// Ends the connection its owner had [MQTT5-3.1.4-3].
    ///
    /// - Returns: the last Record that was made of it.
    private mutating func takeOver(
        _ owner: SessionOwner, at now: Instant, into effects: inout [Effect]
    ) -> Position {
        guard let session = state.session(of: owner), case .client(let old) = state[session]?.flow?.peer
        else {
            return .zero
        }
        let before = lastPosition
        end(old, .takenOver, at: now, into: &effects)
        return lastPosition > before ? lastPosition : .zero
    }

    // MARK: Keep Alive

    private mutating func scheduleKeepAlive(_ id: ConnectionID, from heard: Instant, at now: Instant) {
        guard let seconds = connections[id]?.keepAliveSeconds, seconds > 0 else { return }
        // One and a half times the Keep Alive [MQTT5-3.1.2-22].
        let due = heard.advanced(byMilliseconds: UInt64(seconds) * 1500)
        // Looked at each minute, lest deadlines of connections long gone pile up.
        schedule(.keepAlive(id), at: min(due, now.advanced(bySeconds: 60)))
    }

    mutating func checkKeepAlive(_ id: ConnectionID, at now: Instant, into effects: inout [Effect]) {
        guard let connection = connections[id], connection.session != nil else { return }
        // Whom we do not read we cannot hear.
        let heard = connection.isReadingPaused ? now : connection.lastHeardAt
        if now.milliseconds(since: heard) >= UInt64(connection.keepAliveSeconds) * 1500 {
            end(id, .keepAliveTimeout, at: now, into: &effects)
        } else {
            scheduleKeepAlive(id, from: heard, at: now)
        }
    }

    mutating func checkConnectTimeout(_ id: ConnectionID, at now: Instant, into effects: inout [Effect]) {
        guard connections[id]?.phase == .awaitingConnect else { return }
        end(id, .connectTimeout, at: now, into: &effects)
    }

    // MARK: Ending

    /// DISCONNECT from the client.
    private mutating func disconnect(
        _ disconnect: Disconnect, from id: ConnectionID, _ session: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        var expiry = state[session]?.expirySeconds ?? 0
        if let changed = disconnect.sessionExpirySeconds {
            // From 0 it cannot be changed [MQTT5-3.14.2.2.2].
            guard expiry > 0 || changed == 0 else {
                return end(id, .protocolError(.protocolError), at: now, into: &effects)
            }
            let treatment = connections.read(id) { $0.treatment } ?? nil
            expiry = min(changed, treatment?.profile.sessionExpirySecondsMax ?? plan.expirySecondsMax)
        }
        letHeldGo(of: id, at: now, into: &effects)
        stowPace(of: id, at: now)
        effects.append(.close(id))
        _ = connections.update(id) { $0.phase = .closing }
        report(id, .byClient(disconnect.reason), into: &effects)
        closeSession(
            session, expirySeconds: expiry, discardsWill: disconnect.reason == .normalDisconnection, at: now,
            into: &effects)
    }

    /// A rule of the encoding was broken. In CONNECT it is answered with CONNACK where the version has an answer:
    /// MQTT 5 with the Reason Code [MQTT5-4.13.2-1], the older ones only when the version or the Client Identifier was
    /// at fault [MQTT311-3.1.2-2, MQTT311-3.1.3-9], else they are closed without a word [MQTT311-3.1.4-1].
    mutating func refuse(
        _ error: MalformedPacket, from id: ConnectionID, in version: ProtocolVersion?, at now: Instant,
        into effects: inout [Effect]
    ) {
        if connections[id]?.phase == .awaitingConnect {
            let isAnswered =
                switch error {
                case .unsupportedProtocolVersion, .invalidClientIdentifier: true
                default: version == .v5_0
                }
            if isAnswered {
                // No Reason String: how large a packet may be is not known of a CONNECT that was not read.
                let connack = Connack(sessionPresent: false, reason: error.reasonCode)
                effects.append(.send(id, .connack(connack)))
            }
        }
        end(id, .malformed(error), at: now, into: &effects)
    }

    /// The socket is gone.
    mutating func lose(_ id: ConnectionID, at now: Instant, into effects: inout [Effect]) {
        guard let connection = connections[id] else { return }
        if let session = connection.session {
            letHeldGo(of: id, at: now, into: &effects)
            report(id, .connectionLost, into: &effects)
            closeSession(session, at: now, into: &effects)
        }
        stowPace(of: id, at: now)
        if let watch = connection.watch { watchedLeft(watch) }
        connections[id] = nil
    }

    /// Ends a connection from our side: the peer is told why where its version can be told
    /// [MQTT5-4.13.1-1, MQTT5-4.13.2-1].
    mutating func end(
        _ id: ConnectionID, _ cause: DisconnectCause, at now: Instant, into effects: inout [Effect]
    ) {
        guard let connection = connections[id], connection.phase != .closing else { return }
        switch connection.phase {
        case .connected:
            if connection.version == .v5_0, let reason = cause.reasonCode {
                let packet = Packet.disconnect(Disconnect(reason))
                effects.append(.send(id, explained(packet, to: id, because: cause.words)))
            }
        case .awaitingConnect, .connecting, .closing:
            break
        }
        letHeldGo(of: id, at: now, into: &effects)
        stowPace(of: id, at: now)
        effects.append(.close(id))
        report(id, cause, into: &effects)
        _ = connections.update(id) { $0.phase = .closing }
        if let session = connection.session { closeSession(session, at: now, into: &effects) }
    }

    private func report(_ id: ConnectionID, _ cause: DisconnectCause, into effects: inout [Effect]) {
        guard let connection = connections[id] else { return }
        effects.append(
            .report(.disconnected(clientIdentifier: connection.clientIdentifier, cause)))
    }

    // MARK: Back-pressure

    mutating func setWritable(
        _ isWritable: Bool, of id: ConnectionID, at now: Instant, into effects: inout [Effect]
    ) {
        guard let session = connections[id]?.session else { return }
        _ = update(session) { $0.flow?.isWritable = isWritable }
        if isWritable { pump(session, at: now, into: &effects) }
    }

    // MARK: Stopping

    /// The gateway goes down in good order: clients are told, Sessions stay as they are. Wills are not
    /// published: they are owed by those who have not returned some time after the next start.
    mutating func stop(at now: Instant, into effects: inout [Effect]) {
        isStopping = true
        sendUpHeldBack(at: now, into: &effects)
        recordAcknowledgements(into: &effects)
        for id in connections.keys {
            guard let connection = connections[id], connection.phase != .closing else { continue }
            // Nothing goes before CONNACK [MQTT5-3.2.0-1].
            if connection.version == .v5_0, case .connected = connection.phase {
                effects.append(.send(id, .disconnect(Disconnect(.serverShuttingDown))))
            }
            letHeldGo(of: id, at: now, into: &effects)
            effects.append(.close(id))
            report(id, .stopping, into: &effects)
            _ = connections.update(id) { $0.phase = .closing }
            if let session = connection.session { _ = update(session) { $0.flow = nil } }
        }
        closeUplinks(into: &effects)
    }
}

extension Packet {
    /// Whether it can end a delivery of its sender's own queue, or what that queue is owed.
    fileprivate var mayMakeRoom: Bool {
        switch self {
        case .puback, .pubrec, .pubcomp, .unsubscribe: true
        case .connect, .connack, .publish, .pubrel, .subscribe, .suback, .unsuback, .pingreq, .pingresp,
            .disconnect, .auth:
            false
        }
    }
}

extension DisconnectCause {
    /// What is said beside the Reason Code; nil where the code decides.
    fileprivate var words: String? {
        switch self {
        case .malformed(let error): error.description
        case .byClient, .connectionLost, .keepAliveTimeout, .takenOver, .protocolError, .connectTimeout,
            .stopping:
            nil
        }
    }

    /// What MQTT 5's DISCONNECT says; nil when there is nobody to tell.
    fileprivate var reasonCode: ReasonCode? {
        switch self {
        case .byClient, .connectionLost, .connectTimeout: nil
        case .keepAliveTimeout: .keepAliveTimeout
        case .takenOver: .sessionTakenOver
        case .malformed(let error): error.reasonCode
        case .protocolError(let reason): reason
        case .stopping: .serverShuttingDown
        }
    }
}
