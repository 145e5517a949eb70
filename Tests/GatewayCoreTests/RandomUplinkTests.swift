import MQTT
import Testing

@testable import GatewayCore

/// A publisher and a cloud that refuses some messages, forgets and comes back, while routes, bounds and drain change,
/// dead letters are sent again or purged, and the power fails at random: whatever was acknowledged is at the cloud, is a
/// dead letter, or is counted as dropped, and at QoS 2 it is at the cloud once.
@Suite("Random uplinks")
struct RandomUplinkTests {
    @Test("P2, P3: nothing is lost uncounted or stuck, nothing of QoS 2 is doubled, and the books balance")
    func uplinks() {
        for seed in 1...120 as ClosedRange<UInt64> {
            var village = CloudAndPress(seed: seed)
            village.run(steps: 300)
            village.settle()
            #expect(village.faults == [], "seed \(seed)")
            if !village.faults.isEmpty { return }
        }
    }
}

private struct CloudAndPress: ~Copyable {
    private var s: Scenario
    private var state: UInt64
    private(set) var faults: [String] = []
    private let forgets: Bool
    private let packetBytesMax: UInt32?

    private var nextNumber = 1
    /// Of messages that were not acknowledged yet, by the publisher's identifier.
    private var sent: [PacketIdentifier: String] = [:]
    private var acknowledged: Set<String> = []

    private var isConnected = false
    private var hasSession = false
    /// At the cloud, from PUBLISH to PUBREL.
    private var held: [PacketIdentifier: String] = [:]
    private var arrived: [String: Int] = [:]
    private var unanswered: [Packet] = []

    init(seed: UInt64) {
        state = seed
        forgets = seed % 3 == 0
        packetBytesMax = seed % 4 == 0 ? 60 : nil
        s = Scenario.connected("press", plan: Self.plan { _ in 0 })
        s.reconfigures(Self.plan { roll($0) })
    }

    private mutating func roll(_ sides: Int) -> Int {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return Int((z ^ (z >> 31)) % UInt64(sides))
    }

    private static func plan(_ roll: (Int) -> Int) -> GatewayPlan {
        let routes = ["a/#", "b/#", "c/#"].map { filter in
            let policy = QueueBounds.WhenFull.allCases[roll(3)]
            return LaneTests.route(
                filter, UplinkRoutes.Priority.allCases[roll(3)], liveFirst: roll(3) == 1,
                queue: roll(4) == 1 ? QueueBounds(messagesMax: 3 + roll(6), whenFull: policy) : nil)
        }
        var plan = LaneTests.plan(
            routes, drain: .init(messagesPerSecond: roll(3) == 1 ? UInt32(5 + roll(50)) : nil))
        plan.uplinks[0].deadLettersMax = 8 + roll(20)
        plan.limits.queueEntriesMax = 4
        plan.limits.loadedAtOnceMax = 3
        plan.limits.residentBytesMax = 200
        plan.limits.residentBytesOfAbsentMax = 0
        plan.limits.liveMessagesMax = 3
        return plan
    }

    // MARK: Steps

    mutating func run(steps: Int) {
        for _ in 0..<steps where faults.isEmpty {
            switch roll(24) {
            case 0...9: publish()
            case 10...11: s.syncs()
            case 12...16: cloudAnswers(refusing: true)
            case 17: s.passes(milliseconds: UInt64(roll(1500)))
            case 18: isConnected ? vanish() : connect()
            case 19: s.reconfigures(Self.plan { roll($0) })
            case 20: _ = s.replays(roll(2) == 0 ? nil : [UInt64(roll(12))])
            case 21: if roll(4) == 0 { _ = s.purges([UInt64(roll(12))]) }
            case 22: s.seals()
            default: losePower()
            }
            hear()
            if !s.balance.isEven { faults.append("the books do not balance") }
        }
    }

    private mutating func publish() {
        guard let id = PacketIdentifier(rawValue: UInt16(nextNumber)) else { return }
        let text = "\(nextNumber) " + (roll(5) == 0 ? String(repeating: ".", count: 80) : "")
        nextNumber += 1
        let qos: QoS = roll(2) == 0 ? .atLeastOnce : .exactlyOnce
        sent[id] = text
        s.sends("press", .publish(.text(["a/1", "b/1", "c/1"][roll(3)], text, qos: qos, id: id)))
    }

    /// What the gateway says to the publisher and to the cloud.
    private mutating func hear() {
        for packet in s.received("press") {
            switch packet {
            case .puback(let ack), .pubrec(let ack):
                let text = sent.removeValue(forKey: ack.id)
                guard !ack.reason.isError, let text else { continue }
                acknowledged.insert(text)
                if case .pubrec = packet { s.sends("press", .pubrel(Acknowledgement(ack.id))) }
            default: continue
            }
        }
        unanswered += s.cloudReceived()
    }

    private mutating func cloudAnswers(refusing: Bool) {
        for _ in 0..<(1 + roll(6)) where !unanswered.isEmpty && isConnected {
            let packet = unanswered.removeFirst()
            guard var answer = packet.subscribersAnswer else { continue }
            switch packet {
            case .publish(let publish):
                guard let id = publish.id else { break }
                let isRefused = refusing && roll(6) == 0
                if publish.qos == .atLeastOnce {
                    if isRefused { answer = .puback(Acknowledgement(id, .notAuthorized)) }
                } else if let known = held[id] {
                    if known != publish.text {
                        faults.append("\(publish.text) is sent under \(known)'s \(id)")
                    }
                    s.cloudSends(0, answer)
                    hear()
                    continue
                } else if isRefused {
                    answer = .pubrec(Acknowledgement(id, .notAuthorized))
                } else {
                    held[id] = publish.text
                    if arrived[publish.text] != nil, !forgets { faults.append("\(publish.text) twice") }
                }
                if !isRefused { arrived[publish.text, default: 0] += 1 }
            case .pubrel(let pubrel): held[pubrel.id] = nil
            default: break
            }
            s.cloudSends(0, answer)
            hear()
        }
    }

    private mutating func connect() {
        let isPresent = hasSession && !(forgets && roll(3) == 0)
        if !isPresent { held = [:] }
        (hasSession, isConnected, unanswered) = (true, true, [])
        s.cloudConnects(
            UplinkTerms(
                version: .v5_0, sessionPresent: isPresent, receiveMaximum: UInt16(1 + roll(6)),
                maximumPacketSize: packetBytesMax))
    }

    private mutating func vanish() {
        hear()
        (isConnected, unanswered) = (false, [])
        s.cloudVanishes()
    }

    private mutating func losePower() {
        hear()
        (isConnected, unanswered, sent) = (false, [], [:])
        // A cloud session of which the gateway knows nothing yet is begun anew.
        switch roll(3) {
        case 0: s.losesPower()
        case 1:
            s.checkpoints()
            s.losesPowerAndRecoversFromOldCheckpoint()
        default: s.losesPower(keeping: roll(3))
        }
        for case .open(cleanStart: true) in s.uplinkControls() { hasSession = false }
        s.connects("press")
    }

    // MARK: The end

    /// Everything that can leave does.
    mutating func settle() {
        guard faults.isEmpty else { return }
        if !isConnected { connect() }
        for _ in 0..<400 {
            s.syncs()
            hear()
            cloudAnswers(refusing: false)
            if unanswered.isEmpty { s.passes(milliseconds: 100) }
            hear()
        }
        var waiting: Set<String> = []
        for id in s.gateway.state.sessionIDs {
            guard let session = s.gateway.state[id] else { continue }
            switch session.owner {
            case .uplink, .lane:
                let count = session.queue.waitingCount
                if count > 0 { faults.append("\(count) stuck in \(session.owner)") }
            case .deadLetters:
                let needed = (session.queue.floor.number..<session.queue.end.number).filter {
                    session.queue.needs(Delivery($0))
                }
                for case .message(let record) in s.journal {
                    for target in record.targets where target.session == id {
                        guard let number = target.delivery?.number, needed.contains(number) else { continue }
                        waiting.insert(String(decoding: record.message.payload, as: UTF8.self))
                    }
                }
            default: break
            }
        }
        let lost = acknowledged.filter { arrived[$0] == nil && !waiting.contains($0) }
        let dropped = s.balance.books.droppedUnexpired
        if lost.count > Int(dropped) { faults.append("\(lost.sorted()) are gone, \(dropped) are counted") }
        if !s.balance.isEven || s.replayed().balance != s.balance { faults.append("the books differ") }
    }
}
