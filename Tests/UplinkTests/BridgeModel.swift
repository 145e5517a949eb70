import GatewayCore
import MQTT

@testable import Uplink

/// A gateway and its cloud with nothing between them but packets that can be counted and lost: the real core, the
/// real ledger and engine, and a cloud that keeps the protocol's rules or breaks one of them.
///
/// On the local side "press" publishes to `sensors/…` and "valve" subscribes to `commands/…`. Every Record is
/// durable at once: power cuts are the core's tests' matter.
struct BridgeModel: ~Copyable {
    private var gateway: Gateway
    private var now = Instant(milliseconds: 1_000_000)
    private var seconds: UInt64 = 0
    private var records: [Record] = []
    private var inputs: [Input] = []

    private let plan: UplinkPlan
    private var conversation: Conversation?
    /// What the core wants of the next connection; nil when it wants none.
    private var cleanStart: Bool?
    private var isAnnounced = false
    private var decoder: PacketDecoder
    private(set) var losses: [LinkLoss] = []
    private(set) var cloud: ModelCloud

    /// Payloads that "valve" was sent, in order.
    private(set) var received: [String] = []
    private var known: Set<PacketIdentifier> = []
    private var nextIdentifier: UInt16 = 1
    private let press = ConnectionID(1)
    private let valve = ConnectionID(2)

    init(_ version: ProtocolVersion, _ manner: ModelCloud.Manner) {
        var routes = GatewayPlan()
        routes.uplinks = [
            UplinkRoutes(name: "cloud", out: [Self.route("sensors/#")], in: [Self.route("commands/#")])
        ]
        plan = UplinkPlan(
            name: "cloud", addresses: [UplinkAddress(host: "", port: 1)], clientIdentifier: "gw",
            version: version, keepAliveSeconds: 0, subscriptions: [UplinkTests.plan("commands/#")])
        cloud = ModelCloud(version, manner)
        decoder = PacketDecoder(receiver: .server, version: nil, maximumPacketSize: 100_000)
        var effects: [Effect] = []
        gateway = Gateway(plan: routes, state: DurableState(), lastPosition: .zero, now: now, into: &effects)
        carryOut(effects)
        for (id, name) in [(press, "press"), (valve, "valve")] {
            inputs.append(.opened(id, listener: 0))
            inputs.append(
                .received(
                    id,
                    .connect(Connect(clientIdentifier: name, cleanStart: false, sessionExpirySeconds: 3600))))
        }
        let request = SubscriptionRequest(
            filter: UplinkTests.plan("commands/#").filter, maximumQoS: .exactlyOnce)
        inputs.append(.received(valve, .subscribe(Subscribe(id: 1, requests: [request]))))
        settleCore()
    }

    private static func route(_ filter: String) -> UplinkRoutes.Route {
        UplinkRoutes.Route(filter: UplinkTests.plan(filter).filter, rename: nil, maximumQoS: .exactlyOnce)
    }

    // MARK: What a test does

    mutating func publishes(_ text: String, _ qos: QoS) {
        let message = ApplicationMessage(topic: Array("sensors/a".utf8), payload: Array(text.utf8))
        let id = PacketIdentifier(rawValue: nextIdentifier)
        nextIdentifier += 1
        inputs.append(.received(press, .publish(Publish(message: message, qos: qos, id: id))))
        settleCore()
    }

    mutating func cloudWakesUp() { cloud.wakesUp() }
    mutating func cloudPublishes(_ text: String, _ qos: QoS) { cloud.publishes(text, qos) }

    /// Connects, and lets packets pass until nothing moves any more or `packets` have passed, whichever way they
    /// went; the next one is lost, and the connection with it.
    ///
    /// - Returns: how many passed.
    @discardableResult
    mutating func connects(passing packets: Int = .max) throws -> Int {
        var left = packets
        guard let clean = cleanStart else { return 0 }
        let opening: UplinkOpening =
            !clean ? .resume(asBridge: false) : plan.version == .v5_0 ? .clean : .sweep(asBridge: false)
        conversation = try Conversation(plan: plan, opening: opening, now: seconds * 1000)
        decoder = PacketDecoder(receiver: .server, version: nil, maximumPacketSize: 100_000)
        while let conversation {
            settleCore()
            conversation.flush()
            var moved = false
            let bytes = conversation.takeWireBytes()
            bytes.withUnsafeBytes { decoder.append($0) }
            while let packet = try decoder.next() {
                guard left > 0 else { return cut(packets) }
                left -= 1
                moved = true
                cloud.receives(packet)
            }
            if let ending = conversation.ending {
                losses.append(ending)
                if ending == .swept { cleanStart = false }
                let passed = packets - left
                lose()
                return ending == .swept ? passed + (try connects(passing: left)) : passed
            }
            for packet in cloud.takeAnswers() {
                guard left > 0 else { return cut(packets) }
                left -= 1
                moved = true
                var bytes: [UInt8] = []
                packet.encode(version: plan.version, into: &bytes)
                bytes.withUnsafeBytes { conversation.received($0) }
            }
            for event in conversation.takeEvents() {
                moved = true
                if case .connected = event {
                    isAnnounced = true
                    cleanStart = false
                }
                inputs.append(.uplink(UplinkIndex(0), event))
            }
            if !moved { return packets - left }
        }
        return packets - left
    }

    /// The line is cut.
    mutating func loses() { _ = cut(0) }

    /// Time passes on an open connection.
    mutating func passes(seconds count: UInt64) {
        seconds += count
        conversation?.tick(now: seconds * 1000)
        if let ending = conversation?.ending {
            losses.append(ending)
            lose()
        }
    }

    private mutating func cut(_ packets: Int) -> Int {
        lose()
        return packets
    }

    private mutating func lose() {
        conversation = nil
        cloud.loses()
        if isAnnounced {
            isAnnounced = false
            inputs.append(.uplink(UplinkIndex(0), .disconnected))
        }
        settleCore()
    }

    // MARK: The core and its clients

    private mutating func settleCore() {
        while !inputs.isEmpty {
            let input = inputs.removeFirst()
            var effects: [Effect] = []
            gateway.handle(input, at: now, into: &effects)
            carryOut(effects)
        }
    }

    private mutating func carryOut(_ effects: [Effect]) {
        let before = records.count
        for effect in effects {
            switch effect {
            case .append(let record, _): records.append(record)
            case .send(let id, let packet): answers(packet, on: id)
            case .uplink(_, .open(let cleanStart)): self.cleanStart = cleanStart
            case .uplink(_, .send(let packet)): conversation?.perform(packet)
            case .uplink(_, .subscribe): conversation?.subscribe()
            case .load(let session, let positions, let target):
                inputs.append(.storage(.loaded(session, positions.map { ($0, message($0, for: target)) })))
            // Everything is on disk already.
            case .uplink, .elide, .hasten, .index, .close, .reading, .packetSize, .report: break
            }
        }
        if records.count > before {
            inputs.append(.storage(.durable(upTo: Position(UInt64(records.count)))))
        }
    }

    private func message(_ position: Position, for session: SessionID) -> StoredMessage? {
        guard case .message(let record) = records[Int(position.number) - 1] else { return nil }
        return StoredMessage(record, for: session)
    }

    private mutating func answers(_ packet: Packet, on id: ConnectionID) {
        switch packet {
        case .pubrec(let ack): inputs.append(.received(id, .pubrel(Acknowledgement(ack.id))))
        case .pubrel(let ack):
            known.remove(ack.id)
            inputs.append(.received(id, .pubcomp(Acknowledgement(ack.id))))
        case .publish(let publish):
            guard let packetID = publish.id else { return }
            let isNew = publish.qos < .exactlyOnce || known.insert(packetID).inserted
            if isNew { received.append(String(decoding: publish.message.payload, as: UTF8.self)) }
            let ack = Acknowledgement(packetID)
            inputs.append(.received(id, publish.qos == .exactlyOnce ? .pubrec(ack) : .puback(ack)))
        default: return
        }
    }
}

/// A broker with one session, in the manner that a test wants.
struct ModelCloud {
    enum Manner: CaseIterable {
        /// As the specification says.
        case faithful
        /// Its session ends with each connection.
        case forgets
        /// It says everything twice, messages with DUP.
        case repeats
        /// It answers what came together in the opposite order.
        case reorders
        /// Until it wakes up it answers nothing but CONNECT and SUBSCRIBE.
        case silent
        /// It takes no message whose text begins with "no".
        case refuses
    }

    private let version: ProtocolVersion
    private let manner: Manner
    private var isAwake = false
    private var isConnected = false
    private var hasSession = false
    private var isSubscribed = false
    /// QoS 2 messages taken and not released.
    private var taken: Set<PacketIdentifier> = []
    private var waiting: [(text: String, qos: QoS)] = []
    private var inFlight: [(id: PacketIdentifier, text: String, qos: QoS, isReleased: Bool)] = []
    private var nextIdentifier: UInt16 = 1
    private var answers: [Packet] = []
    /// Payloads it took, in order; QoS 2 when they were new.
    private(set) var delivered: [String] = []
    /// How many bytes of the protocol made no sense to it.
    private(set) var surprises: [Packet] = []

    init(_ version: ProtocolVersion, _ manner: Manner) {
        self.version = version
        self.manner = manner
    }

    /// Whether nothing is owed in either direction.
    var isAtRest: Bool { waiting.isEmpty && inFlight.isEmpty && taken.isEmpty }

    mutating func publishes(_ text: String, _ qos: QoS) {
        waiting.append((text, qos))
        sendWaiting()
    }

    mutating func wakesUp() { isAwake = true }

    mutating func loses() {
        answers = []
        isConnected = false
        if manner == .forgets { end() }
    }

    private mutating func end() {
        hasSession = false
        isSubscribed = false
        taken = []
        waiting = []
        inFlight = []
    }

    mutating func takeAnswers() -> [Packet] {
        defer { answers = [] }
        guard manner == .reorders else { return answers }
        // CONNACK is the first packet even so [MQTT5-3.2.0-1].
        let first = answers.prefix { if case .connack = $0 { true } else { false } }
        return first + answers.dropFirst(first.count).reversed()
    }

    mutating func receives(_ packet: Packet) {
        switch packet {
        case .connect(let connect): welcome(connect)
        case .subscribe(let subscribe):
            isSubscribed = true
            answers.append(
                .suback(Suback(id: subscribe.id, reasons: subscribe.requests.map { _ in .grantedQoS2 })))
            sendWaiting()
        case .publish(let publish): take(publish)
        case .pubrel(let ack):
            taken.remove(ack.id)
            answer(.pubcomp(Acknowledgement(ack.id)))
        case .puback(let ack):
            inFlight.removeAll { $0.id == ack.id && $0.qos == .atLeastOnce }
        case .pubrec(let ack):
            if let n = inFlight.firstIndex(where: { $0.id == ack.id }) { inFlight[n].isReleased = true }
            answer(.pubrel(Acknowledgement(ack.id)))
        case .pubcomp(let ack):
            inFlight.removeAll { $0.id == ack.id && $0.isReleased }
        case .disconnect: break
        default: surprises.append(packet)
        }
    }

    private mutating func welcome(_ connect: Connect) {
        isConnected = true
        if connect.cleanStart { end() }
        answers.append(.connack(Connack(sessionPresent: hasSession, reason: .success)))
        hasSession = !(connect.cleanStart && version < .v5_0)
        for message in inFlight {
            answer(
                message.isReleased ? .pubrel(Acknowledgement(message.id)) : publish(message, duplicate: true))
        }
        sendWaiting()
    }

    private mutating func take(_ publish: Publish) {
        let text = String(decoding: publish.message.payload, as: UTF8.self)
        guard let id = publish.id else { return delivered.append(text) }
        if manner == .refuses, text.hasPrefix("no") {
            let ack = Acknowledgement(id, .quotaExceeded)
            return answer(publish.qos == .exactlyOnce ? .pubrec(ack) : .puback(ack))
        }
        if publish.qos == .exactlyOnce {
            if taken.insert(id).inserted { delivered.append(text) }
            answer(.pubrec(Acknowledgement(id)))
        } else {
            delivered.append(text)
            answer(.puback(Acknowledgement(id)))
        }
    }

    private mutating func sendWaiting() {
        guard isConnected, isSubscribed else { return }
        for (text, qos) in waiting {
            guard let id = PacketIdentifier(rawValue: nextIdentifier) else { continue }
            nextIdentifier += 1
            inFlight.append((id, text, qos, false))
            answer(publish((id, text, qos, false), duplicate: false))
        }
        waiting = []
    }

    private func publish(
        _ message: (id: PacketIdentifier, text: String, qos: QoS, isReleased: Bool), duplicate: Bool
    )
        -> Packet
    {
        .publish(
            Publish(
                message: ApplicationMessage(
                    topic: Array("commands/a".utf8), payload: Array(message.text.utf8)),
                qos: message.qos, id: message.id, duplicate: duplicate))
    }

    private mutating func answer(_ packet: Packet) {
        if manner == .silent, !isAwake { return }
        answers.append(packet)
        guard manner == .repeats else { return }
        if case .publish(var again) = packet {
            again.duplicate = true
            answers.append(.publish(again))
        } else {
            answers.append(packet)
        }
    }
}
