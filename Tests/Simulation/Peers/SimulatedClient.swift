import MQTT

/// A client of the gateway that follows MQTT's rules to the letter, unless its plan says that it is rude: what it
/// publishes at QoS 1 and 2 it says again on each new connection, in order and with the same identifiers, until it is
/// answered [MQTT5-4.4.0-1]; what it receives at QoS 2 it takes once [MQTT5-4.3.3-9 … 4.3.3-12].
///
/// What it publishes, sees acknowledged and receives is in its events, which the oracle is given. What one client can
/// judge alone it judges itself: `.broken`.
package struct SimulatedClient: Peer {
    package let plan: ClientPlan
    var dice: Dice
    private(set) var phase: Phase
    var output: [UInt8] = []
    private var events: [PeerEvent] = []
    private var decoder: PacketDecoder

    enum Phase: Equatable {
        /// Without a link until then; `UInt64.max` is for good.
        case away(until: UInt64)
        /// It wants a link.
        case calling
        /// CONNECT is sent.
        case greeting
        case open
        /// The link is to be closed.
        case closing(since: UInt64)
    }

    // What outlives connections.

    /// Published at QoS 1 or 2 and not finished, in the order of sending.
    var inFlight: [Sent] = []
    /// Made, and not sent yet.
    var outbox: [Sent] = []
    var nextNumber: UInt32 = 1
    var nextIdentifier: UInt16 = 1
    /// Received at QoS 2 and not released.
    private var held: [PacketIdentifier: MessageName?] = [:]
    /// What may be held for ever.
    private var forsaken: Set<MessageName> = []
    var subscriptions: [SubscriptionState]
    /// A connection with Clean Start was asked for, and CONNACK has not come: it must be asked for again, for nobody
    /// knows whose Session there is [MQTT5-3.2.2-4].
    private var owesCleanStart = false
    /// When its Session was left alone.
    private var leftAt: UInt64?
    private var isSettled = false

    // Of one connection.

    private(set) var connection = 0
    private var isVolatileNow = false
    /// How many the gateway takes at a time.
    var quota = 0
    var aliasesOut: [[UInt8]] = []
    var aliasMaximum = 0
    private var aliasesIn: [UInt16: [UInt8]] = [:]
    var requests: [Request] = []
    private var answers: [(due: UInt64, packet: Packet)] = []
    /// Received at QoS 1 and 2 on this connection and not answered to the end.
    private var unanswered: [PacketIdentifier] = []
    private var lastHeardAt: UInt64 = 0
    private var lastSentAt: UInt64 = 0
    private var pingedAt: UInt64?
    private var wasProvenSinceSettling = false

    // When it does what by itself.

    private var publishesAt: UInt64?
    private var changesAt: UInt64?
    private var leavesAt: UInt64?
    var rudeAt: UInt64?
    private var readsAgainAt: UInt64?

    struct Sent {
        var publishing: PeerEvent.Publishing
        var padding: Int
        var id: PacketIdentifier?
        var isReleased = false
        /// The connection on which it, or its PUBREL, was sent last; 0 for none.
        var sentOn = 0
    }

    struct SubscriptionState {
        var isWanted: Bool
        /// As far as is known; nil when a request was cut off.
        var isThere: Bool? = false
    }

    struct Request {
        var id: PacketIdentifier
        var isSubscribe: Bool
        /// Places among the plan's subscriptions.
        var places: [Int]
    }

    package init(_ plan: ClientPlan, dice: Dice) {
        self.plan = plan
        self.dice = dice
        phase = .away(until: plan.beginsAt)
        subscriptions = plan.subscriptions.map { SubscriptionState(isWanted: $0.isWanted) }
        decoder = PacketDecoder(receiver: .client, version: plan.version, maximumPacketSize: 1 << 28)
    }

    /// What happened since it was asked last.
    package mutating func takeEvents() -> [PeerEvent] {
        defer { events = [] }
        return events
    }

    mutating func note(_ event: PeerEvent) { events.append(event) }

    /// False while it does not read what the gateway sends: the link fills up.
    package var isReading: Bool { readsAgainAt == nil }

    // MARK: Links

    package var wantsLink: Bool { phase == .calling }
    package var wantsClose: Bool { if case .closing = phase { true } else { false } }

    package mutating func linkOpened(at now: UInt64) {
        if phase != .calling { linkLost(at: now) }
        connection += 1
        phase = .greeting
        output = []
        decoder = PacketDecoder(receiver: .client, version: plan.version, maximumPacketSize: 1 << 28)
        (lastHeardAt, lastSentAt, pingedAt) = (now, now, nil)
        sendConnect()
    }

    package mutating func linkLost(at now: UInt64) {
        switch phase {
        case .away, .calling: return
        case .greeting:
            // Past its end there may be another Session now, begun by a CONNECT that nobody heard the answer to: what
            // this one remembers is not of that.
            if let leftAt, now - leftAt > UInt64(plan.expirySeconds) * 1_000_000 { owesCleanStart = true }
        case .open, .closing: leftAt = now
        }
        note(.lost)
        output = []
        (requests, answers, unanswered) = ([], [], [])
        (publishesAt, changesAt, leavesAt, rudeAt, readsAgainAt) = (nil, nil, nil, nil, nil)
        if isVolatileNow { endSession() }
        if isSettled, plan.isRude {
            phase = .away(until: .max)
        } else {
            phase = .away(until: now + (isSettled ? 100_000 : about(plan.staysAwayFor)))
        }
    }

    package mutating func takeOutput() -> [UInt8] {
        defer { output = [] }
        return output
    }

    mutating func send(_ packet: Packet, at now: UInt64) {
        packet.encode(version: plan.version, into: &output)
        lastSentAt = now
    }

    mutating func close(at now: UInt64) { phase = .closing(since: now) }

    private mutating func sendConnect() {
        let isClean =
            plan.expirySeconds == 0 || owesCleanStart
            || dice.below(100) < plan.cleanStartPercent && !isSettled
        owesCleanStart = isClean
        // Before MQTT 5 Clean Session is both: it begins anew and leaves nothing behind.
        isVolatileNow = plan.expirySeconds == 0 || plan.version < .v5_0 && isClean
        let will = plan.will.map { will in
            PeerEvent.Publishing(
                takeName(), topic: Array(will.topic.utf8), qos: will.qos, retain: will.retain)
        }
        let expiry = isVolatileNow ? 0 : plan.version < .v5_0 ? .max : plan.expirySeconds
        let connect = Connect(
            version: plan.version, clientIdentifier: plan.identifier, cleanStart: isClean,
            keepAliveSeconds: plan.keepAliveSeconds,
            will: will.map {
                Will(
                    message: ApplicationMessage(topic: $0.topic, payload: $0.name.payload(padding: 0)),
                    qos: $0.qos, retain: $0.retain,
                    delaySeconds: plan.version == .v5_0 ? plan.will?.delaySeconds ?? 0 : 0)
            },
            sessionExpirySeconds: plan.version == .v5_0 ? expiry : nil,
            receiveMaximum: plan.version == .v5_0 ? plan.receiveMaximum : nil,
            maximumPacketSize: plan.version == .v5_0 ? plan.maximumPacketSize : nil,
            topicAliasMaximum: plan.version == .v5_0 ? plan.topicAliasMaximum : nil)
        Packet.connect(connect).encode(version: plan.version, into: &output)
        note(
            .connecting(
                .init(
                    cleanStart: isClean, expirySeconds: expiry, will: will,
                    willDelaySeconds: plan.version == .v5_0 ? plan.will?.delaySeconds ?? 0 : 0)))
    }

    /// Says goodbye, or just goes.
    private mutating func leave(at now: UInt64) {
        leavesAt = nil
        if dice.below(100) < plan.politePercent {
            let withWill = plan.version == .v5_0 && plan.will != nil && dice.below(4) == 0
            let reason = withWill ? ReasonCode.disconnectWithWill : .normalDisconnection
            send(.disconnect(Disconnect(reason)), at: now)
            note(.leaving(reason, expirySeconds: nil))
        }
        close(at: now)
    }

    // MARK: Time

    package var nextWake: UInt64? {
        let first: UInt64?
        switch phase {
        case .away(.max), .calling: return nil
        case .away(let until): first = until
        case .closing(let since): first = since + 1_000_000
        case .greeting: first = lastHeardAt + plan.patience
        case .open: first = pingedAt.map { $0 + plan.patience } ?? lastSentAt + pingEvery
        }
        var wake = first
        for moment in [publishesAt, changesAt, leavesAt, rudeAt, readsAgainAt, answers.first?.due] {
            if let moment, moment < wake ?? .max { wake = moment }
        }
        return wake
    }

    /// It says something at least this often, so that it learns of a link that is half open; and never less often than
    /// it promised [MQTT5-3.1.2-20].
    private var pingEvery: UInt64 {
        if isSettled { return 500_000 }
        let promised = plan.keepAliveSeconds == 0 ? UInt64.max : UInt64(plan.keepAliveSeconds) * 800_000
        return min(promised, plan.patience)
    }

    package mutating func wake(at now: UInt64) {
        switch phase {
        case .away(let until):
            if until <= now, until != .max { phase = .calling }
        case .calling: break
        case .closing(let since):
            if since + 1_000_000 <= now { linkLost(at: now) }
        case .greeting:
            if lastHeardAt + plan.patience <= now { close(at: now) }
        case .open:
            meetDeadlines(at: now)
        }
    }

    private mutating func meetDeadlines(at now: UInt64) {
        if let at = readsAgainAt, at <= now { readsAgainAt = nil }
        while let first = answers.first, first.due <= now {
            answers.removeFirst()
            sendAnswer(first.packet, at: now)
        }
        if let at = publishesAt, at <= now {
            publishesAt = now + about(plan.publishing?.every ?? 1)
            makeMessages(at: now)
        }
        if let at = changesAt, at <= now {
            changesAt = now + about(plan.changesSubscriptionsEvery ?? 1)
            changeSubscription(at: now)
        }
        if let at = rudeAt, at <= now {
            rudeAt = now + about(500_000)
            beRude(at: now)
        }
        guard phase == .open else { return }
        if let at = leavesAt, at <= now { return leave(at: now) }
        if let pingedAt {
            if pingedAt + plan.patience <= now { close(at: now) }
        } else if lastSentAt + pingEvery <= now {
            pingedAt = now
            send(.pingreq, at: now)
        }
    }

    /// Around this long, and never 0.
    mutating func about(_ duration: UInt64) -> UInt64 {
        1 + duration / 2 + UInt64(dice.below(Int(max(1, duration))))
    }

    mutating func readsNothing(until: UInt64) { readsAgainAt = until }

    // MARK: The end

    package mutating func settles() {
        isSettled = true
        outbox = []
        wasProvenSinceSettling = false
        (publishesAt, changesAt, leavesAt, rudeAt, readsAgainAt) = (nil, nil, nil, nil, nil)
        switch phase {
        case .away, .calling: phase = plan.isRude ? .away(until: .max) : .calling
        case .greeting, .open: if plan.isRude { phase = .closing(since: 0) }
        case .closing: break
        }
    }

    package var isAtRest: Bool {
        guard isSettled else { return false }
        if plan.isRude { return phase == .away(until: .max) }
        return phase == .open && wasProvenSinceSettling && inFlight.isEmpty && answers.isEmpty
            && requests.isEmpty && held.values.allSatisfy { $0.map(forsaken.contains) ?? false }
            && subscriptions.allSatisfy { $0.isThere == $0.isWanted }
    }

    package mutating func mayHold(_ names: [MessageName]) { forsaken.formUnion(names) }

    /// For whoever wonders why it does not come to rest.
    package var unfinished: String {
        "\(phase), \(inFlight.count) in flight, \(answers.count) answers, \(requests.count) requests, "
            + "\(held.count) held"
    }

    // MARK: Receiving

    package mutating func received(_ bytes: [UInt8], at now: UInt64) {
        switch phase {
        case .away, .calling, .closing: return
        case .greeting, .open: break
        }
        lastHeardAt = now
        bytes.withUnsafeBytes { decoder.append($0) }
        do throws(MalformedPacket) {
            while phase == .greeting || phase == .open {
                let before = decoder.bufferedBytes
                guard let packet = try decoder.next() else { break }
                let size = before - decoder.bufferedBytes
                if let most = plan.maximumPacketSize, size > Int(most) {
                    note(.broken("a packet of \(size) bytes, and \(most) were allowed [MQTT5-3.1.2-24]"))
                }
                hear(packet, at: now)
            }
        } catch {
            note(.broken("sent what is no packet: \(error)"))
            close(at: now)
        }
    }

    private mutating func hear(_ packet: Packet, at now: UInt64) {
        if phase == .greeting {
            guard case .connack(let connack) = packet else {
                // DISCONNECT before CONNACK is of a gateway that stops, or of a newer connection.
                if case .disconnect = packet { return close(at: now) }
                note(.broken("\(packet) before CONNACK [MQTT5-3.2.0-1]"))
                return close(at: now)
            }
            return welcomed(connack, at: now)
        }
        switch packet {
        case .publish(let publish): take(publish, at: now)
        case .pubrel(let pubrel): released(pubrel, at: now)
        case .puback(let answer), .pubcomp(let answer), .pubrec(let answer): answered(packet, answer, at: now)
        case .suback(let suback): subscribed(suback)
        case .unsuback(let unsuback): unsubscribed(unsuback)
        case .pingresp:
            pingedAt = nil
            if isSettled { wasProvenSinceSettling = true }
        case .disconnect: close(at: now)
        case .connack, .connect, .subscribe, .unsubscribe, .pingreq, .auth:
            note(.broken("\(packet) is none of the gateway's to say"))
        }
        if phase == .open { sendRequests(at: now) }
        if phase == .open { pump(at: now) }
    }

    private mutating func welcomed(_ connack: Connack, at now: UInt64) {
        guard !connack.reason.isError else {
            note(.turnedAway(connack.reason))
            return close(at: now)
        }
        phase = .open
        owesCleanStart = false
        let asked = isVolatileNow ? 0 : plan.version < .v5_0 ? UInt32.max : plan.expirySeconds
        note(
            .connected(
                sessionPresent: connack.sessionPresent, expirySeconds: connack.sessionExpirySeconds ?? asked))
        if !connack.sessionPresent { endSession() }
        quota = Int(connack.receiveMaximum ?? .max)
        (aliasesOut, aliasesIn) = ([], [:])
        aliasMaximum = plan.publishing?.usesAliases == true ? Int(connack.topicAliasMaximum ?? 0) : 0
        if !isSettled {
            publishesAt = plan.publishing.map { now + about($0.every) }
            changesAt = plan.changesSubscriptionsEvery.map { now + about($0) }
            leavesAt = plan.staysFor.map { now + about($0) }
            // A connection before MQTT 5 that began anew only swept: the next one has a Session that lasts.
            if isVolatileNow, plan.expirySeconds > 0 { leavesAt = now + about(500_000) }
            if plan.isRude { rudeAt = now + about(500_000) }
        } else if isVolatileNow, plan.expirySeconds > 0 {
            return close(at: now)
        }
        sendRequests(at: now)
        pump(at: now)
    }

    /// There is no Session any more: neither side owes the other anything [MQTT5-3.2.2-5].
    private mutating func endSession() {
        for sent in inFlight where !sent.isReleased { note(.abandoned(sent.publishing.name)) }
        inFlight = []
        held = [:]
        for i in subscriptions.indices { subscriptions[i].isThere = false }
    }

    private mutating func take(_ publish: Publish, at now: UInt64) {
        var publish = publish
        resolveAlias(&publish)
        let name = MessageName(payload: publish.message.payload)
        if name == nil, !publish.message.payload.isEmpty {
            note(.broken("a payload that nobody published"))
        }
        var reception = PeerEvent.Reception(
            name: name, topic: Array(publish.message.topic), qos: publish.qos, retain: publish.retain,
            duplicate: publish.duplicate, expirySeconds: publish.messageExpirySeconds,
            subscriptionIdentifiers: publish.subscriptionIdentifiers)
        guard let id = publish.id else { return note(.received(reception)) }
        if unanswered.contains(id) {
            note(.broken("\(id.rawValue) again before it was answered [MQTT5-4.4.0-1]"))
        } else {
            unanswered.append(id)
            if let most = plan.receiveMaximum, plan.version == .v5_0, unanswered.count > Int(most) {
                note(.broken("\(unanswered.count) in flight, and \(most) were allowed [MQTT5-3.3.4-9]"))
            }
        }
        guard publish.qos == .exactlyOnce else {
            note(.received(reception))
            return answer(.puback(Acknowledgement(id)), at: now)
        }
        if let known = held.updateValue(name, forKey: id) {
            reception.isNew = false
            if known != name {
                held.updateValue(known, forKey: id)
                let (old, new) = (Self.words(known), Self.words(name))
                note(.broken("\(new) came under \(id.rawValue), which is \(old)'s still [MQTT5-4.3.3-4]"))
            } else if !publish.duplicate {
                note(.broken("\(Self.words(name)) came again without DUP [MQTT5-3.3.1-1]"))
            }
        }
        note(.received(reception))
        answer(.pubrec(Acknowledgement(id)), at: now)
    }

    static func words(_ name: MessageName?) -> String { name?.description ?? "an empty message" }

    private mutating func resolveAlias(_ publish: inout Publish) {
        guard let alias = publish.topicAlias else { return }
        if alias > plan.topicAliasMaximum ?? 0 {
            note(.broken("topic alias \(alias) is beyond what was allowed [MQTT5-3.3.2-9]"))
        }
        if !publish.message.topic.isEmpty {
            aliasesIn[alias] = Array(publish.message.topic)
        } else if let topic = aliasesIn[alias] {
            publish.message = publish.message.renamed(to: topic)
        } else {
            note(.broken("topic alias \(alias) stands for nothing [MQTT5-3.3.2-8]"))
        }
    }

    private mutating func released(_ pubrel: Acknowledgement, at now: UInt64) {
        let isKnown = held.removeValue(forKey: pubrel.id) != nil
        answer(
            .pubcomp(Acknowledgement(pubrel.id, isKnown ? .success : .packetIdentifierNotFound)), at: now)
    }

    /// Sends an answer now, or after a while, in the order of what is answered [MQTT5-4.6.0-2 … 4.6.0-4].
    private mutating func answer(_ packet: Packet, at now: UInt64) {
        guard plan.answersWithin > 0, !isSettled || !answers.isEmpty else {
            return sendAnswer(packet, at: now)
        }
        let due = max(answers.last?.due ?? 0, now + UInt64(dice.below(Int(plan.answersWithin))))
        answers.append((due, packet))
    }

    private mutating func sendAnswer(_ packet: Packet, at now: UInt64) {
        switch packet {
        case .puback(let answer), .pubcomp(let answer): unanswered.removeAll { $0 == answer.id }
        default: break
        }
        send(packet, at: now)
    }
}
