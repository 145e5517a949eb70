import MQTT

// The end: everybody has come back, everything has had its time, and now it is counted what is missing.
extension Oracle {
    /// What the end of a run must tell the oracle beside what peers saw.
    package struct End: Sendable {
        /// What the gateway keeps as dead letters.
        package var deadLetters: [MessageName] = []
        /// Messages that a stated policy let go, and that the books count as dropped, unexpired and not refused by their
        /// receivers: so many may be missing.
        package var droppedByPolicy = 0

        package init() {}
    }

    /// - Returns: all violations, those found before and what is missing.
    /// - Complexity: O(messages · clients)
    package mutating func finish(_ end: End, at now: UInt64) -> [String] {
        for message in messages where message.isDenied && message.sends == 1 && message.isSeen {
            if !isRude(message.author) { report("\(message.name) was refused, and passed on all the same") }
        }
        var missing: [String] = []
        let deadLetters = Set(end.deadLetters)
        for i in messages.indices where isDue(messages[i], at: now) {
            let message = messages[i]
            guard let local = local(message) else { continue }
            missingAtClients(message, local, &missing)
            missingInGroups(message, local, &missing)
            missingUpwards(message, deadLetters, &missing)
        }
        missingRetained(&missing)
        if missing.count > end.droppedByPolicy {
            for words in missing.prefix(10) { report(words) }
            if missing.count > 10 || end.droppedByPolicy > 0 {
                report("\(missing.count) are missing, \(end.droppedByPolicy) were dropped by policy")
            }
        }
        return violations
    }

    /// Whether its receivers can count on it now: it was accepted, and its time is not over [MQTT5-3.3.2-5].
    private func isDue(_ message: OracleMessage, at now: UInt64) -> Bool {
        guard message.isOwed, !message.isEmpty, message.qos > .atMostOnce else { return false }
        if cloudMayBeMistaken, message.author == rules.clients.count, message.qos == .exactlyOnce {
            return false
        }
        guard let seconds = message.expirySeconds else { return true }
        return now - message.firstSent < UInt64(seconds) * 900_000
    }

    private mutating func missingAtClients(
        _ message: OracleMessage, _ local: (topic: Int, qos: QoS), _ missing: inout [String]
    ) {
        for peer in people.indices where !people[peer].isRude {
            guard let session = people[peer].session, session.copies[message.name] == nil,
                !session.isVolatile || rules.volatileQueuesAreAmple, fits(message, peer)
            else { continue }
            let isOwed = session.subscriptions.contains { subscription in
                subscription.request.filter.shareName == nil && subscription.isOwed(message)
                    && min(local.qos, subscription.request.maximumQoS) > .atMostOnce
                    && !(subscription.request.noLocal && message.author == peer)
                    && matching.known(filter: subscription.filter, topic: local.topic)
            }
            if isOwed { missing.append("\(name(of: peer)) never got \(message.name)") }
        }
    }

    /// Each message goes to a member as long as there is one whose Session lasts [MQTT5-4.8.2-4 … 4.8.2-6].
    private mutating func missingInGroups(
        _ message: OracleMessage, _ local: (topic: Int, qos: QoS), _ missing: inout [String]
    ) {
        for group in matching.filters.indices
        where matching.filters[group].shareName != nil
            && matching.matches(filter: group, topic: local.topic)
        {
            guard groups[group]?.seen.contains(message.name) != true else { continue }
            var hasSteady = false
            var mayBeGone = false
            for peer in people.indices {
                guard
                    let granted = rules.clients[peer].subscriptions.first(where: {
                        $0.request.filter == matching.filters[group]
                    })
                else { continue }
                if granted.request.maximumQoS == .atMostOnce || !fits(message, peer) || people[peer].isRude {
                    mayBeGone = true
                }
                // What was sent at QoS 2 goes with the Session of whom it was sent to.
                if min(local.qos, granted.request.maximumQoS) == .exactlyOnce,
                    let endedAt = people[peer].lastEndedAt, endedAt >= message.firstSent
                {
                    mayBeGone = true
                }
                guard let session = people[peer].session, !session.isVolatile else { continue }
                hasSteady =
                    hasSteady
                    || session.subscriptions.contains {
                        $0.filter == group && $0.isOwed(message) && $0.certainUntil == .max
                    }
            }
            if hasSteady, !mayBeGone {
                let filter = String(decoding: matching.filters[group].bytes, as: UTF8.self)
                missing.append("no member of \(filter) ever got \(message.name)")
            }
        }
    }

    private func missingUpwards(
        _ message: OracleMessage, _ deadLetters: Set<MessageName>, _ missing: inout [String]
    ) {
        guard rules.cloud != nil, let upwards = upwards(message), upwards.qos > .atMostOnce,
            !cloud.arrived.contains(message.name), !cloud.lostByItself.contains(message.name),
            !deadLetters.contains(message.name)
        else { return }
        let words = cloud.refused.contains(message.name) ? "is no dead letter" : "never came"
        missing.append("\(message.name) \(words) for the cloud")
    }

    private func missingRetained(_ missing: inout [String]) {
        for expectation in expected where !messages[expectation.message].isDisowned {
            guard let session = people[expectation.person].session, session.number == expectation.session,
                !session.isVolatile || rules.volatileQueuesAreAmple
            else { continue }
            let name = messages[expectation.message].name
            let copies = session.copies[name]
            if (copies?.lastRetainedAt ?? 0) < expectation.since {
                missing.append("\(self.name(of: expectation.person)) never got \(name) for subscribing")
            }
        }
    }
}
