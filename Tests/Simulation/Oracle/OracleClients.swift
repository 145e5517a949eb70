import MQTT

// Connections, Sessions and subscriptions of clients, in their own order.
extension Oracle {
    mutating func clientSaw(_ event: PeerEvent, by peer: Int, at now: UInt64) {
        switch event {
        case .connecting(let connecting): isConnecting(connecting, peer, at: now)
        case .connected(let present, let expiry): connected(present, expiry, peer, at: now)
        case .leaving(let reason, let expiry): leaves(reason, expiry, peer, at: now)
        case .lost: lost(peer, at: now)
        case .subscribing(let requests, let identifier): subscribing(requests, identifier, peer, at: now)
        case .subscribed(let requests, let identifier, let reasons):
            subscribed(requests, identifier, reasons, peer, at: now)
        case .unsubscribing(let filters): unsubscribing(filters, peer, at: now)
        case .unsubscribed(let filters): unsubscribed(filters, peer, at: now)
        case .received(let reception): received(reception, by: peer, at: now)
        case .publishing, .accepted, .denied, .abandoned, .broken, .turnedAway, .refused, .swallowed, .forgot,
            .wentBack, .mayRepeat, .disowned:
            break
        }
    }

    // MARK: Connections

    private mutating func isConnecting(_ connecting: PeerEvent.Connecting, _ peer: Int, at now: UInt64) {
        people[peer].connection += 1
        people[peer].connecting = connecting
        people[peer].connectingAt = now
        judgeWill(peer, at: now)
        people[peer].mayHaveBegun = people[peer].mayHaveBegun || people[peer].isUnanswered
        people[peer].isUnanswered = connecting.expirySeconds > 0
        people[peer].connectingWill = nil
        if let will = connecting.will { people[peer].connectingWill = willSet(will, by: peer, at: now) }
        // From here on the Session may be gone, and what it is subscribed to with it [MQTT5-3.1.2-4].
        if connecting.cleanStart { mayEnd(peer, at: now) }
    }

    private mutating func mayEnd(_ peer: Int, at now: UInt64) {
        people[peer].lastEndedAt = now
        guard people[peer].session != nil else { return }
        people[peer].session?.mayHaveEnded = true
        people[peer].session?.endCertainty(at: now)
    }

    private mutating func connected(_ present: Bool, _ expiry: UInt32, _ peer: Int, at now: UInt64) {
        guard let connecting = people[peer].connecting else {
            return report("\(name(of: peer)) got CONNACK without CONNECT")
        }
        judgeSessionPresent(present, connecting, peer, at: now)
        settleWill(connecting, present: present, peer, at: now)
        people[peer].isUnanswered = false
        if present, people[peer].session?.isVolatile == false {
            people[peer].session?.connectedAt = now
            people[peer].session?.expirySeconds = expiry
            people[peer].session?.mayHaveEnded = false
        } else {
            if people[peer].session != nil { people[peer].lastEndedAt = now }
            people[peer].sessionCount += 1
            people[peer].session = OracleSession(
                number: people[peer].sessionCount, beganAt: people[peer].connectingAt,
                isVolatile: connecting.expirySeconds == 0, expirySeconds: expiry, connectedAt: now)
            people[peer].askedAt = [:]
        }
        people[peer].will = people[peer].connectingWill.map { message in
            WillView(
                message: message, delaySeconds: connecting.willDelaySeconds,
                connection: people[peer].connection, sentAt: people[peer].connectingAt, connectedAt: now)
        }
    }

    /// Session Present must be true [MQTT5-3.2.2-2, MQTT5-3.2.2-3, MQTT311-3.2.2-1 … 3.2.2-3].
    private mutating func judgeSessionPresent(
        _ present: Bool, _ connecting: PeerEvent.Connecting, _ peer: Int, at now: UInt64
    ) {
        guard !people[peer].isRude else { return }
        let who = name(of: peer)
        if connecting.cleanStart {
            if present { report("\(who) began anew, and is told that there is a Session") }
            return
        }
        guard let session = people[peer].session, !session.isVolatile else {
            if present, !people[peer].mayHaveBegun {
                report("\(who) is told of a Session that nobody began")
            }
            return
        }
        guard !present, !session.mayHaveEnded else { return }
        // Its time runs from the end of its connection on, of which no more is known for certain than that it came
        // after CONNACK.
        let isTooSoon =
            session.expirySeconds == .max
            || now - session.connectedAt < UInt64(session.expirySeconds) * 900_000
        if isTooSoon { report("\(who)'s Session is gone") }
    }

    private mutating func leaves(_ reason: ReasonCode, _ expiry: UInt32?, _ peer: Int, at now: UInt64) {
        if reason == .normalDisconnection { people[peer].will?.isDiscarded = true }
        if let expiry, expiry != people[peer].session?.expirySeconds { mayEnd(peer, at: now) }
    }

    private mutating func lost(_ peer: Int, at now: UInt64) {
        if people[peer].session?.isVolatile == true { mayEnd(peer, at: now) }
        if let expiry = people[peer].session?.expirySeconds, expiry != .max { people[peer].lastEndedAt = now }
    }

    // MARK: Wills

    /// A connection follows the one that set a Will: whether that was published by now, nobody tells; but without a
    /// delay, and without goodbye, it must have been when the next CONNACK comes, for that waits for it
    /// [MQTT5-3.1.2-8, MQTT5-3.1.4-3]. After a power cut those who return in time owe none.
    private mutating func settleWill(
        _ connecting: PeerEvent.Connecting, present: Bool, _ peer: Int, at now: UInt64
    ) {
        guard let will = people[peer].will, !will.isDiscarded else { return }
        let isCertain = powerCutCount(since: will.sentAt) == 0 && (will.delaySeconds == 0 || !present)
        if isCertain || will.isDue { accepted(messages[will.message].name, at: now) }
    }

    /// Who was connected when the power failed, and has not come back when all the time that it has for that is over,
    /// owes its Will (rule A10). The first CONNECT after that says how long it was away, answered or not.
    private mutating func judgeWill(_ peer: Int, at now: UInt64) {
        guard let will = people[peer].will, !will.isDiscarded, !will.isReplaced else { return }
        let patience =
            rules.returnGraceMilliseconds * 1000 + UInt64(will.delaySeconds) * 1_000_000 + 5_000_000
        let isDue = hasRunCalmly(for: patience, since: will.connectedAt, until: now)
        people[peer].will?.isDue = isDue
        people[peer].will?.isReplaced = true
    }

    // MARK: Subscriptions

    private mutating func subscribing(
        _ requests: [SubscriptionRequest], _ identifier: UInt32?, _ peer: Int, at now: UInt64
    ) {
        for request in requests {
            let filter = matching.place(ofFilter: request.filter)
            people[peer].askedAt[request.filter] = now
            if request.filter.shareName != nil {
                var group = groups[filter] ?? GroupView()
                group.since = min(group.since, now)
                groups[filter] = group
            }
            if request.filter.shareName == nil, request.retainHandling != .doNotSend {
                people[peer].session?.asked.append((filter, now, .max))
            }
            if people[peer].session?.openSubscription(filter) == nil {
                people[peer].session?.subscriptions.append(
                    OracleSubscription(
                        filter: filter, request: request, identifier: identifier, possibleFrom: now))
            }
        }
    }

    private mutating func subscribed(
        _ requests: [SubscriptionRequest], _ identifier: UInt32?, _ reasons: [ReasonCode], _ peer: Int,
        at now: UInt64
    ) {
        for (request, reason) in zip(requests, reasons) {
            let filter = matching.place(ofFilter: request.filter)
            guard let i = people[peer].session?.openSubscription(filter),
                let known = people[peer].session?.subscriptions[i],
                let askedAt = people[peer].askedAt.removeValue(forKey: request.filter)
            else { continue }
            if let n = people[peer].session?.asked.lastIndex(where: { $0.filter == filter }) {
                people[peer].session?.asked[n].until = now
            }
            if reason.isError {
                if known.certainFrom == .max { people[peer].session?.subscriptions[i].possibleUntil = now }
                continue
            }
            if reason.rawValue != request.maximumQoS.rawValue {
                report("\(name(of: peer)) is granted QoS \(reason.rawValue), and it asked for another")
            }
            if known.certainFrom == .max {
                people[peer].session?.subscriptions[i].certainFrom = now
            } else if known.certainUntil != .max {
                // It was perhaps there no more: from now on it is again.
                people[peer].session?.subscriptions[i].possibleUntil = now
                var again = OracleSubscription(
                    filter: filter, request: request, identifier: identifier, possibleFrom: askedAt)
                again.certainFrom = now
                people[peer].session?.subscriptions.append(again)
            }
            let wasThere = known.certainFrom != .max && known.certainUntil == .max
            let mayHaveBeenThere = wasThere || known.possibleFrom < askedAt
            if request.retainHandling == .sendOnSubscribe
                || request.retainHandling == .sendIfNewSubscription && !mayHaveBeenThere
            {
                expectRetained(request, filter, peer, from: askedAt, until: now)
            }
        }
    }

    private mutating func unsubscribing(_ filters: [TopicFilter], _ peer: Int, at now: UInt64) {
        for filter in filters {
            let place = matching.place(ofFilter: filter)
            guard let i = people[peer].session?.openSubscription(place),
                let until = people[peer].session?.subscriptions[i].certainUntil
            else { continue }
            people[peer].session?.subscriptions[i].certainUntil = min(until, now)
        }
    }

    private mutating func unsubscribed(_ filters: [TopicFilter], _ peer: Int, at now: UInt64) {
        for filter in filters {
            let place = matching.place(ofFilter: filter)
            guard let i = people[peer].session?.openSubscription(place) else { continue }
            people[peer].session?.subscriptions[i].possibleUntil = now
        }
    }

    // MARK: Retained messages

    /// Notes what a new subscription must bring [MQTT5-3.3.1-9], where it is certain which message is the retained one.
    private mutating func expectRetained(
        _ request: SubscriptionRequest, _ filter: Int, _ peer: Int, from askedAt: UInt64, until now: UInt64
    ) {
        guard request.filter.shareName == nil, request.maximumQoS > .atMostOnce, !people[peer].isRude,
            let session = people[peer].session?.number
        else { return }
        for topic in matching.topics.indices where matching.matches(filter: filter, topic: topic) {
            guard let list = retained[topic], let last = certainRetained(list, from: askedAt, until: now),
                !messages[last].isEmpty, messages[last].qos > .atMostOnce,
                messages[last].expirySeconds == nil, fits(messages[last], peer)
            else { continue }
            expected.append(Expectation(person: peer, session: session, message: last, since: askedAt))
        }
    }

    /// The message that was the retained one of its topic through all that time; nil when that is not certain.
    private func certainRetained(_ list: [Int], from begin: UInt64, until end: UInt64) -> Int? {
        guard let last = list.last(where: { messages[$0].isOwed && messages[$0].takenBefore < begin }) else {
            return nil
        }
        let message = messages[last]
        for i in list where i != last {
            let other = messages[i]
            // What is sent once more at QoS 1 is taken once more, behind what came after it at QoS 2 and is known.
            let staysBehind = other.qos == .exactlyOnce || other.sends == 1 || message.qos == .atLeastOnce
            let isBefore =
                other.takenBefore < message.firstSent
                || other.author == message.author && i < last && staysBehind
                    && other.takenBefore <= message.takenBefore
            let isAfter = other.firstSent > end
            let isNothing = other.isDenied && other.sends == 1
            guard isBefore || isAfter || isNothing else { return nil }
        }
        return last
    }

    /// Whether `message` was certainly no longer the retained one of its topic at `moment`.
    func isReplaced(_ message: OracleMessage, before moment: UInt64) -> Bool {
        guard let list = retained[message.topic] else { return false }
        return list.contains { i in
            let other = messages[i]
            return other.isOwed && other.firstSent > message.takenBefore && other.takenBefore < moment
        }
    }

    /// Whether a client can be sent a message of this size [MQTT5-3.1.2-25].
    func fits(_ message: OracleMessage, _ peer: Int) -> Bool {
        guard let most = rules.clients[peer].maximumPacketSize else { return true }
        return message.size + matching.topics[message.topic].count + 60 <= Int(most)
    }
}

extension OracleSession {
    /// The stretch of a subscription that is not over.
    func openSubscription(_ filter: Int) -> Int? {
        subscriptions.lastIndex { $0.filter == filter && $0.possibleUntil == .max }
    }

    /// Nothing of it is certain from now on.
    mutating func endCertainty(at now: UInt64) {
        for i in subscriptions.indices {
            subscriptions[i].certainUntil = min(subscriptions[i].certainUntil, now)
        }
    }
}
