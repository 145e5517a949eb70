import MQTT

/// The least that gets the world going.
struct SimpleClient: Peer {
    let name: String
    let author: Int
    let topic: String
    let filter: String?
    var dice: Dice
    private var decoder = PacketDecoder(receiver: .client, version: .v5_0, maximumPacketSize: 1 << 20)
    private var output: [UInt8] = []
    private var isOpen = false
    private var isReady = false
    private var isSettling = false
    private var isSubscribed = false
    private var inFlight: [(id: UInt16, packet: Publish, isReleased: Bool)] = []
    private var held: Set<PacketIdentifier> = []
    private var next: UInt16 = 1
    private(set) var nextWake: UInt64?
    private(set) var accepted = 0
    private(set) var received = 0

    init(_ name: String, _ author: Int, topic: String, filter: String?, dice: Dice) {
        self.name = name
        self.author = author
        self.topic = topic
        self.filter = filter
        self.dice = dice
    }

    var wantsClose: Bool { false }
    var wantsLink: Bool { true }
    var isAtRest: Bool { inFlight.isEmpty }

    mutating func takeOutput() -> [UInt8] {
        defer { output = [] }
        return output
    }
    private mutating func say(_ packet: Packet) { packet.encode(version: .v5_0, into: &output) }

    mutating func linkOpened(at now: UInt64) {
        isOpen = true
        decoder = PacketDecoder(receiver: .client, version: .v5_0, maximumPacketSize: 1 << 20)
        say(.connect(Connect(clientIdentifier: name, cleanStart: false, sessionExpirySeconds: .max)))
    }

    mutating func linkLost(at now: UInt64) {
        isOpen = false
        isReady = false
        nextWake = nil
    }
    mutating func settles() { isSettling = true }

    mutating func wake(at now: UInt64) {
        nextWake = now + 200_000 + UInt64(dice.below(400_000))
        guard isReady, !isSettling, inFlight.count < 5 else { return }
        next = next % 60_000 + 1
        let qos: QoS = dice.coin() ? .atLeastOnce : .exactlyOnce
        let publish = Publish(
            message: ApplicationMessage(topic: Array(topic.utf8), payload: Array("\(author)#\(next):0 ".utf8)), qos: qos,
            id: PacketIdentifier(rawValue: next))
        inFlight.append((next, publish, false))
        say(.publish(publish))
    }

    mutating func received(_ bytes: [UInt8], at now: UInt64) {
        bytes.withUnsafeBytes { decoder.append($0) }
        do throws(MalformedPacket) {
            while let packet = try decoder.next() { hear(packet, now) }
        } catch { preconditionFailure("\(error)") }
    }

    private mutating func hear(_ packet: Packet, _ now: UInt64) {
        switch packet {
        case .connack:
            isReady = true
            nextWake = now + 1000
            if let filter, !isSubscribed, let parsed = TopicFilter(filter) {
                say(.subscribe(Subscribe(id: 65_000, requests: [SubscriptionRequest(filter: parsed, maximumQoS: .exactlyOnce)])))
            }
            for sent in inFlight {
                if sent.isReleased {
                    if let id = sent.packet.id { say(.pubrel(Acknowledgement(id))) }
                } else {
                    var again = sent.packet
                    again.duplicate = true
                    say(.publish(again))
                }
            }
        case .suback: isSubscribed = true
        case .publish(let publish):
            received += 1
            guard let id = publish.id else { return }
            if publish.qos == .exactlyOnce { held.insert(id) }
            say(publish.qos == .exactlyOnce ? .pubrec(Acknowledgement(id)) : .puback(Acknowledgement(id)))
        case .pubrel(let ack):
            held.remove(ack.id)
            say(.pubcomp(Acknowledgement(ack.id)))
        case .pubrec(let ack):
            if ack.reason.isError { return settle(ack) }
            for i in inFlight.indices where inFlight[i].id == ack.id.rawValue { inFlight[i].isReleased = true }
            say(.pubrel(Acknowledgement(ack.id)))
        case .puback(let ack), .pubcomp(let ack): settle(ack)
        default: break
        }
    }

    private mutating func settle(_ ack: Acknowledgement) {
        inFlight.removeAll { $0.id == ack.id.rawValue }
        accepted += 1
    }
}
