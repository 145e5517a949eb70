import MQTT

// SUBSCRIBE and UNSUBSCRIBE.
extension Gateway {
    mutating func subscribe(
        _ subscribe: Subscribe, from id: ConnectionID, _ session: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        var reasons: [ReasonCode] = []
        var granted: [(request: SubscriptionRequest, isNew: Bool)] = []
        let (isBridge, treatment, qosMax) =
            connections.read(id) { ($0.isBridge, $0.treatment, $0.maximumQoS) } ?? (false, nil, .exactlyOnce)
        for request in subscribe.requests {
            var request = isBridge ? request.ofBridge : request
            request.maximumQoS = min(request.maximumQoS, qosMax)  // [MQTT5-3.2.2-10]
            if let treatment, !treatment.subscribe.allows(subscribingTo: request.filter) {
                count(\.refusedSubscriptions, of: treatment)
                reasons.append(.notAuthorized)
            } else if let refusal = refusal(of: request, by: session, alreadyGranted: granted.count) {
                reasons.append(refusal)
            } else {
                let isNew = state[session]?.subscriptions.contains(request.filter) == false
                granted.append((request, isNew))
                reasons.append(ReasonCode(rawValue: request.maximumQoS.rawValue))
            }
        }
        let suback = Packet.suback(Suback(id: subscribe.id, reasons: reasons))
        // Every SUBSCRIBE has its SUBACK [MQTT5-3.8.4-1]. One that cannot be answered is not carried out: nobody
        // would know what had come of it.
        guard isTakable(suback, by: id) else {
            return end(id, .protocolError(.packetTooLarge), at: now, into: &effects)
        }
        var position = Position.zero
        if !granted.isEmpty {
            let subscriptions = granted.map { grant in
                Subscription(
                    filter: grant.request.filter, maximumQoS: grant.request.maximumQoS,
                    noLocal: grant.request.noLocal, retainAsPublished: grant.request.retainAsPublished,
                    identifier: subscribe.subscriptionIdentifier)
            }
            for grant in granted where grant.request.filter.shareName != nil {
                prepareGroup(of: grant.request.filter, for: session, into: &effects)
            }
            position = commit(.subscribed(session, subscriptions), ifKept: session, into: &effects)
        }
        // No retained messages for a shared subscription; but others may have left messages waiting.
        let bringing = granted.filter { grant in
            switch grant.request.retainHandling {
            case _ where grant.request.filter.shareName != nil: false
            case .sendOnSubscribe: true
            case .sendIfNewSubscription: grant.isNew  // [MQTT5-3.3.1-10]
            case .doNotSend: false  // [MQTT5-3.3.1-11]
            }
        }.map(\.request)
        let brought = bringing.map {
            bringRetained($0, subscribe.subscriptionIdentifier, to: session, at: now, into: &effects)
        }
        // Whoever is told that it is subscribed does not ask again for what is retained (rule A9).
        position = brought.reduce(position) { max($0, $1.position) }
        // SUBACK before the retained messages: allowed either way, and clients read more easily so.
        promise(explained(suback, to: id), to: .client(id), after: position, at: now, into: &effects)
        for (request, brought) in zip(bringing, brought) {
            for (message, after) in brought.leading {
                lead(message, to: session, after: max(after, position), into: &effects)
            }
            sendSystemTopics(
                request, subscribe.subscriptionIdentifier, to: session, after: position, at: now,
                into: &effects)
        }
        if !granted.isEmpty { pump(session, at: now, into: &effects) }
    }

    mutating func unsubscribe(
        _ unsubscribe: Unsubscribe, from id: ConnectionID, _ session: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        var existing: [TopicFilter] = []
        let reasons = unsubscribe.filters.map { filter -> ReasonCode in
            guard state[session]?.subscriptions.contains(filter) == true else {
                return .noSubscriptionExisted
            }
            existing.append(filter)
            return .success
        }
        let unsuback = Packet.unsuback(Unsuback(id: unsubscribe.id, reasons: reasons))
        guard isTakable(unsuback, by: id) else {
            return end(id, .protocolError(.packetTooLarge), at: now, into: &effects)
        }
        // Answered once durable, also when nothing existed: an earlier UNSUBSCRIBE may still be on its way.
        var position = isPersistent(session) ? lastPromptPosition : .zero
        let groups = existing.compactMap { $0.shareName == nil ? nil : state.session(of: .group($0)) }
        for group in groups { noteLeaver(session, of: group) }
        if !existing.isEmpty {
            position = commit(.unsubscribed(session, existing), ifKept: session, into: &effects)
        }
        promise(unsuback, to: .client(id), after: position, at: now, into: &effects)
        goOn(groups, at: now, into: &effects)
    }

    private func refusal(
        of request: SubscriptionRequest, by session: SessionID, alreadyGranted: Int
    ) -> ReasonCode? {
        if TopicLevels.count(in: request.filter.pattern) > plan.limits.topicLevelsMax {
            return .topicFilterInvalid
        }
        guard let session = state[session] else { return .unspecifiedError }
        if session.subscriptions.contains(request.filter) { return nil }
        if session.subscriptions.count + alreadyGranted >= plan.limits.subscriptionsPerSessionMax {
            return .quotaExceeded
        }
        if isUnderPressure, session.isPersistent { return .quotaExceeded }
        return nil
    }

    /// What a new subscription brings its Session.
    private struct Brought {
        /// Of the last Record of them.
        var position = Position.zero
        /// At QoS 0, each behind the Record that it waits for.
        var leading: [(message: StoredMessage, after: Position)] = []
    }

    /// Puts the retained messages for a new subscription, with RETAIN 1 [MQTT311-3.3.1-8], into the Session's queue. At
    /// QoS 1 and 2 to a persistent Session each is a delivery like any other: recorded, or a power cut would lose it.
    private mutating func bringRetained(
        _ request: SubscriptionRequest, _ identifier: UInt32?, to session: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) -> Brought {
        var brought = Brought()
        for retained in state.retained.matching(request.filter) {
            let expiresAt = state.expiry(of: retained)
            if let expiresAt, expiresAt <= now { continue }
            let qos = min(retained.qos, request.maximumQoS)
            let target = MessageRecord.Target(
                session: session, qos: qos, retain: true,
                subscriptionIdentifiers: identifier.map { [$0] } ?? [])
            var record = MessageRecord(
                qos: retained.qos, message: retained.message, expiresAt: expiresAt, targets: [target]
            )
            // A QoS 2 message that is not durable yet is passed on to nobody (rule A3).
            let position = retained.qos == .exactlyOnce ? lastPromptPosition : .zero
            if qos > .atMostOnce, isPersistent(session) {
                brought.position = max(brought.position, commitMessage(&record, into: &effects))
            } else if qos > .atMostOnce {
                state.apply(.message(record), at: position)
            } else {
                brought.leading.append((StoredMessage(record, to: target), position))
            }
        }
        return brought
    }

    /// Puts a QoS 0 message before everything else its receiver is sent, as soon as it may leave.
    mutating func lead(
        _ message: StoredMessage, to session: SessionID, after position: Position,
        into effects: inout [Effect]
    ) {
        let max = plan.limits.leadingMax
        let isTaken = update(session) { session in
            guard let count = session.flow?.leading.count, count < max else { return false }
            session.flow?.leading.append((message, position))
            return true
        }
        if isTaken == false, let owner = state[session]?.owner {
            effects.append(.report(.dropped(owner: owner, .queueFull, count: 1)))
        }
    }
}

extension SubscriptionRequest {
    /// The same for a bridge that cannot ask for it: what it brought does not come back to it, lest two bridges send a
    /// message round for ever, and what is retained arrives as such, for it to retain as well.
    fileprivate var ofBridge: SubscriptionRequest {
        var request = self
        request.noLocal = filter.shareName == nil
        request.retainAsPublished = true
        return request
    }
}
