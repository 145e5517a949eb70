import GatewayCore
import MQTT

@testable import Journal

/// A client of the gateway, or the cloud, that follows the specification: what it publishes it repeats until it is
/// acknowledged, and what it receives at QoS 2 it takes once.
struct Villager {
    let name: String
    var version = ProtocolVersion.v5_0
    var isCloud = false
    var subscription: (filter: String, qos: QoS)?
    var receiveMaximum: UInt16?
    /// Below this topic it publishes; nil for who does not.
    var topic: String?

    var connection: ConnectionID?
    var isOpen = false
    /// CONNACK came; of the cloud: it was subscribed to.
    private(set) var isReady = false
    var inbox: [Packet] = []

    // What outlives its connections.

    /// The gateway said that it has the Session.
    private(set) var hasSession = false
    private(set) var isSubscribed = false
    private var nextNumber = 1
    private var nextIdentifier: UInt16 = 1
    /// In the order of sending; a released one has been PUBREC'd and awaits PUBCOMP.
    private(set) var inFlight: [Sent] = []
    /// What was published and not refused.
    private(set) var published: [Sent] = []
    /// What was refused; an earlier copy of it, sent on a connection that was cut, may have been taken.
    private(set) var refused: [Sent] = []
    private var heldIDs: Set<PacketIdentifier> = []
    /// In the order of arrival.
    private(set) var received: [String] = []
    /// Of the cloud: whether the gateway wants a connection, and whether the first is to be a clean start.
    private(set) var isWanted = false
    private var startsClean = false

    struct Sent {
        var id: PacketIdentifier
        var text: String
        var topic: String
        var qos: QoS
        var retain: Bool
        var padding: Int
        var isReleased = false

        func packet(duplicate: Bool) -> Packet {
            let payload = Array((text + " " + String(repeating: ".", count: padding)).utf8)
            return .publish(
                Publish(
                    message: ApplicationMessage(topic: Array(topic.utf8), payload: payload), qos: qos, id: id,
                    retain: retain, duplicate: duplicate))
        }
    }

    init(_ name: String) { self.name = name }

    var connect: Connect {
        Connect(
            version: version, clientIdentifier: name, cleanStart: false,
            sessionExpirySeconds: version == .v5_0 ? .max : nil, receiveMaximum: receiveMaximum)
    }

    // MARK: Links

    mutating func opens(_ id: ConnectionID) {
        connection = id
        isOpen = true
    }

    mutating func isCut() {
        connection = nil
        isOpen = false
        isReady = false
        inbox = []
    }

    /// - Returns: whether the cloud has a Session.
    mutating func linksUp() -> Bool {
        isOpen = true
        if startsClean {
            hasSession = false
            inFlight = []
            heldIDs = []
            startsClean = false
        }
        // What it published before and nobody acknowledged it sends again, SUBSCRIBE or not.
        if isSubscribed { inbox.append(Self.mayPublish) }
        defer { hasSession = true }
        return hasSession
    }

    private static let mayPublish = Packet.connack(Connack(sessionPresent: true, reason: .success))

    /// A command to the uplink.
    mutating func heard(_ command: UplinkCommand, _ faults: inout [String]) {
        switch command {
        case .open(let cleanStart):
            isWanted = true
            startsClean = cleanStart
            if cleanStart, isSubscribed { faults.append("the cloud's session is forgotten") }
        case .send(let packet): if isOpen { inbox.append(packet) }
        case .subscribe:
            guard isOpen, !isSubscribed else { return }
            isSubscribed = true
            inbox.append(Self.mayPublish)
        case .close, .reconnect: isWanted = false
        }
    }

    // MARK: Publishing

    /// Few identifiers, used over and over.
    mutating func publish(_ qos: QoS, retain: Bool, padding: Int) -> Packet? {
        guard let topic, isReady, inFlight.count < 5 else { return nil }
        var id: PacketIdentifier
        repeat {
            id = PacketIdentifier(rawValue: nextIdentifier) ?? 1
            nextIdentifier = nextIdentifier % 7 + 1
        } while inFlight.contains { $0.id == id }
        let sent = Sent(
            id: id, text: "\(name)-\(qos.rawValue)-\(nextNumber)",
            topic: retain ? "\(topic)/kept-\(qos.rawValue)" : topic,
            qos: qos, retain: retain, padding: padding)
        nextNumber += 1
        inFlight.append(sent)
        published.append(sent)
        return sent.packet(duplicate: false)
    }

    // MARK: Hearing

    /// Takes so many packets, and says what it answers.
    mutating func hear(_ count: Int, _ faults: inout [String]) -> [Packet] {
        guard isOpen else { return [] }
        let packets = inbox.prefix(count)
        inbox.removeFirst(packets.count)
        return packets.flatMap { answers(to: $0, &faults) }
    }

    private mutating func answers(to packet: Packet, _ faults: inout [String]) -> [Packet] {
        switch packet {
        case .connack(let connack): return connected(connack, &faults)
        case .suback: isSubscribed = true
        case .publish(let publish): return received(publish)
        case .pubrel(let pubrel):
            heldIDs.remove(pubrel.id)
            return [.pubcomp(Acknowledgement(pubrel.id))]
        case .puback(let answer), .pubcomp(let answer): settled(answer)
        case .pubrec(let answer):
            guard !answer.reason.isError else {
                settled(answer)
                return []
            }
            guard let place = inFlight.firstIndex(where: { $0.id == answer.id }) else { return [] }
            inFlight[place].isReleased = true
            return [.pubrel(Acknowledgement(answer.id))]
        default: break
        }
        return []
    }

    private mutating func connected(_ connack: Connack, _ faults: inout [String]) -> [Packet] {
        guard !connack.reason.isError else { return [] }
        isReady = true
        if !isCloud {
            if hasSession, !connack.sessionPresent { faults.append("\(name)'s Session is gone") }
            hasSession = true
        }
        var packets: [Packet] = []
        if let subscription, !isSubscribed, let filter = TopicFilter(subscription.filter) {
            let request = SubscriptionRequest(filter: filter, maximumQoS: subscription.qos)
            packets.append(.subscribe(Subscribe(id: 999, requests: [request])))
        }
        return packets
            + inFlight.map {
                $0.isReleased ? .pubrel(Acknowledgement($0.id)) : $0.packet(duplicate: true)
            }
    }

    private mutating func settled(_ answer: Acknowledgement) {
        guard let place = inFlight.firstIndex(where: { $0.id == answer.id }) else { return }
        let sent = inFlight.remove(at: place)
        if answer.reason.isError, !sent.isReleased {
            published.removeAll { $0.text == sent.text }
            refused.append(sent)
        }
    }

    private mutating func received(_ publish: Publish) -> [Packet] {
        let text = String(decoding: publish.message.payload.prefix { $0 != 32 }, as: UTF8.self)
        guard let id = publish.id else {
            received.append(text)
            return []
        }
        guard publish.qos == .exactlyOnce else {
            received.append(text)
            return [.puback(Acknowledgement(id))]
        }
        if heldIDs.insert(id).inserted { received.append(text) }
        return [.pubrec(Acknowledgement(id))]
    }
}
