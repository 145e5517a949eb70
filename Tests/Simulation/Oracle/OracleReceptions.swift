import MQTT

// What clients receive, held against what they may.
extension Oracle {
    mutating func received(_ reception: PeerEvent.Reception, by peer: Int, at now: UInt64) {
        guard let name = reception.name else { return }
        let who = self.name(of: peer)
        guard let i = place(of: name) else { return report("\(who) got \(name), which nobody published") }
        messages[i].isSeen = true
        let message = messages[i]
        guard !people[peer].isRude, let session = people[peer].session else { return }
        let local = local(message)
        guard let local, local.topic == matching.place(ofTopic: reception.topic) else {
            return report("\(who) got \(name) under another topic [MQTT5-3.3.2-1]")
        }
        if message.isForbidden { report("\(who) got \(name), the Will of who said goodbye [MQTT5-3.1.2-10]") }
        judgeExpiry(
            reception, message, who, speaksMQTT5: rules.clients[peer].version == .v5_0, at: now)
        let shares = shares(of: message, local, session, peer)
        guard judgeRight(reception, message, shares, session, peer) else { return }
        judgeQoS(reception, name, shares, who)
        count(reception, message, shares, peer, at: now)
        if message.qos > .atMostOnce, reception.qos > .atMostOnce {
            judgeOrder(reception, message, local.topic, shares, peer)
        }
    }

    /// What entitles a client to a message.
    struct Shares {
        /// The highest QoS of the subscriptions that may have matched.
        var qosMost = QoS.atMostOnce
        /// The highest QoS of those that certainly did; nil without one.
        var qosLeast: QoS?
        /// Subscriptions of its own that may have matched.
        var hasOwn = false
        /// Certainly there since before the message was sent, and still there.
        var isSteady = false
        /// One of them wants RETAIN as it was published.
        var keepsRetain = false
        /// The groups that it is, or was, in.
        var groups: [Int] = []
        var identifiers: [UInt32] = []
        /// Of all that ever matched in this Session.
        var retainedQoSMost = QoS.atMostOnce
    }

    private mutating func shares(
        of message: OracleMessage, _ local: (topic: Int, qos: QoS), _ session: OracleSession, _ peer: Int
    ) -> Shares {
        var shares = Shares()
        for subscription in session.subscriptions
        where matching.matches(filter: subscription.filter, topic: local.topic) {
            let qos = min(local.qos, subscription.request.maximumQoS)
            if let id = subscription.identifier { shares.identifiers.append(id) }
            shares.retainedQoSMost = max(shares.retainedQoSMost, qos)
            let isShared = subscription.request.filter.shareName != nil
            // Who joins a group gets what waits there, too.
            let mayGet =
                isShared
                ? message.firstSent <= subscription.possibleUntil
                    && groups[subscription.filter]?.since ?? .max <= message.takenBefore
                : subscription.mayGet(message)
            guard mayGet, !(subscription.request.noLocal && message.author == peer) else { continue }
            shares.qosMost = max(shares.qosMost, qos)
            shares.keepsRetain = shares.keepsRetain || subscription.request.retainAsPublished
            if !isShared {
                shares.hasOwn = true
                guard subscription.isOwed(message) else { continue }
                shares.qosLeast = max(shares.qosLeast ?? .atMostOnce, qos)
                if subscription.certainUntil == .max { shares.isSteady = true }
            } else if !shares.groups.contains(subscription.filter) {
                shares.groups.append(subscription.filter)
            }
        }
        return shares
    }

    /// Whether it may come; says why not [MQTT5-3.3.4-1, MQTT5-3.10.4-2], with this RETAIN [MQTT5-3.3.1-12, MQTT5-3.3.1-13].
    private mutating func judgeRight(
        _ reception: PeerEvent.Reception, _ message: OracleMessage, _ shares: Shares,
        _ session: OracleSession,
        _ peer: Int
    ) -> Bool {
        let who = name(of: peer)
        for id in reception.subscriptionIdentifiers where !shares.identifiers.contains(id) {
            report("\(who) got \(message.name) with Subscription Identifier \(id) [MQTT5-3.3.4-3]")
        }
        let isLive = shares.hasOwn || !shares.groups.isEmpty
        guard reception.retain else {
            // What its author sends once more may be taken once more, for subscriptions of later.
            if !isLive, message.extraTakes == 0 {
                report("\(who) got \(message.name) without a subscription that could bring it")
            }
            return isLive
        }
        if !message.retain {
            report("\(who) got \(message.name) with RETAIN, and it never had that [MQTT5-3.3.1-12]")
            return false
        }
        if isLive, shares.keepsRetain { return true }
        let isAsked = session.asked.contains { asked in
            message.firstSent <= asked.until && matching.known(filter: asked.filter, topic: message.topic)
                && !isReplaced(message, before: asked.from)
        }
        if !isAsked {
            report("\(who) got \(message.name) as a retained message, which it was not when it subscribed")
        }
        return isAsked
    }

    private mutating func judgeQoS(
        _ reception: PeerEvent.Reception, _ name: MessageName, _ shares: Shares, _ who: String
    ) {
        let most = reception.retain ? shares.retainedQoSMost : shares.qosMost
        if reception.qos > most {
            report("\(who) got \(name) at QoS \(reception.qos.rawValue), \(most.rawValue) is the most")
        }
        if !reception.retain, shares.groups.isEmpty, let least = shares.qosLeast, reception.qos < least {
            report(
                "\(who) got \(name) at QoS \(reception.qos.rawValue), it is owed \(least.rawValue) [MQTT5-3.8.4-8]"
            )
        }
    }

    /// The Message Expiry Interval less the time waited, and never less than that [MQTT5-3.3.2-6], promise P9.
    mutating func judgeExpiry(
        _ reception: PeerEvent.Reception, _ message: OracleMessage, _ who: String, speaksMQTT5: Bool,
        at now: UInt64
    ) {
        guard let left = reception.expirySeconds else {
            if message.expirySeconds != nil, speaksMQTT5 {
                report("\(who) got \(message.name) without its Message Expiry Interval [MQTT5-3.3.2-6]")
            }
            return
        }
        guard let whole = message.expirySeconds else {
            return report("\(who) got \(message.name) with a Message Expiry Interval that it never had")
        }
        let waited = (now - message.firstSent) / 1_000_000 + 1
        if left > whole {
            report("\(who) got \(message.name) with \(left) s to live, it began with \(whole)")
        }
        if UInt64(left) + waited + waited / 10 + 1 < UInt64(whole) {
            report("\(who) got \(message.name) with \(left) s of \(whole) left after \(waited) s")
        }
    }

    // MARK: How often

    private mutating func count(
        _ reception: PeerEvent.Reception, _ message: OracleMessage, _ shares: Shares, _ peer: Int,
        at now: UInt64
    ) {
        guard let session = people[peer].session else { return }
        let connection = people[peer].connection
        let cuts = powerCutCount(since: message.firstSent)
        let takes = message.takesMax(powerCuts: cuts)
        // What a group handed out and a power cut took back may be handed out once more.
        let handed = takes + (shares.groups.isEmpty ? 0 : cuts)
        let asked =
            message.retain
            ? session.asked.count {
                matching.known(filter: $0.filter, topic: message.topic) && $0.until >= message.firstSent
            } : 0
        let most = (shares.hasOwn ? takes : 0) + handed * shares.groups.count + asked
        var copies = session.copies[message.name] ?? .init()
        copies.note(reception, on: connection, at: now)
        people[peer].session?.copies[message.name] = copies
        judge(
            copies, message, atMost: max(most, 1),
            exactlyOnce: max((shares.hasOwn ? takes : 0) + takes * shares.groups.count + asked, 1),
            name(of: peer))
        if shares.groups.count == 1, !shares.hasOwn, let group = shares.groups.first {
            noteShared(reception, message, takes, group)
        } else {
            for group in shares.groups { groups[group, default: GroupView()].seen.insert(message.name) }
        }
    }

    mutating func judge(
        _ copies: OracleSession.Copies, _ message: OracleMessage, atMost most: Int, exactlyOnce: Int,
        _ who: String
    ) {
        if copies.exactlyOnce > exactlyOnce {
            report("\(who) got \(message.name) \(copies.exactlyOnce) times at QoS 2 [MQTT5-4.3.3-10]")
        }
        if copies.first > most {
            report("\(who) got \(message.name) \(copies.first) times without DUP [MQTT5-3.3.1-1]")
        }
        if copies.here > most {
            report("\(who) got \(message.name) \(copies.here) times on one connection [MQTT5-4.4.0-1]")
        }
    }

    /// What was sent to one member at QoS 2 is nobody else's [MQTT5-4.8.2-5].
    private mutating func noteShared(
        _ reception: PeerEvent.Reception, _ message: OracleMessage, _ takes: Int, _ group: Int
    ) {
        var view = groups[group] ?? GroupView()
        view.seen.insert(message.name)
        if reception.qos == .exactlyOnce, reception.isNew {
            view.exactlyOnce[message.name, default: 0] += 1
            if let count = view.exactlyOnce[message.name], count > takes {
                let filter = String(decoding: matching.filters[group].bytes, as: UTF8.self)
                report("\(message.name) came \(count) times at QoS 2 to the members of \(filter)")
            }
        }
        groups[group] = view
    }

    // MARK: In which order

    /// The messages of one author under one topic and at one QoS come in the order in which they were sent
    /// [MQTT5-4.6.0-5, MQTT311-4.6.0-6]; copies of what came before are nothing new.
    private mutating func judgeOrder(
        _ reception: PeerEvent.Reception, _ message: OracleMessage, _ topic: Int, _ shares: Shares,
        _ peer: Int
    ) {
        guard shares.isSteady, shares.groups.isEmpty, !reception.retain, !message.isWill,
            message.extraTakes == 0, !isRude(message.author), !mayHaveBeenRefused(message),
            // Of two copies the earlier may have expired, and what had expired may be back after a power cut.
            message.expirySeconds == nil
                || message.sends == 1 && powerCutCount(since: message.firstSent) == 0,
            people[peer].session?.copies[message.name]?.count == 1
        else { return }
        let key = Self.orderKey(author: message.name.author, topic: topic, message.qos, reception.qos)
        if let last = people[peer].session?.lastSeen[key], last > message.name.number {
            report("\(name(of: peer)) got \(message.name) behind \(message.name.author)#\(last)")
        } else {
            people[peer].session?.lastSeen[key] = message.name.number
        }
    }

    static func orderKey(author: UInt16, topic: Int, _ published: QoS, _ received: QoS) -> UInt64 {
        UInt64(author) << 48 | UInt64(topic) << 8 | UInt64(published.rawValue) << 4
            | UInt64(received.rawValue)
    }
}

extension OracleSession.Copies {
    mutating func note(_ reception: PeerEvent.Reception, on connection: Int, at now: UInt64) {
        count += 1
        if reception.retain { lastRetainedAt = now }
        guard reception.qos < .exactlyOnce else {
            atQoS2 += 1
            if reception.isNew { exactlyOnce += 1 }
            return
        }
        if !reception.duplicate { first += 1 }
        if self.connection != connection { (self.connection, here) = (connection, 0) }
        here += 1
    }
}

extension Matching {
    /// The same without remembering what was not asked before.
    func known(filter: Int, topic: Int) -> Bool { filters[filter].matches(topics[topic]) }
}
