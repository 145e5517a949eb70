import GatewayCore
import MQTT
import Testing

/// Two publishers, two subscribers, two who share a subscription and a cloud that keep to the retry rules of the
/// specification, a gateway whose syncs, links and power fail at random, and a ledger: whatever was published
/// arrives, at QoS 2 once.
@Suite("Random conversations")
struct RandomConversationTests {
    @Test("No message is lost, no QoS 2 message is doubled, and what is replayed is what was")
    func conversations() {
        for seed in 1...300 as ClosedRange<UInt64> {
            var conversation = Conversation(seed: seed)
            conversation.run(steps: 200)
            conversation.settle()
            #expect(conversation.faults == [], "seed \(seed)")
            if !conversation.faults.isEmpty { return }
        }
    }

    @Test("The same seed is the same conversation")
    func deterministic() {
        var journals: [[Record]] = []
        for _ in 0..<2 {
            var conversation = Conversation(seed: 7)
            conversation.run(steps: 200)
            journals.append(conversation.s.journal)
        }
        #expect(journals[0] == journals[1] && !journals[0].isEmpty)
    }
}

/// SplitMix64.
private struct Dice {
    var state: UInt64

    mutating func roll(_ sides: Int) -> Int {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return Int((z ^ (z >> 31)) % UInt64(sides))
    }
}

/// A publisher's side of the handshakes; it survives the gateway's power cuts.
private struct Publisher {
    let name: String
    let version: ProtocolVersion
    var isOpen = false
    var isConnected = false
    var nextNumber = 1
    var nextID: UInt16 = 1
    /// In the order of sending; a released one has been PUBREC'd and awaits PUBCOMP.
    var inFlight: [(id: PacketIdentifier, text: String, qos: QoS, isReleased: Bool)] = []
}

/// A receiver's side of the handshakes, a client's or the cloud's.
private struct Receiver {
    var isOpen = false
    var heldIDs: Set<PacketIdentifier> = []
    var delivered: [String] = []

    mutating func answers(to packet: Packet) -> Packet? {
        switch packet {
        case .publish(let publish):
            if publish.qos < .exactlyOnce {
                delivered.append(publish.text)
            } else if let id = publish.id, heldIDs.insert(id).inserted {
                delivered.append(publish.text)
            }
        case .pubrel(let pubrel): heldIDs.remove(pubrel.id)
        default: break
        }
        return packet.subscribersAnswer
    }
}

private struct Conversation: ~Copyable {
    var s: Scenario
    private var dice: Dice
    private var publishers = [
        Publisher(name: "press", version: .v5_0), Publisher(name: "old", version: .v3_1_1),
    ]
    private let subscribers = ["archive", "screen", "left", "right"]
    private var receivers: [String: Receiver] = [
        "archive": Receiver(), "screen": Receiver(), "left": Receiver(), "right": Receiver(),
        "drifter": Receiver(), "cloud": Receiver(),
    ]
    private var cloudHasSession = false
    /// With odd seeds a third client shares the subscription, whose Sessions end at random. What it was sent at
    /// QoS 2 may end with them, but must come to nobody else.
    private let hasDrifter: Bool
    private(set) var published: [(text: String, qos: QoS)] = []
    private(set) var faults: [String] = []

    init(seed: UInt64) {
        var plan = GatewayPlan()
        plan.limits.identifierSpan = 8
        plan.limits.residentBytesMax = 100
        plan.limits.residentBytesOfAbsentMax = 20
        plan.limits.loadedAtOnceMax = 3
        plan.limits.lazyAcknowledgementsMax = 3
        if let filter = TopicFilter("t/#") {
            plan.uplinks = [
                UplinkRoutes(
                    name: "cloud", out: [.init(filter: filter, rename: nil, maximumQoS: .exactlyOnce)], in: []
                )
            ]
        }
        s = Scenario(plan: plan)
        dice = Dice(state: seed)
        hasDrifter = seed % 2 == 1
        s.connects("archive")
        s.subscribes("archive", "t/#")
        s.connects("screen", version: .v3_1_1)
        s.subscribes("screen", "t/#", qos: .atLeastOnce)
        for name in ["left", "right"] {
            s.connects(name)
            s.subscribes(name, "$share/workers/t/#")
        }
        for name in subscribers { receivers[name]?.isOpen = true }
    }

    mutating func run(steps: Int) {
        for _ in 0..<steps where faults.isEmpty {
            switch dice.roll(28) {
            case 0...5: publish(dice.roll(2))
            case 6...8: hear(dice.roll(2))
            case 9...12: receive(subscribers[dice.roll(2)])

            case 13...14: receiveCloud()
            case 24...25: receive(subscribers[2 + dice.roll(2)])
            case 26: drift()
            case 27: receive("drifter")
            case 15...17: s.syncs()
            case 18: s.passes(milliseconds: UInt64(dice.roll(1500)))
            case 19: reconnect(dice.roll(2))
            case 20: reopen(subscribers[dice.roll(4)])
            case 21: flapCloud()
            case 22: if dice.roll(3) == 0 { losePower() }
            default: break
            }
        }
    }

    /// Everything comes back, and all goes well until nothing is left to say; then the ledger is read.
    mutating func settle() {
        for name in subscribers where receivers[name]?.isOpen == false { reopen(name) }
        s.syncs()
        if receivers["drifter"]?.isOpen == true { s.vanishes("drifter") }
        receivers["drifter"]?.isOpen = false
        s.passes(milliseconds: 3_700_000)
        for _ in 0..<200 {
            for i in publishers.indices where !publishers[i].isOpen { reconnect(i) }
            for name in subscribers where receivers[name]?.isOpen == false { reopen(name) }
            if receivers["cloud"]?.isOpen == false { flapCloud() }
            s.syncs()
            for i in publishers.indices { hear(i) }
            for name in subscribers { receive(name) }
            receiveCloud()
            s.passes(milliseconds: 100)
        }
        checkReplay()
        if publishers.contains(where: { !$0.inFlight.isEmpty }) { faults.append("a publisher still waits") }
        var delivered = receivers.mapValues(\.delivered)
        delivered["workers"] = ["left", "right", "drifter"].flatMap {
            delivered.removeValue(forKey: $0) ?? []
        }
        for (name, texts) in delivered.sorted(by: { $0.key < $1.key }) {
            var count: [String: Int] = [:]
            for text in texts { count[text, default: 0] += 1 }
            for message in published {
                let times = count[message.text] ?? 0
                let mayEnd = name == "workers" && hasDrifter && message.qos == .exactlyOnce
                if times == 0, !mayEnd { faults.append("\(name) lost \(message.text)") }
                if times > 1, message.qos == .exactlyOnce, name != "screen" {
                    faults.append("\(name) got \(message.text) \(times) times")
                }
            }
        }
    }

    // MARK: Publishers

    private mutating func publish(_ i: Int) {
        guard publishers[i].isConnected, publishers[i].inFlight.count < 5 else { return }
        let qos: QoS = dice.roll(3) == 0 ? .atLeastOnce : .exactlyOnce
        // Few identifiers, used over and over.
        var id: PacketIdentifier
        repeat {
            id = PacketIdentifier(rawValue: publishers[i].nextID) ?? 1
            publishers[i].nextID = publishers[i].nextID % 7 + 1
        } while publishers[i].inFlight.contains { $0.id == id }
        let text = "\(publishers[i].name) \(publishers[i].nextNumber) at \(qos.rawValue)"
        publishers[i].nextNumber += 1
        publishers[i].inFlight.append((id, text, qos, false))
        published.append((text, qos))
        s.sends(publishers[i].name, .publish(.text("t/\(i)", text, qos: qos, id: id)))
    }

    private mutating func reconnect(_ i: Int) {
        let publisher = publishers[i]
        if publisher.isOpen, dice.roll(2) == 0 { s.vanishes(publisher.name) }
        publishers[i].isOpen = true
        publishers[i].isConnected = false
        s.opens(
            publisher.name,
            Connect(
                version: publisher.version, clientIdentifier: publisher.name, cleanStart: false,
                sessionExpirySeconds: publisher.version == .v5_0 ? .max : nil))
    }

    private mutating func hear(_ i: Int) {
        guard publishers[i].isOpen else { return }
        let name = publishers[i].name
        for packet in s.received(name) {
            switch packet {
            case .connack(let connack):
                publishers[i].isConnected = true
                if !connack.sessionPresent { publishers[i].inFlight.removeAll { $0.isReleased } }
                for message in publishers[i].inFlight {
                    let publish = Publish.text(
                        "t/\(i)", message.text, qos: message.qos, id: message.id, duplicate: true)
                    s.sends(
                        name, message.isReleased ? .pubrel(Acknowledgement(message.id)) : .publish(publish))
                }
            case .puback(let answer), .pubcomp(let answer):
                publishers[i].inFlight.removeAll { $0.id == answer.id }
            case .pubrec(let answer):
                guard let place = publishers[i].inFlight.firstIndex(where: { $0.id == answer.id }) else {
                    continue
                }
                publishers[i].inFlight[place].isReleased = true
                s.sends(name, .pubrel(Acknowledgement(answer.id)))
            default: faults.append("\(name) got \(packet)")
            }
        }
    }

    // MARK: Receivers

    private mutating func reopen(_ name: String) {
        if receivers[name]?.isOpen == true, dice.roll(2) == 0 { s.vanishes(name) }
        receivers[name]?.isOpen = true
        let version: ProtocolVersion = name == "screen" ? .v3_1_1 : .v5_0
        s.opens(
            name,
            Connect(
                version: version, clientIdentifier: name, cleanStart: false,
                sessionExpirySeconds: version == .v5_0 ? .max : nil,
                receiveMaximum: name == "screen" ? nil : 4))
    }

    private mutating func receive(_ name: String) {
        guard receivers[name]?.isOpen == true else { return }
        for packet in s.received(name) {
            if case .connack(let connack) = packet, !connack.sessionPresent, name != "drifter" {
                faults.append("\(name)'s Session is gone")
            }
            if let answer = receivers[name]?.answers(to: packet) { s.sends(name, answer) }
        }
    }

    /// The drifter goes, or comes with Clean Start and a Session that may outlive its connection.
    private mutating func drift() {
        guard hasDrifter else { return }
        if receivers["drifter"]?.isOpen == true, dice.roll(2) == 0 {
            s.vanishes("drifter")
            receivers["drifter"]?.isOpen = false
            return
        }
        receivers["drifter"]?.isOpen = true
        receivers["drifter"]?.heldIDs = []
        s.opens(
            "drifter",
            Connect(
                version: .v5_0, clientIdentifier: "drifter", cleanStart: true,
                sessionExpirySeconds: dice.roll(2) == 0 ? nil : 3600, receiveMaximum: 3))
        s.sends("drifter", .subscribe("$share/workers/t/#"))
    }

    private mutating func flapCloud() {
        if receivers["cloud"]?.isOpen == true {
            s.cloudVanishes()
            _ = s.cloudReceived()
        }
        for case .open(cleanStart: true) in s.uplinkControls() {
            cloudHasSession = false
            receivers["cloud"]?.heldIDs = []
        }
        s.cloudConnects(sessionPresent: cloudHasSession, receiveMaximum: 3)
        receivers["cloud"]?.isOpen = true
        cloudHasSession = true
    }

    private mutating func receiveCloud() {
        guard receivers["cloud"]?.isOpen == true else { return }
        for packet in s.cloudReceived() {
            if let answer = receivers["cloud"]?.answers(to: packet) { s.cloudSends(0, answer) }
        }
    }

    // MARK: Power

    private mutating func losePower() {
        // Never so long that a Session ends.
        let off = UInt64(dice.roll(100_000))
        switch dice.roll(5) {
        case 0...1: s.losesPower(keeping: dice.roll(4))
        case 2...3: s.losesPowerAndRecoversFromCheckpoint()
        default: s.isKilled(offFor: off)
        }
        // Proven at once, or not at all; the next power cut may take the proof.
        if dice.roll(2) == 0 { s.learns(offFor: off) }
        for i in publishers.indices {
            publishers[i].isOpen = false
            publishers[i].isConnected = false
        }
        for name in receivers.keys { receivers[name]?.isOpen = false }
        checkReplay()
    }

    /// Replaying twice comes to the same, a checkpoint comes to the same, and so does the live state as far as
    /// Records say what it is.
    private mutating func checkReplay() {
        let once = Self.snapshot(s.replayed())
        if once != Self.snapshot(s.replayed()) { faults.append("two replays differ") }
        var rebuilt = DurableState()
        for record in once { rebuilt.apply(record, at: .zero) }
        if once != Self.snapshot(rebuilt) { faults.append("a checkpoint differs from what it was taken of") }
        var live: [Record] = []
        s.gateway.state.snapshot { live.append($0) }
        if s.synced == s.journal.count, live.map(Self.outline) != once.map(Self.outline) {
            faults.append("the live state differs from its replay")
        }
    }

    private static func snapshot(_ state: DurableState) -> [Record] {
        var records: [Record] = []
        state.snapshot { records.append($0) }
        return records
    }

    /// A queue less what is settled live before any Record says so (rule A8).
    private static func outline(_ record: Record) -> Record {
        guard case .queue(var queue) = record else { return record }
        queue.entries = queue.entries.map { .init(position: nil, qos: $0.qos, isReceived: false) }
        return .queue(queue)
    }
}
