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

    @Test("The same with an uplink of several lanes, whose routes and drain change meanwhile")
    func lanes() {
        for seed in 1...200 as ClosedRange<UInt64> {
            var conversation = Conversation(seed: seed, hasLanes: true)
            conversation.run(steps: 250)
            conversation.settle()
            #expect(conversation.faults == [], "seed \(seed)")
            if !conversation.faults.isEmpty { return }
        }
    }

    @Test("The same with device profiles that change meanwhile")
    func profiles() {
        for seed in 1...150 as ClosedRange<UInt64> {
            var conversation = Conversation(seed: seed, hasProfiles: true)
            conversation.run(steps: 250)
            conversation.settle()
            #expect(conversation.faults == [], "seed \(seed)")
            if !conversation.faults.isEmpty { return }
        }
    }

    @Test("Long queues are kept in pages, and their receivers are sent the same")
    func pages() {
        var indexings = 0
        for seed in 1...60 as ClosedRange<UInt64> {
            var unpaged = Conversation(seed: seed, isShadow: true)
            unpaged.run(steps: 300)
            unpaged.settle()
            var paged = Conversation(seed: seed, isShadow: true, queueEntriesMax: 2)
            paged.run(steps: 300)
            paged.settle()
            #expect(paged.faults == [] && unpaged.faults == [], "seed \(seed)")
            #expect(paged.transcripts == unpaged.transcripts, "seed \(seed)")
            indexings += paged.s.indexings.count
            if paged.transcripts != unpaged.transcripts || paged.faults != [] { return }
        }
        #expect(indexings > 200)
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
    /// With every third seed nobody shares a subscription, and most messages are at QoS 1: many of them are
    /// never written.
    private let isElidable: Bool
    private(set) var published: [(text: String, qos: QoS)] = []
    private(set) var faults: [String] = []
    /// Whether any start was from a checkpoint.
    private var hadCheckpoint = false
    /// Which packets every receiver was sent, in order.
    private(set) var transcripts: [String: [Packet]] = [:]
    /// Nothing happens that depends on how Records of different Sessions mix: for a comparison with another run.
    private let isShadow: Bool
    /// Messages take different routes, and these change.
    private let hasLanes: Bool
    /// Clients are treated in different ways, and these change; none of them loses anything.
    private let hasProfiles: Bool
    private let plan: GatewayPlan

    init(
        seed: UInt64, isShadow: Bool = false, hasLanes: Bool = false, hasProfiles: Bool = false,
        queueEntriesMax: Int? = nil
    ) {
        var plan = GatewayPlan()
        self.isShadow = isShadow
        self.hasLanes = hasLanes
        self.hasProfiles = hasProfiles
        // Also in shadows without pages: the stretches are the same.
        plan.limits.queueEntriesMax = queueEntriesMax ?? (isShadow ? 1_000_000 : Int(seed % 5))
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
        self.plan = plan
        s = Scenario(
            plan: hasLanes
                ? Self.withLanes(plan, Int(seed)) : hasProfiles ? Self.withProfiles(plan, Int(seed)) : plan)
        dice = Dice(state: seed)
        isElidable = seed % 3 == 0
        hasDrifter = seed % 2 == 1 && !isElidable && !isShadow
        s.connects("archive")
        s.subscribes("archive", "t/#")
        s.connects("screen", version: .v3_1_1)
        s.subscribes("screen", "t/#", qos: .atLeastOnce)
        for name in ["left", "right"] {
            s.connects(name)
            if !isShadow, !isElidable { s.subscribes(name, "$share/workers/t/#") }
        }
        for name in subscribers { receivers[name]?.isOpen = true }
    }

    mutating func run(steps: Int) {
        for _ in 0..<steps where faults.isEmpty {
            switch dice.roll(34) {
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
            case 28...30: s.seals()
            case 31: s.checkpoints()
            case 32: absent()
            case 23: s.elides = dice.roll(4) > 0
            case 33:
                if hasLanes { s.reconfigures(Self.withLanes(plan, dice.roll(5))) }
                if hasProfiles { s.reconfigures(Self.withProfiles(plan, dice.roll(6))) }
            default: break
            }
        }
    }

    /// One of five plans: without lanes, with some, with all there may be, and with more.
    private static func withLanes(_ plan: GatewayPlan, _ variant: Int) -> GatewayPlan {
        var plan = plan
        var routes: [UplinkRoutes.Route] = []
        for kind in 0..<4 {
            guard let filter = TopicFilter("t/+/\(kind)") else { continue }
            var route = UplinkRoutes.Route(filter: filter, rename: nil, maximumQoS: .exactlyOnce)
            switch (variant % 5, kind) {
            case (1, 0), (3, 3): route.priority = .high
            case (1, 1), (2, 0): route.priority = .low
            case (2, 2): route.isLiveFirst = true
            case (3, _): route.queue = QueueBounds(messagesMax: 1000)
            case (4, _):
                route.queue = QueueBounds(bytesMax: 1_000_000)
                route.isLiveFirst = true
            default: break
            }
            routes.append(route)
        }
        plan.uplinks[0].out = routes
        if variant % 2 == 1 { plan.uplinks[0].drain = .init(messagesPerSecond: 40) }
        plan.limits.liveMessagesMax = 3
        return plan
    }

    /// One of six plans: without profiles, with one for everybody, with some for one client each.
    private static func withProfiles(_ plan: GatewayPlan, _ variant: Int) -> GatewayPlan {
        var plan = plan
        let names = variant % 6 == 1 ? [nil] : ["press", "old", "archive", "left"]
        plan.profiles = names.enumerated().map { n, name in
            var profile = DeviceProfile(
                name: name ?? "all", matches: name.map { [DeviceMatch(clientIdentifier: Glob($0))] } ?? [])
            let kind = variant + n
            profile.durability = DurabilityWindow.allCases[kind % 3]
            profile.uplink.priority = UplinkRoutes.Priority.allCases[kind % 3]
            profile.queue = QueueBounds(messagesMax: 1000, whenFull: QueueBounds.WhenFull.allCases[kind % 3])
            profile.receiveMaximum = UInt16(8 + kind)
            profile.messageExpiry = MessageExpiry(defaultSeconds: 10_000_000)
            if kind % 2 == 0 { profile.rate = PublishRate(messagesPerSecond: 5, messagesBurst: 2) }
            if let all = try? TopicTemplate("t/#"), let state = try? TopicTemplate("s/${clientid}") {
                if kind % 4 == 0 { profile.keepsLastValue = [all] }
                if kind % 4 == 1 { profile.liveness = Liveness(silentSeconds: 3, stateTopic: state) }
                if kind % 4 == 2 {
                    profile.reportByException = [ReportByException(filter: all, deadband: .absolute(0))]
                }
            }
            return profile
        }
        if variant % 6 == 0 { plan.profiles = [] }
        return plan
    }

    private func topic(_ publisher: Int, _ text: String) -> String {
        hasLanes ? "t/\(publisher)/\(text.utf8.reduce(0) { $0 + Int($1) } % 4)" : "t/\(publisher)"
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
        if s.gateway.state.owes(from: Position(1), through: s.gateway.lastPosition) {
            faults.append("something is owed yet")
        }
        if publishers.contains(where: { !$0.inFlight.isEmpty }) { faults.append("a publisher still waits") }
        var delivered = receivers.mapValues(\.delivered)
        delivered["workers"] = ["left", "right", "drifter"].flatMap {
            delivered.removeValue(forKey: $0) ?? []
        }
        if isElidable { delivered["workers"] = nil }
        for (name, texts) in delivered.sorted(by: { $0.key < $1.key }) {
            var count: [String: Int] = [:]
            for text in texts { count[text, default: 0] += 1 }
            for message in published where !isShadow || name != "workers" {
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
        let qos: QoS = dice.roll(isElidable ? 8 : 3) > (isElidable ? 0 : 1) ? .atLeastOnce : .exactlyOnce
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
        s.sends(publishers[i].name, .publish(.text(topic(i, text), text, qos: qos, id: id)))
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
                        topic(i, message.text), message.text, qos: message.qos, id: message.id,
                        duplicate: true)
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

    /// A subscriber goes away for a while.
    private mutating func absent() {
        let name = subscribers[dice.roll(4)]
        guard receivers[name]?.isOpen == true else { return }
        receive(name)
        s.vanishes(name)
        receivers[name]?.isOpen = false
    }

    private mutating func receive(_ name: String) {
        guard receivers[name]?.isOpen == true else { return }
        for packet in s.received(name) {
            transcripts[name, default: []].append(packet)
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
            transcripts["cloud", default: []].append(packet)
            if let answer = receivers["cloud"]?.answers(to: packet) { s.cloudSends(0, answer) }
        }
    }

    // MARK: Power

    private mutating func losePower() {
        let luck = dice.roll(4)
        // Never so long that a Session ends.
        let off = UInt64(dice.roll(100_000))
        switch dice.roll(6) {
        case 0...1: s.losesPower(keeping: isShadow ? 0 : luck)
        case 2: s.losesPowerAndRecoversFromCheckpoint()
        case 3...4:
            s.losesPowerAndRecoversFromOldCheckpoint()
            hadCheckpoint = true
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
        let live = Self.snapshot(s.gateway.state)
        if isElidable {
            // What was elided is settled live, and was never there for a replay.
            let known = Set(once.flatMap(Self.owed))
            if s.synced == s.journal.count, !known.isSuperset(of: live.flatMap(Self.owed)) {
                faults.append("a delivery has two numbers")
            }
        } else if s.synced == s.journal.count, live.map(Self.outline) != once.map(Self.outline) {
            faults.append("the live state differs from its replay")
        }
        let fromCheckpoint = Self.snapshot(s.replayedFromCheckpoint())
        let isSame =
            isElidable
            ? fromCheckpoint.flatMap(Self.owed) == once.flatMap(Self.owed)
            : fromCheckpoint.map(Self.outline) == once.map(Self.outline)
        if !isSame {
            faults.append("a replay from a checkpoint differs from a whole one")
        }
        checkCounts(rebuilt)
        checkBooks()
    }

    /// Nothing is unaccounted for, and the books of a replay are those of the live state (promise P3).
    private mutating func checkBooks() {
        let (live, replayed) = (s.balance, s.replayed().balance)
        if !live.isEven { faults.append("the books do not balance: \(live)") }
        guard s.synced == s.journal.count else { return }
        // What was never written shows in a replay only once something behind it was.
        let unwritten = live.books.received &- replayed.books.received
        var books = replayed.books
        books += Books(received: unwritten, delivered: unwritten)
        // A checkpoint knows of handshakes that have ended since the last Record.
        let isSame =
            live == Balance(books: books, queued: replayed.queued) || hadCheckpoint && replayed.isEven
        if !isSame {
            faults.append("the books differ from their replay: \(live), \(replayed)")
        }
    }

    /// What queues count is what is in them, and what is in them is owed.
    private mutating func checkCounts(_ state: DurableState) {
        for case .queue(let record) in Self.snapshot(state) {
            if state[record.session]?.queue.waitingCount != record.owed(received: true).count {
                faults.append("a queue is miscounted")
            }
            for delivery in record.owed(received: false) where !state.needs(record.session, delivery) {
                faults.append("\(delivery) is not needed")
            }
        }
    }

    private static func snapshot(_ state: borrowing DurableState) -> [Record] {
        var records: [Record] = []
        state.snapshot { records.append($0) }
        return records
    }

    private struct Owed: Hashable {
        let session: SessionID
        let delivery: Delivery
    }

    /// What a queue has not settled.
    private static func owed(_ record: Record) -> [Owed] {
        guard case .queue(let queue) = record else { return [] }
        return queue.owed(received: false).map { Owed(session: queue.session, delivery: $0) }
    }

    /// Which messages are owed, wherever they are, less what is settled live before any Record says so (rule A8).
    private static func outline(_ record: Record) -> Record {
        // Books go with what the queue beside them says; `checkBooks` compares the others.
        if case .books(let id?, _) = record { return .books(id, Books()) }
        guard case .queue(let queue) = record else { return record }
        return .acknowledged(
            AcknowledgedRecord(
                session: queue.session, floor: queue.end, settledAbove: queue.owed(received: false)))
    }
}

extension QueueRecord {
    /// Every delivery that no Record settles, in order, with those that await only PUBCOMP or without.
    func owed(received: Bool) -> [Delivery] {
        func isOwed(_ entry: Entry) -> Bool { entry.position != nil && (received || !entry.isReceived) }
        var owed = strays.filter { isOwed($0.entry) }.map(\.delivery)
        for (i, entry) in entries.enumerated() where isOwed(entry) {
            owed.append(Delivery(floor.number + UInt64(i)))
        }
        for page in pages where page.waitingCount > 0 {
            owed += (page.first.number..<page.end.number).map { Delivery($0) }
        }
        for (i, entry) in tail.enumerated() where isOwed(entry) {
            owed.append(Delivery(end.number - UInt64(tail.count - i)))
        }
        return owed.sorted()
    }

    var end: Delivery {
        Delivery((pages.last?.end.number ?? floor.number + UInt64(entries.count)) + UInt64(tail.count))
    }
}
