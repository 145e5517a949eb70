import MQTT

/// The broker at the far end of the uplink, with the gateway as its only client and one session for it. It follows
/// MQTT's rules, within which it may be forgetful, slow, poor or unwilling; with a disk that loses what it had, it goes
/// back in time, and only then it breaks them.
package struct SimulatedCloud: Peer {
    package let plan: CloudPlan
    private var dice: Dice
    private var output: [UInt8] = []
    private var events: [PeerEvent] = []
    private var decoder = PacketDecoder(receiver: .server, version: nil, maximumPacketSize: 1 << 28)

    private enum Phase: Equatable {
        case idle
        /// A connection is there, CONNECT is not.
        case accepted
        case open
        case closing
    }

    /// What it would find again after a death of its own.
    private struct Memory {
        var hasSession = false
        var subscriptions: [SubscriptionRequest] = []
        /// QoS 2 messages of the gateway, from PUBLISH to PUBREL.
        var taken: [PacketIdentifier: MessageName?] = [:]
        var waiting: [Sent] = []
        var inFlight: [Sent] = []
        var nextIdentifier: UInt16 = 1
        /// How many of `history` it knows of.
        var historyCount = 0
    }

    private struct Sent {
        var publishing: PeerEvent.Publishing
        var padding: Int
        var id: PacketIdentifier?
        var isReleased = false
        var sentOn = 0
    }

    private var phase = Phase.idle
    /// What may be held for ever.
    private var forsaken: Set<MessageName> = []
    private var memory = Memory()
    /// What it received, and whether it said so.
    private var history: [(name: MessageName, wasAnswered: Bool)] = []
    private var saved = Memory()
    /// It has gone back in time in this session: what it holds and what the gateway thinks may differ.
    private var hasGoneBack = false
    private var nextNumber: UInt32 = 1
    private var isSettled = false

    // Of one connection.
    private var connection = 0
    private var isSweep = false
    private var mayRefuse = true
    private var answers: [(due: UInt64, packet: Packet)] = []
    private var quota = 0
    private var gatewayPacketSize: UInt32?
    /// What it announced.
    private var receiveMaximum: UInt16?
    private var maximumQoS = QoS.exactlyOnce
    /// QoS 1 and 2 messages of the gateway that it has not answered to the end.
    private var unanswered: [PacketIdentifier] = []
    /// What came last under which identifier, on this connection.
    private var receivedAs: [PacketIdentifier: MessageName] = [:]
    private var aliasesIn: [UInt16: [UInt8]] = [:]

    private var publishesAt: UInt64?
    private var savesAt: UInt64?
    private var endsAt: UInt64?
    /// Nobody is there to accept a connection, until then.
    private var isAbsent = false
    private var returnsAt: UInt64?

    package init(_ plan: CloudPlan, dice: Dice) {
        self.plan = plan
        self.dice = dice
        publishesAt = plan.publishesEvery
        savesAt = plan.goesBackPercent > 0 ? plan.savesEvery : nil
    }

    package mutating func takeEvents() -> [PeerEvent] {
        defer { events = [] }
        return events
    }

    private mutating func note(_ event: PeerEvent) { events.append(event) }

    // MARK: Links

    /// Whether it accepts a connection.
    package var wantsLink: Bool { isSettled || !isAbsent }
    package var wantsClose: Bool { phase == .closing }

    package mutating func linkOpened(at now: UInt64) {
        if phase != .idle { linkLost(at: now) }
        connection += 1
        phase = .accepted
        decoder = PacketDecoder(receiver: .server, version: nil, maximumPacketSize: 1 << 28)
        output = []
    }

    package mutating func linkLost(at now: UInt64) {
        guard phase != .idle else { return }
        let wasOpen = phase == .open || phase == .closing
        phase = .idle
        output = []
        (answers, unanswered, receivedAs, endsAt) = ([], [], [:], nil)
        note(.lost)
        guard wasOpen else { return }
        if isSweep { forget() }
        guard !isSettled else { return }
        if plan.isAbsentPercent > dice.below(100) {
            isAbsent = true
            returnsAt = now + about(plan.isAbsentFor)
        }
        let roll = dice.below(100)
        if roll < plan.forgetsPercent {
            forget()
        } else if roll < plan.forgetsPercent + plan.goesBackPercent {
            goBack()
        }
    }

    package mutating func takeOutput() -> [UInt8] {
        defer { output = [] }
        return output
    }

    private mutating func send(_ packet: Packet) { packet.encode(version: plan.version, into: &output) }

    /// Its session is gone, with all that was in it.
    private mutating func forget() {
        guard memory.hasSession else { return }
        abandonAll()
        memory = Memory()
        memory.historyCount = history.count
        saved = memory
        hasGoneBack = false
        note(.forgot)
    }

    private mutating func abandonAll() {
        for sent in memory.inFlight + memory.waiting where !sent.isReleased {
            note(.abandoned(sent.publishing.name))
        }
    }

    /// Its disk has lost what happened since it saved: it knows the session as it was then.
    private mutating func goBack() {
        let undone = history[saved.historyCount...].map {
            PeerEvent.Undone(name: $0.name, wasAnswered: $0.wasAnswered)
        }
        let before = memory
        history.removeSubrange(saved.historyCount...)
        memory = saved
        // What it published since is forgotten; what it had finished it may say again.
        let known = memory.inFlight + memory.waiting
        for sent in before.inFlight + before.waiting
        where !sent.isReleased && !known.contains(where: { $0.publishing.name == sent.publishing.name }) {
            note(.abandoned(sent.publishing.name))
        }
        // Where it did not know of a handshake's beginning yet, it begins it again as if for the first time.
        for i in memory.inFlight.indices { memory.inFlight[i].sentOn = 0 }
        note(.mayRepeat(known.map(\.publishing.name)))
        hasGoneBack = true
        note(.wentBack(undone: undone))
    }

    // MARK: Time

    package var nextWake: UInt64? {
        [publishesAt, savesAt, endsAt, returnsAt, answers.first?.due].compactMap { $0 }.min()
    }

    package mutating func wake(at now: UInt64) {
        while let first = answers.first, first.due <= now {
            answers.removeFirst()
            sendAnswer(first.packet)
        }
        if let at = publishesAt, at <= now {
            publishesAt = now + about(plan.publishesEvery ?? 1)
            publish()
        }
        if let at = savesAt, at <= now {
            savesAt = now + about(plan.savesEvery)
            memory.historyCount = history.count
            saved = memory
        }
        if let at = returnsAt, at <= now { (returnsAt, isAbsent) = (nil, false) }
        if let at = endsAt, at <= now {
            endsAt = nil
            if phase == .open { phase = .closing }
        }
    }

    private mutating func about(_ duration: UInt64) -> UInt64 {
        1 + duration / 2 + UInt64(dice.below(Int(max(1, duration))))
    }

    package mutating func settles() {
        isSettled = true
        (publishesAt, savesAt, endsAt, returnsAt) = (nil, nil, nil, nil)
    }

    package mutating func mayHold(_ names: [MessageName]) { forsaken.formUnion(names) }

    package var isAtRest: Bool {
        isSettled && phase == .open && memory.waiting.isEmpty && memory.inFlight.isEmpty
            && (hasGoneBack || memory.taken.values.allSatisfy { $0.map(forsaken.contains) ?? false })
            && answers.isEmpty
    }

    // MARK: Receiving

    package mutating func received(_ bytes: [UInt8], at now: UInt64) {
        guard phase == .accepted || phase == .open else { return }
        bytes.withUnsafeBytes { decoder.append($0) }
        do throws(MalformedPacket) {
            while phase == .accepted || phase == .open, let packet = try decoder.next() {
                hear(packet, at: now)
            }
        } catch {
            note(.broken("sent the cloud what is no packet: \(error)"))
            phase = .closing
        }
    }

    private mutating func hear(_ packet: Packet, at now: UInt64) {
        switch packet {
        case .connect(let connect): welcome(connect, at: now)
        case .publish(let publish): take(publish, at: now)
        case .pubrel(let pubrel):
            memory.taken.removeValue(forKey: pubrel.id)
            answer(.pubcomp(Acknowledgement(pubrel.id)), at: now)
        case .puback(let ack), .pubrec(let ack), .pubcomp(let ack): answered(packet, ack)
        case .subscribe(let subscribe): subscribed(subscribe, at: now)
        case .unsubscribe(let unsubscribe):
            memory.subscriptions.removeAll { unsubscribe.filters.contains($0.filter) }
            answer(
                .unsuback(
                    Unsuback(id: unsubscribe.id, reasons: unsubscribe.filters.map { _ in .success })), at: now
            )
        case .pingreq: answer(.pingresp, at: now)
        case .disconnect: phase = .closing
        case .connack, .suback, .unsuback, .pingresp, .auth:
            note(.broken("\(packet) is none of the gateway's to say to the cloud"))
        }
        pump()
    }

    private mutating func welcome(_ connect: Connect, at now: UInt64) {
        if connect.version != plan.version { note(.broken("speaks \(connect.version) to the cloud")) }
        let expiry = connect.sessionExpirySeconds ?? 0
        note(.connecting(.init(cleanStart: connect.cleanStart, expirySeconds: expiry, willDelaySeconds: 0)))
        if !isSettled, dice.below(100) < plan.turnsAwayPercent {
            send(.connack(Connack(sessionPresent: false, reason: .serverUnavailable)))
            note(.turnedAway(.serverUnavailable))
            phase = .closing
            return
        }
        phase = .open
        isSweep = connect.cleanStart && plan.version < .v5_0
        if connect.cleanStart {
            if !memory.subscriptions.isEmpty, !hasGoneBack {
                note(.broken("the cloud's session is thrown away although it owes messages"))
            }
            forget()
        }
        let isPresent = memory.hasSession
        memory.hasSession = true
        quota = Int(connect.receiveMaximum ?? .max)
        gatewayPacketSize = connect.maximumPacketSize
        aliasesIn = [:]
        (unanswered, receivedAs) = ([], [:])
        var connack = Connack(sessionPresent: isPresent, reason: .success)
        (maximumQoS, receiveMaximum) = (.exactlyOnce, nil)
        if plan.version == .v5_0 {
            if !isSettled, dice.below(100) < plan.capsQoSPercent { maximumQoS = .atLeastOnce }
            receiveMaximum = plan.receiveMaximum.map { 1 + UInt16(dice.below(Int($0))) }
            if maximumQoS < .exactlyOnce { connack.maximumQoS = maximumQoS }
            connack.receiveMaximum = receiveMaximum
            connack.maximumPacketSize = plan.maximumPacketSize
            connack.topicAliasMaximum = plan.topicAliasMaximum
        }
        send(.connack(connack))
        note(.connected(sessionPresent: isPresent, expirySeconds: expiry))
        endsAt = isSettled ? nil : plan.endsConnectionsAfter.map { now + about($0) }
    }

    private mutating func subscribed(_ subscribe: Subscribe, at now: UInt64) {
        for request in subscribe.requests {
            memory.subscriptions.removeAll { $0.filter == request.filter }
            memory.subscriptions.append(request)
        }
        let reasons = subscribe.requests.map { ReasonCode(rawValue: $0.maximumQoS.rawValue) }
        answer(.suback(Suback(id: subscribe.id, reasons: reasons)), at: now)
    }

    private mutating func take(_ publish: Publish, at now: UInt64) {
        var publish = publish
        resolveAlias(&publish)
        let name = MessageName(payload: publish.message.payload)
        var reception = PeerEvent.Reception(
            name: name, topic: Array(publish.message.topic), qos: publish.qos, retain: publish.retain,
            duplicate: publish.duplicate, expirySeconds: publish.messageExpirySeconds,
            subscriptionIdentifiers: publish.subscriptionIdentifiers)
        checkBounds(publish)
        guard let id = publish.id else { return note(.received(reception)) }
        receivedAs[id] = name
        if plan.version == .v5_0, !isSettled, let name, memory.taken[id] == nil,
            dice.below(100) < plan.refusesPercent
        {
            note(.refused(name))
            let refusal = Acknowledgement(id, .implementationSpecificError)
            return answer(publish.qos == .exactlyOnce ? .pubrec(refusal) : .puback(refusal), at: now)
        }
        guard publish.qos == .exactlyOnce, !plan.acknowledgesQoS2AsQoS1 || plan.version == .v5_0 else {
            // Once capped to QoS 1 the same message may come under the identifier it had at QoS 2: that one is over.
            memory.taken.removeValue(forKey: id)
            keep(reception)
            return answer(.puback(Acknowledgement(id)), at: now)
        }
        if let known = memory.taken.updateValue(name, forKey: id) {
            reception.isNew = false
            memory.taken.updateValue(known, forKey: id)
            receivedAs[id] = known
            if known != name {
                if hasGoneBack, let name {
                    note(.swallowed(name))
                } else {
                    let (old, new) = (SimulatedClient.words(known), SimulatedClient.words(name))
                    note(.broken("\(new) goes up under \(id.rawValue), which is \(old)'s still"))
                }
                return answer(.pubrec(Acknowledgement(id)), at: now)
            }
        }
        keep(reception)
        answer(.pubrec(Acknowledgement(id)), at: now)
    }

    private mutating func keep(_ reception: PeerEvent.Reception) {
        note(.received(reception))
        if let name = reception.name, reception.isNew { history.append((name, false)) }
    }

    private mutating func checkBounds(_ publish: Publish) {
        if publish.qos > maximumQoS {
            note(.broken("QoS \(publish.qos.rawValue) goes up where 1 is the most [MQTT5-3.2.2-11]"))
        }
        if let most = plan.maximumPacketSize, plan.version == .v5_0,
            publish.encodedSize(version: plan.version) > Int(most) + 16
        {
            note(.broken("a message goes up that is larger than the cloud takes [MQTT5-3.2.2-15]"))
        }
        guard let id = publish.id else { return }
        if unanswered.contains(id) {
            note(.broken("\(id.rawValue) goes up again before it was answered [MQTT5-4.4.0-1]"))
        } else {
            unanswered.append(id)
            if let most = receiveMaximum, unanswered.count > Int(most) {
                note(.broken("\(unanswered.count) are in flight upwards, and \(most) were allowed"))
            }
        }
    }

    private mutating func resolveAlias(_ publish: inout Publish) {
        guard let alias = publish.topicAlias else { return }
        if alias > plan.topicAliasMaximum ?? 0 {
            note(.broken("topic alias \(alias) is beyond what the cloud allowed"))
        }
        if !publish.message.topic.isEmpty {
            aliasesIn[alias] = Array(publish.message.topic)
        } else if let topic = aliasesIn[alias] {
            publish.message = publish.message.renamed(to: topic)
        } else {
            note(.broken("topic alias \(alias) stands for nothing at the cloud"))
        }
    }

    // MARK: Answering

    private mutating func answer(_ packet: Packet, at now: UInt64) {
        guard plan.answersWithin > 0, !isSettled || !answers.isEmpty else { return sendAnswer(packet) }
        let due = max(answers.last?.due ?? 0, now + UInt64(dice.below(Int(plan.answersWithin))))
        answers.append((due, packet))
    }

    private mutating func sendAnswer(_ packet: Packet) {
        guard phase == .open || phase == .closing else { return }
        send(packet)
        var stutters = false
        switch packet {
        case .puback(let ack): noteAnswered(ack, isOver: true)
        case .pubrec(let ack):
            noteAnswered(ack, isOver: ack.reason.isError)
            stutters = !ack.reason.isError
        case .pubcomp(let ack):
            unanswered.removeAll { $0 == ack.id }
            stutters = true
        case .pubrel: stutters = true
        default: break
        }
        if stutters, plan.stuttersPercent > 0, dice.below(100) < plan.stuttersPercent { send(packet) }
    }

    /// From here on the gateway may rely on it that the cloud has the message.
    private mutating func noteAnswered(_ ack: Acknowledgement, isOver: Bool) {
        if isOver { unanswered.removeAll { $0 == ack.id } }
        guard !ack.reason.isError, let name = receivedAs[ack.id] else { return }
        for i in history.indices where history[i].name == name { history[i].wasAnswered = true }
    }

    // MARK: Publishing

    private mutating func publish() {
        guard memory.hasSession, !plan.topics.isEmpty else { return }
        let topic = Array(plan.topics[dice.below(plan.topics.count)].utf8)
        let granted = memory.subscriptions.filter { $0.filter.matches(topic) }.map(\.maximumQoS).max()
        guard let granted, memory.waiting.count < 500 else { return }
        let shares = plan.qosShares
        let roll = dice.below(shares[0] + shares[1] + shares[2])
        let wanted: QoS =
            roll < shares[0] ? .atMostOnce : roll < shares[0] + shares[1] ? .atLeastOnce : .exactlyOnce
        let qos = min(wanted, granted)
        let name = MessageName(plan.author, nextNumber)
        nextNumber += 1
        let padding = dice.below(plan.paddingMax + 1)
        let message = Sent(
            publishing: PeerEvent.Publishing(name, topic: topic, qos: qos, size: padding + 24),
            padding: padding)
        if qos == .atMostOnce {
            if phase == .open, memory.waiting.isEmpty { send(message, duplicate: false) }
        } else {
            memory.waiting.append(message)
            pump()
        }
    }

    /// First again what was under way, in order, then what is new.
    private mutating func pump() {
        guard phase == .open else { return }
        let window = min(quota, plan.window)
        var count = memory.inFlight.reduce(0) { $0 + ($1.sentOn == connection ? 1 : 0) }
        for i in memory.inFlight.indices where memory.inFlight[i].sentOn != connection {
            if memory.inFlight[i].isReleased {
                if let id = memory.inFlight[i].id { sendAnswer(.pubrel(Acknowledgement(id))) }
            } else {
                guard count < window else { return }
                let isAgain = memory.inFlight[i].sentOn > 0
                if isAgain, hasGoneBack, memory.inFlight[i].publishing.qos == .exactlyOnce {
                    // Its identifier may be one that the gateway still has of another message, of which the cloud knows
                    // nothing any more; said again with DUP, it cannot be told from that one.
                    note(.disowned(memory.inFlight[i].publishing.name))
                }
                send(memory.inFlight[i], duplicate: isAgain)
            }
            memory.inFlight[i].sentOn = connection
            count += 1
        }
        while !memory.waiting.isEmpty, count < window {
            guard memory.subscriptions.isEmpty == false else { return }
            var message = memory.waiting.removeFirst()
            message.id = takeIdentifier()
            message.sentOn = connection
            memory.inFlight.append(message)
            send(message, duplicate: false)
            count += 1
        }
    }

    private mutating func takeIdentifier() -> PacketIdentifier {
        while true {
            let id = PacketIdentifier(rawValue: memory.nextIdentifier) ?? 1
            memory.nextIdentifier = memory.nextIdentifier % 61 + 1
            if !memory.inFlight.contains(where: { $0.id == id }) { return id }
        }
    }

    private mutating func send(_ message: Sent, duplicate: Bool) {
        var publishing = message.publishing
        publishing.duplicate = duplicate
        let publish = Publish(
            message: ApplicationMessage(
                topic: publishing.topic, payload: publishing.name.payload(padding: message.padding)),
            qos: publishing.qos, id: message.id, duplicate: duplicate)
        if let most = gatewayPacketSize, publish.encodedSize(version: plan.version) > Int(most) { return }
        send(.publish(publish))
        note(.publishing(publishing))
    }

    /// PUBACK, PUBREC or PUBCOMP.
    private mutating func answered(_ packet: Packet, _ answer: Acknowledgement) {
        guard let i = memory.inFlight.firstIndex(where: { $0.id == answer.id }),
            memory.inFlight[i].sentOn == connection
        else {
            // Who stutters is answered twice.
            let saysSo = answer.reason == .packetIdentifierNotFound || plan.version < .v5_0
            let isSecond = saysSo && plan.stuttersPercent > 0
            if !hasGoneBack, !isSecond {
                note(.broken("\(packet) to the cloud for nothing that is in flight"))
            }
            if case .pubrec = packet, !answer.reason.isError {
                sendAnswer(.pubrel(Acknowledgement(answer.id)))
            }
            return
        }
        let sent = memory.inFlight[i]
        let name = sent.publishing.name
        switch packet {
        case .puback where sent.publishing.qos == .atLeastOnce:
            note(answer.reason.isError ? .denied(name, answer.reason) : .accepted(name))
            memory.inFlight.remove(at: i)
        case .pubrec where sent.publishing.qos == .exactlyOnce && answer.reason.isError:
            note(.denied(name, answer.reason))
            memory.inFlight.remove(at: i)
        case .pubrec where sent.publishing.qos == .exactlyOnce:
            if !sent.isReleased { note(.accepted(name)) }
            memory.inFlight[i].isReleased = true
            sendAnswer(.pubrel(Acknowledgement(answer.id)))
        case .pubcomp where sent.isReleased:
            memory.inFlight.remove(at: i)
        default:
            if !hasGoneBack { note(.broken("\(packet) to the cloud does not answer \(name)")) }
        }
    }
}
