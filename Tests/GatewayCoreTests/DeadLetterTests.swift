import MQTT
import Testing

@testable import GatewayCore

/// What a cloud refuses is kept until somebody decides about it (promise P3).
///
/// Not tested here: dead letters on a disk, which is `JournalTests`' concern.
@Suite("Dead letters")
struct DeadLetterTests {
    private static func plan(_ change: (inout UplinkRoutes) -> Void = { _ in }) -> GatewayPlan {
        guard let filter = TopicFilter("sensors/#") else { preconditionFailure("a Topic Filter") }
        var uplink = UplinkRoutes(
            name: "cloud",
            out: [
                .init(
                    filter: filter, rename: TopicRename(dropping: 0, prepending: Array("site/".utf8)),
                    maximumQoS: .exactlyOnce)
            ], in: [])
        change(&uplink)
        var plan = GatewayPlan()
        plan.uplinks = [uplink]
        return plan
    }

    private static func established(
        _ plan: GatewayPlan = plan(), packetBytesMax: UInt32? = nil, sessionPresent: Bool = false
    ) -> Scenario {
        var s = Scenario.connected("press", plan: plan)
        connect(&s, packetBytesMax: packetBytesMax, sessionPresent: sessionPresent)
        return s
    }

    private static func connect(
        _ s: inout Scenario, packetBytesMax: UInt32? = nil, sessionPresent: Bool = true
    ) {
        s.cloudConnects(
            UplinkTerms(
                version: .v5_0, sessionPresent: sessionPresent, receiveMaximum: 10,
                maximumPacketSize: packetBytesMax))
        s.syncs()
    }

    /// The cloud answers all it has been sent: with an error what begins with "no".
    @discardableResult
    private static func cloudAnswers(_ s: inout Scenario) -> [String] {
        var taken: [String] = []
        while true {
            s.syncs()
            let packets = s.cloudReceived()
            if packets.isEmpty { return taken }
            for packet in packets {
                guard let answer = packet.subscribersAnswer else { continue }
                guard case .publish(let publish) = packet else {
                    s.cloudSends(0, answer)
                    continue
                }
                if publish.text.hasPrefix("no"), let id = publish.id {
                    let refusal = Acknowledgement(id, .notAuthorized)
                    s.cloudSends(0, publish.qos == .exactlyOnce ? .pubrec(refusal) : .puback(refusal))
                } else {
                    taken.append(publish.text)
                    s.cloudSends(0, answer)
                }
            }
        }
    }

    private static func publish(_ s: inout Scenario, _ texts: [String], qos: QoS = .atLeastOnce) {
        for (n, text) in texts.enumerated() {
            let id = PacketIdentifier(rawValue: UInt16(n + 1))
            s.sends("press", .publish(.text("sensors/a", text, qos: qos, id: id)))
            s.syncs()
            if qos == .exactlyOnce, let id { s.sends("press", .pubrel(Acknowledgement(id))) }
        }
        s.syncs()
        _ = s.received("press")
    }

    private static func waiting(_ s: borrowing Scenario, _ owner: SessionOwner) -> Int? {
        s.gateway.state.session(of: owner).flatMap { s.gateway.state[$0]?.queue.waitingCount }
    }

    private static let letters = SessionOwner.deadLetters(uplink: "cloud")
    private static let outbox = SessionOwner.uplink(name: "cloud")

    @Test(
        "[MQTT5-4.3.2-3, MQTT5-4.3.3-4] what the cloud refuses is a dead letter, and the others go on",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func refused(qos: QoS) {
        var s = Self.established()
        Self.publish(&s, ["a", "no 1", "b", "no 2"], qos: qos)
        #expect(Self.cloudAnswers(&s) == ["a", "b"])
        s.passes(milliseconds: 2000)
        #expect(Self.waiting(s, Self.letters) == 2 && Self.waiting(s, Self.outbox) == 0)
        #expect(
            s.observations.filter { $0 == .deadLetter(uplink: "cloud", .notAuthorized) }.count == 2)
        let books = s.gateway.state.balance
        #expect(books.isEven && books.books.handedOver == 2 && books.books.delivered == 2)
        #expect(books.queued == 2 && books.books.droppedUnexpired == 0)
        #expect(s.replayed().balance == books)
    }

    @Test("[MQTT5-3.1.2-25] what is larger than the cloud takes is a dead letter without having been sent")
    func tooLarge() {
        var s = Self.established(packetBytesMax: 100)
        Self.publish(&s, ["a", String(repeating: "x", count: 200), "b"])
        #expect(Self.cloudAnswers(&s) == ["a", "b"])
        #expect(s.observations.contains(.deadLetter(uplink: "cloud", .packetTooLarge)))
        #expect(Self.waiting(s, Self.letters) == 1)
        // A cloud that takes more gets it once it is sent again.
        s.cloudVanishes()
        Self.connect(&s)
        #expect(s.replays() == 1)
        #expect(Self.cloudAnswers(&s).map(\.count) == [200])
        s.passes(milliseconds: 2000)
        #expect(Self.waiting(s, Self.letters) == 0 && s.gateway.state.balance.isEven)
    }

    @Test("a client's refusal is no dead letter: it is dropped, counted")
    func clients() {
        var s = Scenario.connected("archive", "press")
        s.subscribes("archive", "t")
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        s.syncs()
        let id = s.received("archive").publishes.first?.id ?? 1
        s.sends("archive", .puback(Acknowledgement(id, .notAuthorized)))
        #expect(s.gateway.state.balance.books.dropped(.refusedByReceiver) == 1)
    }

    @Test("a refused message is written: nobody's acknowledgement may leave because everyone had it")
    func notElided() {
        var s = Self.established()
        s.sends("press", .publish(.text("sensors/a", "no", qos: .atLeastOnce, id: 1)))
        #expect(s.lastMessageUrgency == .elidable)
        let id = s.cloudReceived().publishes.first?.id ?? 1
        s.cloudSends(0, .puback(Acknowledgement(id, .quotaExceeded)))
        #expect(s.elided.isEmpty && s.received("press") == [])
        // Lost with the power before anything of it was durable: its publisher still has it.
        s.losesPower()
        #expect(Self.waiting(s, Self.letters) ?? 0 == 0 && Self.waiting(s, Self.outbox) == 0)

        var t = Self.established()
        t.sends("press", .publish(.text("sensors/a", "no", qos: .atLeastOnce, id: 1)))
        t.cloudSends(0, .puback(Acknowledgement(t.cloudReceived().publishes.first?.id ?? 1, .quotaExceeded)))
        t.syncs()
        #expect(t.received("press") == [.puback(Acknowledgement(1))])
        t.losesPower()
        #expect(Self.waiting(t, Self.letters) == 1 && Self.waiting(t, Self.outbox) == 0)
    }

    @Test(
        "after a power cut at any Record a refused message is in exactly one of queue and dead letters, and the books agree",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func powerCuts(qos: QoS) {
        var isDone = false
        var kept = 0
        while !isDone {
            var s = Self.established()
            s.checkpoints()
            Self.publish(&s, ["no 1", "no 2", "no 3"], qos: qos)
            let durable = s.synced
            for publish in s.cloudReceived().publishes {
                guard let id = publish.id else { continue }
                let answer = Acknowledgement(id, .notAuthorized)
                s.cloudSends(0, publish.qos == .exactlyOnce ? .pubrec(answer) : .puback(answer))
            }
            #expect(Self.waiting(s, Self.letters) == 3)
            isDone = durable + kept >= s.journal.count
            s.losesPower(keeping: kept)
            let (there, gone) = (Self.waiting(s, Self.letters) ?? 0, Self.waiting(s, Self.outbox) ?? 0)
            #expect(there + gone == 3, "\(kept) survived")
            #expect(s.gateway.state.balance.isEven)
            // The cloud is asked again about the others, and refuses again.
            Self.connect(&s)
            #expect(Self.cloudAnswers(&s) == [])
            #expect(Self.waiting(s, Self.letters) == 3 && s.gateway.state.balance.isEven)
            kept += 1
        }
        #expect(kept > 3)
    }

    @Test("replayed dead letters go behind what waits, with their topic, and are sent as new")
    func replay() {
        var s = Self.established()
        Self.publish(&s, ["no 1", "no 2", "no 3"])
        Self.cloudAnswers(&s)
        s.cloudVanishes()
        Self.publish(&s, ["later"])
        #expect(s.replays([1, 1, 77]) == 1)
        #expect(Self.waiting(s, Self.letters) == 2 && Self.waiting(s, Self.outbox) == 2)
        Self.connect(&s)
        let sent = s.cloudReceived().publishes
        #expect(sent.map(\.text) == ["later", "no 2"])
        #expect(sent.map(\.topic) == ["site/sensors/a", "site/sensors/a"] && !sent.contains { $0.duplicate })
        for publish in sent { if let id = publish.id { s.cloudSends(0, .puback(Acknowledgement(id))) } }
        s.passes(milliseconds: 2000)
        #expect(s.replays() == 2)
        #expect(Self.waiting(s, Self.letters) == 0)
        #expect(s.replays() == 0 && s.replays(uplink: "other") == 0)
        let balance = s.gateway.state.balance
        #expect(balance.isEven && balance.books.handedOver == 6)
        #expect(s.replayed().balance.books.takenOver == 6)
    }

    @Test(
        "P3: a replay fills a queue to its bound, drops nothing there, and keeps the rest",
        arguments: QueueBounds.WhenFull.allCases)
    func replayIntoBounds(policy: QueueBounds.WhenFull) {
        let plan = Self.plan { $0.out[0].queue = QueueBounds(messagesMax: 3, whenFull: policy) }
        var s = Self.established(plan)
        for n in 0..<5 {
            Self.publish(&s, ["no \(n)"])
            Self.cloudAnswers(&s)
        }
        s.cloudVanishes()
        Self.publish(&s, ["waits"])
        s.syncs()
        #expect(s.replays() == 5)
        #expect(s.waiting("route sensors/#") == 3 && Self.waiting(s, Self.letters) == 3)
        Self.connect(&s)
        #expect(s.cloudReceived().publishes.map(\.text) == ["waits", "no 0", "no 1"])
        #expect(s.gateway.state.balance.isEven)
    }

    @Test("what was refused as live is not live any more when it is sent again")
    func replayOfLive() {
        var s = Self.established(Self.plan { $0.out[0].isLiveFirst = true })
        Self.publish(&s, ["no 1", "no 2"])
        Self.cloudAnswers(&s)
        s.cloudVanishes()
        #expect(s.replays() == 2)
        #expect(s.waiting("") == 2 && s.waiting("live") == 0)
    }

    @Test("a replay at QoS 2 leaves only once its Record is durable")
    func replayAtQoS2() {
        var s = Self.established()
        Self.publish(&s, ["no 1"], qos: .exactlyOnce)
        Self.cloudAnswers(&s)
        s.syncs()
        #expect(s.replays() == 1)
        #expect(s.cloudReceived() == [])
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["no 1"])
    }

    @Test("what is purged is gone, counted, and stays gone")
    func purge() {
        var s = Self.established()
        Self.publish(&s, (0..<9).map { "no \($0)" })
        Self.cloudAnswers(&s)
        #expect(s.purges([2, 5, 5, 99]) == 2)
        #expect(s.purges() == 7 && s.purges() == 0)
        s.syncs()
        #expect(s.gateway.state.balance.books.dropped(.purged) == 9 && s.gateway.state.balance.isEven)
        s.losesPower()
        #expect(Self.waiting(s, Self.letters) == 0 && s.gateway.state.balance.books.dropped(.purged) == 9)
    }

    @Test("beyond the bound the oldest goes, counted", arguments: [false, true])
    func bounded(byBytes: Bool) {
        let plan = Self.plan {
            if byBytes { $0.deadLetterBytesMax = 60 } else { $0.deadLettersMax = 4 }
        }
        var s = Self.established(plan)
        Self.publish(&s, (0..<9).map { "no \($0)" })
        Self.cloudAnswers(&s)
        #expect(Self.waiting(s, Self.letters) == 4)
        #expect(s.gateway.state.balance.books.dropped(.queueFull) == 5 && s.gateway.state.balance.isEven)
        #expect(s.replays() == 4)
        #expect(s.cloudReceived().publishes.map(\.text) == ["no 5", "no 6", "no 7", "no 8"])
    }

    @Test(
        "many dead letters are on flash, not in memory, and come back from there", arguments: [false, true])
    func paged(fromCheckpoint: Bool) {
        var plan = Self.plan()
        plan.limits.queueEntriesMax = 16
        plan.limits.loadedAtOnceMax = 5
        plan.limits.residentBytesOfAbsentMax = 0
        var s = Self.established(plan)
        let texts = (0..<200).map { "no \($0)" }
        for part in stride(from: 0, to: 200, by: 25) {
            Self.publish(&s, Array(texts[part..<part + 25]))
            Self.cloudAnswers(&s)
            s.passes(milliseconds: 2000)
            s.syncs()
            s.seals()
        }
        if fromCheckpoint {
            s.checkpoints()
            s.losesPowerAndRecoversFromOldCheckpoint()
        }
        let queue = s.gateway.state.session(of: Self.letters).flatMap { s.gateway.state[$0]?.queue }
        #expect(queue?.waitingCount == 200)
        #expect((queue?.entryCount ?? 999) < 80 && (queue?.pageCount ?? 0) > 2)
        if fromCheckpoint { Self.connect(&s) }
        #expect(s.purges([3, 60, 61]) == 3)
        #expect(s.replays([4, 70, 190]) == 3)
        #expect(Set(s.cloudReceived().publishes.map(\.text)) == ["no 4", "no 70", "no 190"])
        #expect(s.replays() == 194)
        #expect(Self.waiting(s, Self.letters) == 0 && s.gateway.state.balance.isEven)
        s.syncs()
        s.losesPower()
        #expect(Self.waiting(s, Self.letters) == 0 && Self.waiting(s, Self.outbox) == 197)
        #expect(s.gateway.state.balance.isEven)
    }

    @Test("one whose bytes are damaged is lost when it is wanted, counted, and the others come")
    func damaged() {
        var plan = Self.plan()
        plan.limits.queueEntriesMax = 4
        plan.limits.residentBytesOfAbsentMax = 0
        var s = Self.established(plan)
        Self.publish(&s, (0..<20).map { "no \($0)" })
        Self.cloudAnswers(&s)
        s.passes(milliseconds: 2000)
        s.syncs()
        s.seals()
        let place = s.journal.firstIndex { record in
            guard case .message(let message) = record, message.moved?.delivery == Delivery(17) else {
                return false
            }
            return true
        }
        s.damagedPostings = [Position(UInt64((place ?? 0) + 1))]
        #expect(s.replays() == 20)
        #expect(Self.waiting(s, Self.letters) == 0 && Self.waiting(s, Self.outbox) == 19)
        #expect(s.gateway.state.balance.books.dropped(.damaged) == 1 && s.gateway.state.balance.isEven)
    }

    @Test("a Record that is lost with others leaves the books balanced, whichever it is")
    func damagedRecords() {
        var s = Self.established()
        Self.publish(&s, ["a", "no 1", "no 2", "b"])
        Self.cloudAnswers(&s)
        s.passes(milliseconds: 2000)
        s.syncs()
        #expect(s.replays([0]) == 1)
        s.syncs()
        for lost in 0..<s.journal.count {
            #expect(s.replayed(without: [lost]).balance.isEven, "Record \(lost)")
        }
    }

    @Test("what expires while it is a dead letter expires when it is sent again, time off counted")
    func expiry() {
        var s = Self.established()
        var publish = Publish.text("sensors/a", "no 1", qos: .atLeastOnce, id: 1)
        publish.messageExpirySeconds = 100
        s.sends("press", .publish(publish))
        s.syncs()
        Self.cloudAnswers(&s)
        s.syncs()
        s.losesPower()
        s.learns(offFor: 99_000)
        Self.connect(&s)
        #expect(s.replays() == 1)
        #expect(s.cloudReceived().publishes.map(\.messageExpirySeconds) == [1])
        s.losesPower()
        s.passes(milliseconds: 2000)
        #expect(s.replays() == 1)
        Self.connect(&s)
        #expect(s.cloudReceived() == [])
        #expect(s.gateway.state.balance.books.expired == 1)
    }
}
