import MQTT

/// Who gets what is published: the subscriptions of all Sessions and the `out` routes of all uplinks.
struct Routing {
    /// One subscription as a message finds it.
    struct Subscriber {
        var session: SessionID
        var maximumQoS: QoS
        var noLocal: Bool
        var retainAsPublished: Bool
        var identifier: UInt32?
        var rename: TopicRename?
        /// Rank among an uplink's routes: the lowest that matches decides.
        var rank: Int
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
                $0.session == subscriber.session && $0.rank == subscriber.rank
            }) {
                list[i] = subscriber
            } else {
                list.append(subscriber)
            }
            subscribers = list
        }
    }

    /// - Complexity: O(levels + subscribers of this very filter)
    mutating func remove(_ session: SessionID, filter: TopicFilter) {
        tree.update(filter.pattern) { subscribers in
            guard var list = subscribers else { return }
            subscribers = nil
            list.removeAll { $0.session == session }
            subscribers = list.isEmpty ? nil : list
        }
    }

    /// One share for each Session with a matching subscription, by Session: overlapping subscriptions deliver
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
        if found.contains(where: { $0.noLocal && $0.session == publisher }) {
            found.removeAll { $0.noLocal && $0.session == publisher }
        }
        if found.count > 1 { found.sort { ($0.session, $0.rank) < ($1.session, $1.rank) } }
        var shares: [MessageRecord.Target] = []
        shares.reserveCapacity(found.count)
        for subscriber in found {
            let granted = min(qos, subscriber.maximumQoS)
            if let last = shares.indices.last, shares[last].session == subscriber.session {
                guard subscriber.rank == 0 else { continue }
                shares[last].qos = max(shares[last].qos, granted)
                shares[last].retain = shares[last].retain || retain && subscriber.retainAsPublished
                if let id = subscriber.identifier { shares[last].subscriptionIdentifiers.append(id) }
            } else {
                shares.append(
                    MessageRecord.Target(
                        session: subscriber.session, qos: granted,
                        retain: retain && subscriber.retainAsPublished,
                        subscriptionIdentifiers: subscriber.identifier.map { [$0] } ?? [],
                        rename: subscriber.rename))
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
