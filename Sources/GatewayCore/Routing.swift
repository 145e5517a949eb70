import MQTT

/// Who gets what is published: the subscriptions of all Sessions and the `out` routes of all uplinks.
struct Routing {
    /// One subscription as a message finds it.
    struct Subscriber {
        /// Whose queue gets it.
        var session: SessionID
        /// Who gets it: the Session itself, or the first of an uplink's queues, under which the others are known.
        var owner: SessionID
        var maximumQoS: QoS
        var noLocal: Bool
        var retainAsPublished: Bool
        var identifier: UInt32?
        var route: RouteRule?
        /// Rank among an uplink's routes: the lowest that matches decides.
        var rank: Int

        /// A client's subscription, or that of those who share one.
        init(session: SessionID, _ subscription: Subscription) {
            self.session = session
            owner = session
            maximumQoS = subscription.maximumQoS
            noLocal = subscription.noLocal
            retainAsPublished = subscription.retainAsPublished
            identifier = subscription.identifier
            rank = 0
        }

        /// A route of an uplink, into one of its queues.
        init(session: SessionID, owner: SessionID, _ route: UplinkRoutes.Route, rank: Int) {
            self.session = session
            self.owner = owner
            maximumQoS = route.maximumQoS
            noLocal = true
            retainAsPublished = route.carriesRetain
            self.route =
                route.rename == nil && route.except.isEmpty
                ? nil : RouteRule(rename: route.rename, except: route.except)
            self.rank = rank
        }

        /// Its share of a message.
        // In line, for else it is copied first.
        @inline(__always)
        func share(published qos: QoS, retain: Bool) -> MessageRecord.Target {
            MessageRecord.Target(
                session: session, qos: min(qos, maximumQoS), retain: retain && retainAsPublished,
                subscriptionIdentifiers: identifier.map { [$0] } ?? [], rename: route?.rename)
        }
    }

    /// What a route has beyond a subscription; apart, because few subscribers have any.
    final class RouteRule: Sendable {
        let rename: TopicRename?
        let except: [TopicFilter]

        init(rename: TopicRename?, except: [TopicFilter]) {
            self.rename = rename
            self.except = except
        }

        func carries(_ topic: ArraySlice<UInt8>) -> Bool { !except.contains { $0.matches(topic) } }
    }

    private var tree = TopicTree<[Subscriber]>()

    /// Adds a subscription or replaces the one its Session has with the same filter [MQTT5-3.8.4-3].
    ///
    /// - Complexity: O(levels + subscribers of this very filter)
    mutating func insert(_ subscriber: Subscriber, filter: TopicFilter) {
        tree.update(filter.pattern) { subscribers in
            var list = subscribers ?? []
            subscribers = nil
            if let i = list.firstIndex(where: {
                $0.owner == subscriber.owner && $0.rank == subscriber.rank
            }) {
                list[i] = subscriber
            } else {
                list.append(subscriber)
            }
            subscribers = list
        }
    }

    /// Removes what `owner` has with this filter: of an uplink all routes.
    ///
    /// - Complexity: O(levels + subscribers of this very filter)
    mutating func remove(_ owner: SessionID, filter: TopicFilter) {
        tree.update(filter.pattern) { subscribers in
            guard var list = subscribers else { return }
            subscribers = nil
            list.removeAll { $0.owner == owner }
            subscribers = list.isEmpty ? nil : list
        }
    }

    /// One share for each Session with a matching subscription, and for each uplink with a matching route: overlapping subscriptions deliver
    /// once, at the highest QoS, with all their identifiers [MQTT5-3.3.4-2, MQTT5-3.3.4-4].
    ///
    /// - Parameter publisher: its own No Local subscriptions do not match [MQTT5-3.8.3-3]; an uplink never gets
    ///   back what came from it.
    /// - Complexity: O(2^levels with a `+` at each level, in practice the matching filters)
    func shares(
        of topic: ArraySlice<UInt8>, published qos: QoS, retain: Bool, by publisher: SessionID?
    ) -> [MessageRecord.Target] {
        var found: [Subscriber] = []
        collect(
            TopicLevels(topic), from: TopicTree<[Subscriber]>.root, first: true,
            dollar: topic.first == UInt8(ascii: "$"), &found)
        if found.contains(where: { $0.noLocal && $0.owner == publisher }) {
            found.removeAll { $0.noLocal && $0.owner == publisher }
        }
        if found.contains(where: { $0.route?.carries(topic) == false }) {
            found.removeAll { $0.route?.carries(topic) == false }
        }
        // As mostly: a literal is made at once, what room is made for is a list that replaces another.
        if found.count == 1 { return [found[0].share(published: qos, retain: retain)] }
        found.sort { ($0.owner, $0.rank) < ($1.owner, $1.rank) }
        var last: SessionID?
        var shares: [MessageRecord.Target] = []
        shares.reserveCapacity(found.count)
        for n in found.indices {
            let share = found[n].share(published: qos, retain: retain)
            if last == found[n].owner {
                guard found[n].rank == 0 else { continue }
                let i = shares.count - 1
                shares[i].qos = max(shares[i].qos, share.qos)
                shares[i].retain = shares[i].retain || share.retain
                shares[i].subscriptionIdentifiers += share.subscriptionIdentifiers
            } else {
                last = found[n].owner
                shares.append(share)
            }
        }
        return shares
    }

    /// Whether there is any filter whose first level this is.
    ///
    /// - Complexity: O(1)
    func hasFilters(below level: ArraySlice<UInt8>) -> Bool {
        tree.child(of: TopicTree<[Subscriber]>.root, level) != nil
    }

    private func collect(
        _ levels: TopicLevels, from node: Int, first: Bool, dollar: Bool, _ found: inout [Subscriber]
    ) {
        // A leading wildcard does not match a leading $ [MQTT5-4.7.2-1].
        let wildcards = !(first && dollar)
        if wildcards, let all = tree.multiLevel(of: node) { add(all, to: &found) }
        var rest = levels
        guard let level = rest.next() else {
            add(node, to: &found)
            return
        }
        if let exact = tree.child(of: node, level) {
            collect(rest, from: exact, first: false, dollar: dollar, &found)
        }
        if wildcards, let any = tree.singleLevel(of: node) {
            collect(rest, from: any, first: false, dollar: dollar, &found)
        }
    }

    /// Mostly only one filter matches; its subscribers are not copied then.
    private func add(_ node: Int, to found: inout [Subscriber]) {
        guard let subscribers = tree.value(at: node) else { return }
        if found.isEmpty { found = subscribers } else { found += subscribers }
    }
}
