import MQTT

/// What a Session's profile does not allow it any more.
final class Withdrawal: Sendable {
    /// Subscriptions of the Session that nothing comes by.
    let filters: Set<TopicFilter>
    let rights: RightsInForce
    /// What was queued before this one may have come under other rights.
    let before: Delivery

    init(filters: Set<TopicFilter>, rights: RightsInForce, before: Delivery) {
        self.filters = filters
        self.rights = rights
        self.before = before
    }
}

// Rights are looked at when a packet comes, and anew when they have changed: with the configuration, or because a client
// comes back and another profile fits.
//
// MQTT has no word by which a server ends a subscription, and a client that finds its Session present does not subscribe
// again. So one that is not allowed any more rests: it stays in the Session, and nothing comes by it until it is allowed
// again. A slip in a file that is put right costs nobody a subscription. What was queued meanwhile under other rights is
// looked at before it is sent, and let go, counted, where its topic is not allowed.
//
// None of it is in the journal: it follows from the subscriptions, the profile's name and the configuration.
extension Gateway {
    /// Lets the subscriptions of a Session rest that its profile does not allow, and wakes those that it does.
    ///
    /// - Parameters:
    ///   - rights: nil where everything is allowed, or it is not known what is.
    ///   - profile: that says so.
    /// - Complexity: O(subscriptions · rules) where there are rights, else O(1)
    mutating func withdraw(
        _ rights: RightsInForce?, of session: SessionID, as profile: String, at now: Instant,
        into effects: inout [Effect]
    ) {
        let before = read(session) { $0.withdrawal } ?? nil
        guard rights != nil || before != nil else { return }
        let resting = rights.map { restingFilters(of: session, without: $0) } ?? []
        _ = update(session) { session in
            let waits = session.queue.floor < session.queue.end
            session.withdrawal = rights.flatMap {
                resting.isEmpty && !waits
                    ? nil : Withdrawal(filters: resting, rights: $0, before: session.queue.end)
            }
        }
        let (newCount, isAnyAwake) = reroute(session, from: before?.filters ?? [], to: resting)
        if let rights { dropLeading(of: session, without: rights, into: &effects) }
        if newCount > 0, case .client(let identifier) = state[session]?.owner {
            effects.append(
                .report(
                    .subscriptionsRest(clientIdentifier: identifier, profile: profile, count: newCount)))
        }
        if isAnyAwake { pump(session, at: now, into: &effects) }
    }

    private func restingFilters(of session: SessionID, without rights: RightsInForce) -> Set<TopicFilter> {
        let filters = read(session) { $0.subscriptions.keys } ?? []
        return Set(filters.filter { !rights.allows(subscribingTo: $0) })
    }

    /// Leads messages past the subscriptions that rest now, and to those that did and do not any more.
    ///
    /// - Returns: how many rest that did not, and whether any is awake that was not.
    private mutating func reroute(
        _ session: SessionID, from before: Set<TopicFilter>, to resting: Set<TopicFilter>
    ) -> (newCount: Int, isAnyAwake: Bool) {
        var (newCount, isAnyAwake) = (0, false)
        for subscription in read(session, { $0.subscriptions.values }) ?? [] {
            let rests = resting.contains(subscription.filter)
            guard before.contains(subscription.filter) != rests else { continue }
            if rests { newCount += 1 } else { isAnyAwake = true }
            // Of a shared one it is the member that is passed over.
            guard subscription.filter.shareName == nil else { continue }
            if rests {
                state.routing.remove(session, filter: subscription.filter)
            } else {
                state.routing.insert(
                    Routing.Subscriber(session: session, subscription), filter: subscription.filter)
            }
        }
        return (newCount, isAnyAwake)
    }

    /// Retained messages on their way to a new subscription.
    private mutating func dropLeading(
        of session: SessionID, without rights: RightsInForce, into effects: inout [Effect]
    ) {
        let found = update(session) { session in
            let count = session.flow?.leading.count ?? 0
            session.flow?.leading.removeAll { !rights.allows(topic: $0.message.message.topic) }
            return (session.owner, count - (session.flow?.leading.count ?? 0))
        }
        guard let (owner, count) = found, count > 0 else { return }
        effects.append(.report(.dropped(owner: owner, .notAllowed, count: count)))
    }

    /// What groups have assigned to a member that is not allowed it any more, others may have. Only while it is not sent
    /// to: its client has just come back.
    mutating func giveBackResting(
        of session: SessionID, at now: Instant, into effects: inout [Effect]
    ) {
        let found = read(session) { session -> [SessionID]? in
            guard session.flow == nil, let withdrawal = session.withdrawal else { return nil }
            return session.groups.keys.filter {
                session.groups[$0].map(withdrawal.filters.contains) == true
            }
        }
        guard let groups = found ?? nil, !groups.isEmpty else { return }
        goOn(giveBack(of: session, to: groups, at: now, into: &effects), at: now, into: &effects)
    }
}

extension Session {
    var restingCount: Int {
        guard let filters = withdrawal?.filters else { return 0 }
        return subscriptions.keys.count { filters.contains($0) }
    }

    /// Whether a group passes this member over.
    func rests(in group: SessionID) -> Bool {
        guard let withdrawal, let filter = groups[group] else { return false }
        return withdrawal.filters.contains(filter)
    }

    /// Whether a delivery must not be sent, because its topic is not allowed any more.
    func isWithdrawn(_ delivery: Delivery, _ topic: ArraySlice<UInt8>) -> Bool {
        guard let withdrawal, delivery < withdrawal.before else { return false }
        return !withdrawal.rights.allows(topic: topic)
    }
}
