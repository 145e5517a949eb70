import MQTT

// Who is treated how: a client's profile is found at its CONNECT, and anew when the configuration changes.
extension Gateway {
    // MARK: At CONNECT

    func names(of connect: Connect, on id: ConnectionID) -> DeviceNames {
        DeviceNames(
            clientIdentifier: connect.clientIdentifier, username: connect.userName,
            certificate: connections.read(id) { $0.certificate.value } ?? nil,
            listener: connections.read(id) { $0.listener } ?? 0)
    }

    /// What a profile changes of what the client is told in CONNACK, which then holds for this connection.
    mutating func setTerms(of connect: Connect, on id: ConnectionID, _ profile: DeviceProfile) {
        let limits = plan.limits
        let listenersMax = listenerPacketBytesMax(on: id)
        _ = connections.update(id) { connection in
            connection.userName = Rare(connect.userName)
            connection.keepAliveSeconds = profile.keepAliveSeconds(for: connect.keepAliveSeconds)
            connection.inFlightMax = profile.receiveMaximum ?? limits.inFlightMax
            connection.maximumQoS = profile.maximumQoS ?? .exactlyOnce
            connection.takenBytesMax = profile.packetBytesMax.map { min($0, listenersMax) }
        }
    }

    /// Why a Will cannot be taken [MQTT5-3.2.2-12].
    func refusal(of will: Will, as treatment: Treatment) -> ReasonCode? {
        if let most = treatment.profile.maximumQoS, will.qos > most { return .qosNotSupported }
        return treatment.publish.allows(topic: will.message.topic) ? nil : .notAuthorized
    }

    /// The profile becomes that of the connection and of its Session.
    ///
    /// - Returns: the Record that says so; `.zero` when it was known.
    mutating func treat(
        _ id: ConnectionID, _ session: SessionID, as treatment: Treatment, at now: Instant,
        into effects: inout [Effect]
    ) -> Position {
        guard !profiles.isEmpty || read(session, { !$0.profile.isEmpty }) == true else { return .zero }
        let profile = profiles.all[treatment.place]
        _ = connections.update(id) { connection in
            connection.treatment = profiles.isEmpty ? nil : treatment
            connection.aspects = profiles.isEmpty ? [] : treatment.aspects
        }
        setPace(treatment.profile.rate, of: id, at: now)
        let name = profiles.durableName(of: profile)
        bind(session, to: profile.profile.queue)
        withdraw(
            treatment.subscribe.allowsEverything ? nil : treatment.subscribe, of: session,
            as: profile.profile.name, at: now, into: &effects)
        giveBackResting(of: session, at: now, into: &effects)
        guard read(session, { !$0.profile.utf8.elementsEqual(name.utf8) }) == true else { return .zero }
        return commit(.profiled(session, name), about: session, into: &effects)
    }

    // MARK: Who is away

    /// What may wait for a client from now on.
    private mutating func bind(_ session: SessionID, to bounds: QueueBounds?) {
        _ = update(session) { session in
            session.bounds = bounds
            // Nobody is refused for the sake of a Session that keeps nothing.
            if !session.isPersistent, bounds?.whenFull == .refuse { session.bounds?.whenFull = .dropNewest }
        }
    }

    /// The bounds and the rights of everybody who is away, by the profile that each had.
    ///
    /// - Complexity: O(Sessions + their subscriptions · rules)
    mutating func treatAbsent(at now: Instant, into effects: inout [Effect]) {
        for id in state.sessionIDs { treatAbsent(id, at: now, into: &effects) }
    }

    private mutating func treatAbsent(_ id: SessionID, at now: Instant, into effects: inout [Effect]) {
        let found = read(id) { session -> (client: String, profile: String)? in
            guard case .client(let client) = session.owner, session.flow == nil else { return nil }
            return (client, session.profile)
        }
        guard let (client, name) = found ?? nil else { return }
        let profile = profiles.profile(named: name)
        bind(id, to: profile.profile.queue)
        withdraw(
            profile.subscribeRights(ofAbsent: client), of: id, as: profile.profile.name, at: now,
            into: &effects)
    }

    // MARK: Another plan

    /// Finds the profile of everybody anew. What CONNACK has told a client holds until it connects again; who may not
    /// be treated as its new profile says is closed.
    ///
    /// - Complexity: O(Sessions + connections · profiles)
    mutating func retreat(at now: Instant, into effects: inout [Effect]) {
        let (before, counts) = (profiles, profileCounts)
        profiles = Profiles(plan)
        profileCounts = profiles.all.map { profile in
            before.all.first { $0.profile.name == profile.profile.name }.map { counts[$0.place] }
                ?? ProfileCounts()
        }
        treatAbsent(at: now, into: &effects)
        for id in connections.keys {
            guard let connection = connections[id], let session = connection.session else { continue }
            let names = DeviceNames(
                clientIdentifier: connection.clientIdentifier, username: connection.userName.value,
                certificate: connection.certificate.value, listener: connection.listener)
            let profile = profiles.profile(of: names)
            guard profile.refusal(of: names) == nil else {
                end(id, .protocolError(.administrativeAction), at: now, into: &effects)
                treatAbsent(session, at: now, into: &effects)
                continue
            }
            let treatment = profile.treatment(
                clientIdentifier: connection.clientIdentifier, username: connection.userName.value)
            _ = treat(id, session, as: treatment, at: now, into: &effects)
            readOn(id, at: now, into: &effects)
        }
        rewatch(at: now, into: &effects)
    }
}
