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
        // No retained messages for a shared subscription.
        let bringing = granted.filter { grant in
            switch grant.request.retainHandling {
            case _ where grant.request.filter.shareName != nil: false
            case .sendOnSubscribe: true
            case .sendIfNewSubscription: grant.isNew  // [MQTT5-3.3.1-10]
            case .doNotSend: false  // [MQTT5-3.3.1-11]
            }
        }.map(\.request)
        let identifier = subscribe.subscriptionIdentifier
        var position = Position.zero
        if !granted.isEmpty {
            let subscriptions = granted.map { grant in
                Subscription(
                    filter: grant.request.filter, maximumQoS: grant.request.maximumQoS,
                    noLocal: grant.request.noLocal, retainAsPublished: grant.request.retainAsPublished,
                    identifier: identifier)
            }
            for grant in granted where grant.request.filter.shareName != nil {
                prepareGroup(of: grant.request.filter, for: session, into: &effects)
            }
            // Before the subscription: whoever has that does not ask again, or only for what is new (rule A9).
            for request in bringing {
                keepRetained(request, identifier, for: session, at: now, into: &effects)
            }
            position = commit(.subscribed(session, subscriptions), ifKept: session, into: &effects)
        }
        promise(explained(suback, to: id), to: .client(id), after: position, at: now, into: &effects)
        // At QoS 0 behind SUBACK: allowed either way, and clients read more easily so.
        for request in bringing {
            leadRetained(request, identifier, to: session, after: position, at: now, into: &effects)
            sendSystemTopics(request, identifier, to: session, after: position, at: now, into: &effects)
        }
        // Others of a group may have left messages waiting, too.
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

    /// Puts the retained messages for a new subscription, with RETAIN 1 [MQTT311-3.3.1-8], into the Session's queue. At
    /// QoS 1 and 2 to a persistent Session each is a delivery like any other: recorded, or a power cut would lose it.
    private mutating func keepRetained(
        _ request: SubscriptionRequest, _ identifier: UInt32?, for session: SessionID, at now: Instant,
        into effects: inout [Effect]
    ) {
        for retained in state.retained.matching(request.filter) {
            guard min(retained.qos, request.maximumQoS) > .atMostOnce,
                let (copy, _) = copy(of: retained, for: request, identifier, session, at: now)
            else { continue }
            if isPersistent(session) {
                var record = copy
                _ = commitMessage(&record, into: &effects)
            } else {
                state.apply(.message(copy), at: whenPassedOn(retained))
            }
        }
    }

    /// Sends those at QoS 0.
    ///
    /// - Parameter suback: the Record SUBACK waits for.
    private mutating func leadRetained(
        _ request: SubscriptionRequest, _ identifier: UInt32?, to session: SessionID, after suback: Position,
        at now: Instant, into effects: inout [Effect]
    ) {
        for retained in state.retained.matching(request.filter) {
            guard min(retained.qos, request.maximumQoS) == .atMostOnce,
                let (record, target) = copy(of: retained, for: request, identifier, session, at: now)
            else { continue }
            lead(
                StoredMessage(record, to: target), to: session, after: max(whenPassedOn(retained), suback),
                into: &effects)
        }
    }

    /// A QoS 2 message that is not durable yet is passed on to nobody (rule A3).
    private func whenPassedOn(_ retained: RetainedRecord) -> Position {
        retained.qos == .exactlyOnce ? lastPromptPosition : .zero
    }

    /// What a Session gets of a retained message for its subscription; nil once that has expired.
    private func copy(
        of retained: RetainedRecord, for request: SubscriptionRequest, _ identifier: UInt32?,
        _ session: SessionID, at now: Instant
    ) -> (record: MessageRecord, target: MessageRecord.Target)? {
        let expiresAt = state.expiry(of: retained)
        if let expiresAt, expiresAt <= now { return nil }
        let target = MessageRecord.Target(
            session: session, qos: min(retained.qos, request.maximumQoS), retain: true,
            subscriptionIdentifiers: identifier.map { [$0] } ?? [])
        let record = MessageRecord(
            qos: retained.qos, message: retained.message, expiresAt: expiresAt, targets: [target])
        return (record, target)
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
