import GatewayCore
import MQTT

/// What stands between libmosquitto and the cloud for the life of one network connection, and keeps the
/// promises neither would keep alone.
///
/// *Outbound*, the engine speaks QoS 0 and 1 under identifiers of its own. The ledger carries each message at
/// its true QoS under the queue's durable Packet Identifier, with DUP, properties and expiry as the core said,
/// and acknowledges it to the engine when the cloud is done with it. *Inbound*, the engine is shown every
/// message at QoS 1 at most, and its PUBACK ends here: only the core knows when a message is durable, so all
/// acknowledgements towards the cloud are the core's.
///
/// Pure: packets in, outputs out, in order. It never waits and has no clock but `tick`.
package struct HandshakeLedger {
    /// What is to be done, in order; each is to be finished before the ledger hears of anything else.
    package enum Output: Hashable, Sendable {
        case wire(Packet)
        case engine(Packet)
        /// Ask the engine to publish and answer with `published(_:as:into:)`.
        case publish(Publish)
        /// Ask the engine to subscribe and answer with `subscribed(to:as:)`.
        case subscribe(SubscriptionRequest)
        case event(UplinkEvent)
        case notice(UplinkNotice)
        /// The connection is over once what stands before this was written. Nothing follows.
        case over(LinkLoss)
    }

    /// Packet Identifiers on the wire that the queue never uses, for SUBSCRIBE.
    package static let ownIdentifiers: ClosedRange<UInt16> = 0x7001...0x7FFF

    private enum Phase: Equatable {
        /// Until CONNACK.
        case greeting
        /// The engine reads CONNACK.
        case welcomed(UplinkTerms)
        case open
        case over
    }

    private let plan: UplinkPlan
    private let opening: UplinkOpening
    private let held: HeldByCloud
    private var phase = Phase.greeting
    private var keepAliveSeconds: UInt16
    /// What CONNACK said; before it, what it says by saying nothing.
    private var terms: UplinkTerms

    /// What the cloud owes an answer, by its identifier on the wire, with the engine's own identifier; nil
    /// where the engine has no part in it. Bounded by the cloud's Receive Maximum, which the core obeys.
    private var inFlight: [PacketIdentifier: PacketIdentifier?] = [:]
    /// The engine's identifiers of all it was given at QoS 1 and that is not finished.
    private var engineIdentifiers: Set<PacketIdentifier> = []
    /// What the engine was given at QoS 1 and has not written: by the engine's identifier.
    private var handedOver: [PacketIdentifier: Publish] = [:]
    /// What the engine was given at QoS 0 and has not written, in order; no identifier tells them apart.
    private var handedOverQoS0: [Publish] = []
    /// Shown to the engine, until its callback, in order.
    private var shown: [Publish] = []

    private var handedOverSubscriptions: [PacketIdentifier: TopicFilter] = [:]
    private var subscribing: [PacketIdentifier: (mid: PacketIdentifier, filter: TopicFilter)] = [:]
    private var nextOwnIdentifier = HandshakeLedger.ownIdentifiers.lowerBound

    /// Messages of which the cloud sent PUBREC and no PUBCOMP yet, in its present session: it holds them until
    /// PUBREL.
    package private(set) var unreleased: Set<PacketIdentifier>
    /// Those of them that the core does not know of any more, and that are released here.
    private var releasing: Set<PacketIdentifier> = []
    /// Of the status message in flight; nil when there is none. One of our own identifiers.
    private var statusIdentifier: PacketIdentifier?
    /// Of the status messages of this connection.
    private var statusQoS = QoS.atMostOnce
    /// nil when the cloud takes none, or none are wanted.
    private var aliases: TopicAliases?

    // The clock, in milliseconds: what `tick` last said.
    private var now: UInt64
    private var lastWritten: UInt64
    private var pingedAt: UInt64?
    private var lastProgress: UInt64

    /// - Parameters:
    ///   - now: milliseconds of any clock that does not jump, the same that `tick` is given.
    ///   - held: what an earlier connection to the same address left unreleased.
    package init(plan: UplinkPlan, opening: UplinkOpening, now: UInt64, held: HeldByCloud = HeldByCloud()) {
        self.unreleased = held.identifiers
        self.held = held
        self.plan = plan
        self.opening = opening
        self.keepAliveSeconds = plan.keepAliveSeconds
        self.terms = UplinkTerms(version: plan.version, sessionPresent: false)
        self.now = now
        self.lastWritten = now
        self.lastProgress = now
    }

    /// Whether the core's packets are taken.
    package var isOpen: Bool { phase == .open }

    // MARK: From the cloud

    package mutating func fromWire(_ packet: Packet, into outputs: inout [Output]) {
        switch phase {
        case .greeting:
            if case .connack(let connack) = packet {
                greeted(connack, &outputs)
            } else {
                broken(.protocolError, &outputs)
            }
        case .open:
            opened(packet, &outputs)
        case .welcomed:
            // The engine reads a whole CONNACK at once, so nothing comes in between.
            broken(.protocolError, &outputs)
        case .over:
            break
        }
    }

    /// A PUBLISH from the cloud that is larger than we take, without its payload. The engine is not shown it.
    package mutating func tooLarge(_ publish: Publish, into outputs: inout [Output]) {
        guard phase == .open else { return fromWire(.publish(publish), into: &outputs) }
        outputs.append(.event(.receivedTooLarge(publish)))
    }

    private mutating func opened(_ packet: Packet, _ outputs: inout [Output]) {
        switch packet {
        case .publish(let publish):
            arrived(publish, &outputs)
        case .puback(let ack) where ack.id == statusIdentifier,
            .pubrec(let ack) where ack.id == statusIdentifier,
            .pubcomp(let ack) where ack.id == statusIdentifier:
            statusAnswered(packet, ack, &outputs)
        case .pubcomp(let ack) where releasing.remove(ack.id) != nil:
            unreleased.remove(ack.id)
        case .puback(let ack), .pubcomp(let ack):
            unreleased.remove(ack.id)
            outputs.append(.event(.received(packet)))
            finished(ack.id, &outputs)
        case .pubrec(let ack):
            // The core makes it durable and then orders PUBREL; an error ends the message [MQTT5-4.3.3].
            outputs.append(.event(.received(packet)))
            if ack.reason.isError {
                finished(ack.id, &outputs)
            } else {
                unreleased.insert(ack.id)
                lastProgress = now
            }
        case .pubrel:
            outputs.append(.event(.received(packet)))
        case .suback(let suback):
            subscribed(suback, &outputs)
        case .pingresp:
            pingedAt = nil
            outputs.append(.engine(.pingresp))
        case .disconnect(let disconnect):
            end(.disconnected(disconnect.reason), &outputs)
        case .connect, .connack, .subscribe, .unsubscribe, .unsuback, .pingreq, .auth:
            broken(.protocolError, &outputs)
        }
    }

    /// CONNACK [MQTT5-3.2].
    private mutating func greeted(_ connack: Connack, _ outputs: inout [Output]) {
        guard !connack.reason.isError else { return end(.refused(connack.reason), &outputs) }
        switch opening {
        case .sweep:
            // What matters has happened: the cloud forgot our session.
            outputs.append(.wire(.disconnect(Disconnect())))
            return end(.swept, &outputs)
        case .clean where connack.sessionPresent:
            return broken(.protocolError, &outputs)  // [MQTT5-3.2.2-2]
        case .clean, .resume:
            break
        }
        if let name = connack.assignedClientIdentifier, name != plan.clientIdentifier {
            outputs.append(.wire(.disconnect(Disconnect(.protocolError))))
            return end(.renamed(name), &outputs)
        }
        // [MQTT5-3.2.2-21]: the cloud's Keep Alive replaces ours.
        if let seconds = connack.serverKeepAliveSeconds { keepAliveSeconds = seconds }
        if let seconds = connack.sessionExpirySeconds, seconds < plan.sessionExpirySeconds {
            outputs.append(.notice(.sessionExpiryShortened(seconds: seconds)))
        }
        takeTerms(of: connack)
        if terms.maximumQoS < .exactlyOnce { outputs.append(.notice(.maximumQoS(terms.maximumQoS))) }
        if !terms.retainAvailable { outputs.append(.notice(.retainNotAvailable)) }
        aliases = TopicAliases(peerMaximum: connack.topicAliasMaximum, countMax: Int(plan.topicAliasMax))
        phase = .welcomed(terms)
        // Without limits to act on: those are the core's to obey. A fresh engine has no session either.
        outputs.append(
            .engine(
                .connack(
                    Connack(
                        sessionPresent: false, reason: .success,
                        serverKeepAliveSeconds: plan.version == .v5_0 ? connack.serverKeepAliveSeconds : nil))
            ))
    }

    private mutating func takeTerms(of connack: Connack) {
        let maximumQoS = connack.maximumQoS ?? .exactlyOnce
        var receiveMaximum = connack.receiveMaximum ?? .max
        // One of what the cloud takes at a time is kept for the status message, unless that leaves none
        // [MQTT5-3.3.4-7].
        statusQoS = receiveMaximum > 1 ? min(plan.status?.qos ?? .atMostOnce, maximumQoS) : .atMostOnce
        if statusQoS > .atMostOnce { receiveMaximum -= 1 }
        terms = UplinkTerms(
            version: plan.version, sessionPresent: connack.sessionPresent,
            receiveMaximum: min(receiveMaximum, plan.inFlightMaximum), maximumQoS: maximumQoS,
            maximumPacketSize: connack.maximumPacketSize, retainAvailable: connack.retainAvailable ?? true,
            returnsOwnMessages: plan.version < .v5_0 && !opening.asBridge)
    }

    /// A message of the cloud: to the engine, at QoS 1 at most.
    private mutating func arrived(_ publish: Publish, _ outputs: inout [Output]) {
        guard publish.topicAlias == nil else {
            return broken(.topicAliasInvalid, &outputs)  // We allowed none [MQTT5-3.3.2-11].
        }
        // Not held to our Receive Maximum: mosquitto 2.0 sends a resumed session's whole backlog past it, and
        // hanging up would only make it begin anew, for ever. There are 65 535 identifiers at most, and what
        // bears them goes into the journal, not into memory.
        guard EngineRules.accept(topic: publish.message.topic) else {
            return outputs.append(.event(.received(.publish(publish))))
        }
        shown.append(publish)
        let bare =
            publish.message.properties.isEmpty
            ? publish.message
            : ApplicationMessage(topic: publish.message.topic, payload: publish.message.payload)
        outputs.append(
            .engine(
                .publish(
                    Publish(
                        message: bare, qos: min(publish.qos, .atLeastOnce), id: publish.id,
                        retain: publish.retain))))
    }

    /// The cloud is done with a message: the core settles it, the engine forgets it.
    private mutating func finished(_ id: PacketIdentifier, _ outputs: inout [Output]) {
        lastProgress = now
        guard case .some(.some(let mid)) = inFlight.removeValue(forKey: id) else { return }
        engineIdentifiers.remove(mid)
        outputs.append(.engine(.puback(Acknowledgement(mid))))
    }

    private mutating func subscribed(_ suback: Suback, _ outputs: inout [Output]) {
        guard let (mid, filter) = subscribing.removeValue(forKey: suback.id) else { return }
        for reason in suback.reasons where reason.isError {
            outputs.append(.notice(.subscriptionRefused(filter, reason)))
        }
        outputs.append(.engine(.suback(Suback(id: mid, reasons: suback.reasons))))
    }

    // MARK: From the core

    /// PUBLISH, PUBREL or an acknowledgement; ignored unless the connection is open, because the core says
    /// everything again when the next one opens.
    package mutating func fromCore(_ packet: Packet, into outputs: inout [Output]) {
        guard phase == .open else { return }
        switch packet {
        case .publish(let publish):
            outputs.append(.publish(publish))
        case .pubrel(let ack):
            // A resumed PUBREL is the first this connection hears of its message.
            if inFlight.index(forKey: ack.id) == nil { flies(ack.id, mid: nil) }
            write(packet, &outputs)
        case .puback, .pubrec, .pubcomp:
            write(packet, &outputs)
        case .connect, .connack, .subscribe, .suback, .unsubscribe, .unsuback, .pingreq, .pingresp,
            .disconnect,
            .auth:
            preconditionFailure("the core speaks PUBLISH and its acknowledgements only")
        }
    }

    /// Subscribes to what the routes ask for; ignored like a packet unless the connection is open.
    package mutating func subscribe(into outputs: inout [Output]) {
        guard phase == .open else { return }
        for subscription in plan.subscriptions { outputs.append(.subscribe(request(subscription))) }
    }

    /// Says goodbye [MQTT5-3.14].
    ///
    /// - Parameter saysOffline: not when another connection follows at once.
    package mutating func leave(saysOffline: Bool = true, into outputs: inout [Output]) {
        guard phase != .over else { return }
        // DISCONNECT makes the cloud forget our Will [MQTT5-3.1.2-10]. Its acknowledgement nobody waits for, so at QoS 2
        // the cloud would hold it for a PUBREL that never comes.
        if saysOffline, let status = plan.status {
            statusQoS = min(statusQoS, .atLeastOnce)
            publish(status, status.offline, &outputs)
        }
        if phase != .greeting { write(.disconnect(Disconnect()), &outputs) }
        end(.asked, &outputs)
    }

    // MARK: From the engine

    package mutating func fromEngine(_ packet: Packet, into outputs: inout [Output]) {
        guard phase != .over else { return }
        switch packet {
        case .connect:
            write(.connect(connect()), &outputs)
        case .publish(let publish):
            wrote(publish, &outputs)
        case .puback:
            // For a message of the cloud. The core acknowledges it once it is durable.
            break
        case .subscribe(let subscribe):
            wrote(subscribe, &outputs)
        case .pingreq:
            ping(&outputs)
        case .disconnect(let disconnect):
            write(packet, &outputs)
            end(.engine("gave up with reason code \(disconnect.reason.rawValue)"), &outputs)
        case .connack, .pubrec, .pubrel, .pubcomp, .suback, .unsubscribe, .unsuback, .pingresp, .auth:
            end(.engine("sent a packet it had no cause for"), &outputs)
        }
    }

    /// The engine took a message under an identifier of its own, or would not (`mid` nil), in which case it
    /// goes to the cloud around the engine: its topic is legal MQTT and was acknowledged to its publisher.
    package mutating func published(
        _ publish: Publish, as mid: PacketIdentifier?, into outputs: inout [Output]
    ) {
        guard phase == .open else { return }
        switch (publish.qos, mid) {
        case (.atMostOnce, .some):
            handedOverQoS0.append(publish)
        case (_, .some(let mid)):
            // The library counts to 65 535 and starts again without looking what is still in flight.
            guard engineIdentifiers.insert(mid).inserted else {
                return end(.engine("its packet identifiers ran out"), &outputs)
            }
            handedOver[mid] = publish
        case (_, .none):
            if let id = publish.id { flies(id, mid: nil) }
            write(.publish(publish), &outputs)
        }
    }

    /// The engine took a subscription under an identifier of its own.
    package mutating func subscribed(to filter: TopicFilter, as mid: PacketIdentifier) {
        handedOverSubscriptions[mid] = filter
    }

    /// The engine read CONNACK: the core may begin.
    package mutating func engineConnected(into outputs: inout [Output]) {
        guard case .welcomed(let terms) = phase else { return }
        phase = .open
        lastProgress = now
        if !terms.sessionPresent { unreleased = [] }
        if held.isForgotten { releaseHeld(&outputs) }
        outputs.append(.event(.connected(terms)))
        if let status = plan.status { publish(status, status.online, &outputs) }
    }

    /// PUBREL for what this session holds of us while the core counts from another one's beginning: without it those
    /// messages would never go further, and new ones under their identifiers be taken for them.
    private mutating func releaseHeld(_ outputs: inout [Output]) {
        releasing = unreleased
        for id in releasing.sorted() { write(.pubrel(Acknowledgement(id)), &outputs) }
    }

    /// The engine's callback for a message: now the core may have it.
    ///
    /// - Parameter id: 0 for QoS 0.
    package mutating func engineReceived(id: UInt16, payloadBytes: Int, into outputs: inout [Output]) {
        guard phase == .open else { return }
        guard let publish = shown.first, (publish.id?.rawValue ?? 0) == id,
            publish.message.payload.count == payloadBytes
        else { return end(.engine("delivered a message it was not given"), &outputs) }
        shown.removeFirst()
        outputs.append(.event(.received(.publish(publish))))
    }

    package mutating func engineFailed(_ words: String, into outputs: inout [Output]) {
        end(.engine(words), &outputs)
    }

    /// A PUBLISH leaves the engine: in its place the core's leaves for the cloud.
    private mutating func wrote(_ publish: Publish, _ outputs: inout [Output]) {
        guard let mid = publish.id else {
            guard !handedOverQoS0.isEmpty else { return end(.engine("made up a message"), &outputs) }
            return write(.publish(handedOverQoS0.removeFirst()), &outputs)
        }
        guard let message = handedOver.removeValue(forKey: mid), let id = message.id else {
            return end(.engine("made up a message"), &outputs)
        }
        flies(id, mid: mid)
        write(.publish(message), &outputs)
    }

    /// A SUBSCRIBE leaves the engine, under an identifier no message uses.
    private mutating func wrote(_ subscribe: Subscribe, _ outputs: inout [Output]) {
        guard let filter = handedOverSubscriptions.removeValue(forKey: subscribe.id),
            let id = takeOwnIdentifier()
        else { return end(.engine("made up a subscription"), &outputs) }
        subscribing[id] = (subscribe.id, filter)
        var translated = subscribe
        translated.id = id
        write(.subscribe(translated), &outputs)
    }

    private mutating func takeOwnIdentifier() -> PacketIdentifier? {
        defer {
            nextOwnIdentifier =
                nextOwnIdentifier == Self.ownIdentifiers.upperBound
                ? Self.ownIdentifiers.lowerBound : nextOwnIdentifier + 1
        }
        return PacketIdentifier(rawValue: nextOwnIdentifier)
    }

    // MARK: Our status

    /// Tells the cloud whether we are connected: beside the engine and the core, whom this message is nothing to.
    private mutating func publish(_ status: UplinkStatus, _ payload: [UInt8], _ outputs: inout [Output]) {
        guard phase == .open else { return }
        let qos = statusIdentifier == nil ? statusQoS : .atMostOnce
        var publish = Publish(
            message: ApplicationMessage(topic: status.topic, payload: payload), qos: qos,
            retain: status.retain && terms.retainAvailable)
        if qos > .atMostOnce {
            publish.id = takeOwnIdentifier()
            statusIdentifier = publish.id
        }
        write(.publish(publish), &outputs)
    }

    private mutating func statusAnswered(_ packet: Packet, _ ack: Acknowledgement, _ outputs: inout [Output])
    {
        if case .pubrec = packet, !ack.reason.isError {
            write(.pubrel(Acknowledgement(ack.id)), &outputs)
        } else {
            statusIdentifier = nil
            if ack.reason.isError { outputs.append(.notice(.statusRefused(ack.reason))) }
        }
    }

    /// The engine's CONNECT as the cloud is to see it. Credentials, session and limits are written here: the
    /// library would cut a password at a zero byte, and it has no session of its own.
    private func connect() -> Connect {
        let isV5 = plan.version == .v5_0
        return Connect(
            version: plan.version, clientIdentifier: plan.clientIdentifier, cleanStart: opening.cleanStart,
            keepAliveSeconds: plan.keepAliveSeconds, userName: plan.userName, password: plan.password,
            will: plan.will ?? plan.status?.will,
            sessionExpirySeconds: isV5 ? plan.sessionExpirySeconds : nil,
            receiveMaximum: isV5 ? plan.receiveMaximum : nil,
            maximumPacketSize: isV5 ? plan.maximumPacketSize : nil, topicAliasMaximum: nil,
            isBridge: !isV5 && opening.asBridge)
    }

    /// No Local keeps what we publish from coming back; Retain Handling 1 sends retained messages only where
    /// the subscription is new, not at each reconnection [MQTT5-3.8.3.1].
    private func request(_ subscription: UplinkPlan.Subscription) -> SubscriptionRequest {
        guard plan.version == .v5_0 else {
            return SubscriptionRequest(filter: subscription.filter, maximumQoS: subscription.maximumQoS)
        }
        return SubscriptionRequest(
            filter: subscription.filter, maximumQoS: subscription.maximumQoS,
            noLocal: subscription.filter.shareName == nil,  // [MQTT5-3.8.3-4]
            retainAsPublished: true, retainHandling: .sendIfNewSubscription)
    }

    // MARK: Time

    /// Looks at the clocks: CONNACK, keep-alive and acknowledgements.
    package mutating func tick(now: UInt64, into outputs: inout [Output]) {
        self.now = now
        switch phase {
        case .greeting:
            if since(lastProgress, plan.connectTimeoutSeconds) { end(.noConnack, &outputs) }
        case .open:
            let keepAlive = Int64(keepAliveSeconds)
            if let pingedAt, since(pingedAt, max(keepAlive, 1)) {
                return end(.noPingresp, &outputs)
            }
            if !inFlight.isEmpty, plan.ackWatchdogSeconds > 0, since(lastProgress, plan.ackWatchdogSeconds) {
                return end(.noAcknowledgement, &outputs)
            }
            // The engine pings by what it wrote, but not all it wrote went to the cloud [MQTT5-3.1.2-20].
            if keepAlive > 0, since(lastWritten, keepAlive) { ping(&outputs) }
        case .welcomed, .over:
            break
        }
    }

    private mutating func ping(_ outputs: inout [Output]) {
        guard pingedAt == nil else { return }
        pingedAt = now
        write(.pingreq, &outputs)
    }

    private func since(_ moment: UInt64, _ seconds: Int64) -> Bool {
        now >= moment + UInt64(max(0, seconds)) * 1000
    }

    // MARK: Endings

    private mutating func flies(_ id: PacketIdentifier, mid: PacketIdentifier?) {
        // The watchdog's time runs from the moment something is owed.
        if inFlight.isEmpty { lastProgress = now }
        inFlight[id] = .some(mid)
    }

    private mutating func write(_ packet: Packet, _ outputs: inout [Output]) {
        lastWritten = now
        if case .publish(var publish) = packet, aliases != nil {
            aliases?.apply(to: &publish, packetBytesMax: terms.maximumPacketSize)
            return outputs.append(.wire(.publish(publish)))
        }
        outputs.append(.wire(packet))
    }

    /// The cloud broke a rule: MQTT 5 tells it which [MQTT5-4.13.1-1].
    private mutating func broken(_ reason: ReasonCode, _ outputs: inout [Output]) {
        if plan.version == .v5_0 { outputs.append(.wire(.disconnect(Disconnect(reason)))) }
        end(.protocolError(reason), &outputs)
    }

    private mutating func end(_ loss: LinkLoss, _ outputs: inout [Output]) {
        guard phase != .over else { return }
        phase = .over
        outputs.append(.over(loss))
    }
}

/// What a session of the cloud's holds of our QoS 2 messages, from one connection to the next.
package struct HeldByCloud: Hashable, Sendable {
    package var identifiers: Set<PacketIdentifier> = []
    /// Another address has begun a new session since, so the core does not know of these any more.
    package var isForgotten = false

    package init() {}
}

/// How one connection begins.
package enum UplinkOpening: Hashable, Sendable {
    /// Continue the cloud's session, if it has one.
    case resume(asBridge: Bool)
    /// MQTT 5: forget the old session and begin one that lasts.
    case clean
    /// 3.1.1 cannot say that in one CONNECT: connect with Clean Session 1 and leave; `resume` comes next.
    case sweep(asBridge: Bool)

    /// Clean Start, or Clean Session before MQTT 5.
    package var cleanStart: Bool {
        switch self {
        case .resume: false
        case .clean, .sweep: true
        }
    }

    /// Whether to set the bit by which Mosquitto's bridges say that their own messages shall not come back.
    package var asBridge: Bool {
        switch self {
        case .resume(let asBridge), .sweep(let asBridge): asBridge
        case .clean: false
        }
    }
}

/// Where libmosquitto is narrower than MQTT.
package enum EngineRules {
    /// Whether the library reads a PUBLISH with this Topic Name; it hangs up on the others. It wants no
    /// control characters and no non-characters, which MQTT allows.
    ///
    /// - Complexity: O(bytes)
    package static func accept(topic: ArraySlice<UInt8>) -> Bool {
        var plain = true
        for byte in topic {
            if byte < 0x20 || byte >= 0x7F { plain = false }
        }
        guard !topic.isEmpty else { return false }
        return plain
            || String(decoding: topic, as: UTF8.self).unicodeScalars.allSatisfy { scalar in
                switch scalar.value {
                case 0...0x1F, 0x7F...0x9F, 0xFDD0...0xFDEF: false
                default: scalar.value & 0xFFFE != 0xFFFE
                }
            }
    }
}
