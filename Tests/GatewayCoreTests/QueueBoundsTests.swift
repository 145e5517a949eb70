import MQTT
import Testing

@testable import GatewayCore

/// What happens when more waits than a queue may hold.
@Suite("Bounds of a queue")
struct QueueBoundsTests {
    @Test("An entry takes 16 bytes")
    func entrySize() {
        #expect(MemoryLayout<MessageQueue.Entry>.stride == 16)
    }

    private static func scenario(_ bounds: QueueBounds, _ change: (inout GatewayPlan) -> Void = { _ in })
        -> Scenario
    {
        var plan = LaneTests.plan([LaneTests.route("a/#", queue: bounds), LaneTests.route("b/#")])
        change(&plan)
        return Scenario.connected("press", plan: plan)
    }

    private static func text(_ publishes: [Publish]) -> [String] {
        publishes.map { String($0.text.prefix { $0 != " " }) }
    }

    /// What the cloud gets of it all in the end.
    private static func drained(_ s: inout Scenario) -> [String] {
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        var got: [Publish] = []
        while true {
            let packets = s.cloudReceived()
            if packets.isEmpty { break }
            got += packets.publishes
            for case .some(let answer) in packets.map(\.subscribersAnswer) { s.cloudSends(0, answer) }
            s.syncs()
        }
        s.passes(milliseconds: 2000)
        s.syncs()
        #expect(s.balance.isEven)
        #expect(s.waiting("route a/#") == 0)
        return text(got)
    }

    private static func fill(
        _ s: inout Scenario, _ range: ClosedRange<Int>, bytes: Int = 0, qos: QoS = .atLeastOnce
    ) {
        for n in range {
            s.publishes(
                "press", "a/1", "\(n) " + String(repeating: ".", count: bytes), qos: qos, id: UInt16(n))
            s.syncs()
            if qos == .exactlyOnce, let id = PacketIdentifier(rawValue: UInt16(n)) {
                s.sends("press", .pubrel(Acknowledgement(id)))
                s.syncs()
            }
        }
    }

    private static func books(_ s: borrowing Scenario) -> Books { s.balance.books }

    // MARK: Refuse

    @Test("P4: a full queue refuses its publisher, and no other queue's", arguments: [1, 3])
    func refuse(max: Int) {
        var s = Self.scenario(QueueBounds(messagesMax: max))
        Self.fill(&s, 1...max)
        _ = s.received("press")
        s.publishes("press", "a/1", "too much", id: 100)
        #expect(s.received("press") == [.puback(Acknowledgement(100, .quotaExceeded))])
        s.publishes("press", "b/1", "other", id: 101)
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(101))])
        #expect(Self.drained(&s) == ["other"] + (1...max).map { "\($0)" })
        s.publishes("press", "a/1", "room again", id: 102)
        #expect(s.received("press").isEmpty)
    }

    @Test("P4: bytes are bounded too, but for a message that waits alone")
    func refuseBytes() {
        var s = Self.scenario(QueueBounds(bytesMax: 100))
        Self.fill(&s, 1...1, bytes: 500)
        _ = s.received("press")
        s.publishes("press", "a/1", "x", id: 100)
        #expect(s.received("press") == [.puback(Acknowledgement(100, .quotaExceeded))])
        #expect(Self.drained(&s) == ["1"])
    }

    @Test("P4: before MQTT 5 the publisher waits until there is room")
    func refuseBefore5() {
        var s = Self.scenario(QueueBounds(messagesMax: 1))
        s.connects("old", version: .v3_1_1)
        Self.fill(&s, 1...1)
        s.publishes("old", "a/1", "2", id: 2)
        s.syncs()
        #expect(s.received("old") == [])
        #expect(s.waiting("route a/#") == 1)
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        for id in s.cloudReceived().publishes.compactMap(\.id) {
            s.cloudSends(0, .puback(Acknowledgement(id)))
        }
        s.passes(milliseconds: 2000)
        s.syncs()
        #expect(Self.text(s.cloudReceived().publishes) == ["2"])
        #expect(s.received("old") == [.puback(Acknowledgement(2))])
    }

    // MARK: Drop

    @Test(
        "The oldest make room, counted in the books of every start",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func dropOldest(qos: QoS) {
        var s = Self.scenario(QueueBounds(messagesMax: 3, whenFull: .dropOldest))
        Self.fill(&s, 1...10, qos: qos)
        #expect(Self.books(s).dropped(.queueFull) == 7)
        #expect(s.balance.isEven && s.balance.queued == 3)
        #expect(s.replayed().balance == s.balance)
        #expect(
            s.observations.count {
                if case .dropped(.lane, .queueFull, count: 1) = $0 { true } else { false }
            } == 7)
        s.losesPower()
        s.connects("press")
        #expect(s.balance.isEven)
        Self.fill(&s, 11...12)
        #expect(Self.drained(&s) == (qos == .exactlyOnce ? ["8", "9", "10"] : ["10", "11", "12"]))
    }

    @Test("A large message makes several small ones go, and only as many as it takes")
    func dropOldestBytes() {
        var s = Self.scenario(QueueBounds(bytesMax: 1000, whenFull: .dropOldest))
        Self.fill(&s, 1...8, bytes: 100)
        #expect(Self.books(s).dropped(.queueFull) == 0)
        s.publishes("press", "a/1", "9 " + String(repeating: ".", count: 500), id: 9)
        s.syncs()
        let dropped = Int(Self.books(s).dropped(.queueFull))
        #expect((4...5).contains(dropped))
        #expect(Self.drained(&s) == (dropped + 1...9).map { "\($0)" })
    }

    @Test("What was sent is not dropped: then the new message is")
    func dropOldestSent() {
        var s = Self.scenario(QueueBounds(messagesMax: 2, whenFull: .dropOldest))
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        Self.fill(&s, 1...3)
        let sent = s.cloudReceived().publishes
        #expect(Self.text(sent) == ["1", "2"])
        #expect(Self.books(s).dropped(.queueFull) == 1)
        for id in sent.compactMap(\.id) { s.cloudSends(0, .puback(Acknowledgement(id))) }
        s.passes(milliseconds: 2000)
        s.syncs()
        #expect(s.balance.isEven && s.balance.queued == 0)
        #expect(s.replayed().balance.isEven)
        Self.fill(&s, 4...4)
        #expect(Self.text(s.cloudReceived().publishes) == ["4"])
    }

    @Test("The newest is not queued, its publisher is answered and its other receivers get it")
    func dropNewest() {
        var s = Self.scenario(QueueBounds(messagesMax: 3, whenFull: .dropNewest))
        s.connects("screen")
        s.subscribes("screen", "#", qos: .atLeastOnce)
        _ = s.received("press")
        Self.fill(&s, 1...10)
        #expect(s.drains("screen").count == 10)
        #expect(s.received("press").count == 10)
        #expect(Self.books(s).dropped(.queueFull) == 7)
        #expect(s.balance.isEven)
        s.passes(milliseconds: 2000)
        s.syncs()
        #expect(s.replayed().balance == s.balance)
        s.losesPower()
        s.connects("press")
        Self.fill(&s, 11...11)
        #expect(Self.books(s).dropped(.queueFull) == 8)
        #expect(Self.drained(&s) == ["1", "2", "3"])
        Self.fill(&s, 12...12)
        #expect(Self.text(s.cloudReceived().publishes) == ["12"])
    }

    @Test("P3: messages that were never written and one that was dropped are told apart in a replay")
    func dropBehindElided() {
        var s = Self.scenario(QueueBounds(messagesMax: 1, whenFull: .dropNewest))
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        for n in 1...3 as ClosedRange<UInt16> {
            s.publishes("press", "a/1", "\(n)", id: n)
            for id in s.cloudReceived().publishes.compactMap(\.id) {
                s.cloudSends(0, .puback(Acknowledgement(id)))
            }
        }
        s.publishes("press", "a/1", "4", id: 4)
        s.publishes("press", "a/1", "5", id: 5)
        s.syncs()
        let books = Books(received: 5, delivered: 3, dropped: [(.queueFull, 1)])
        #expect(s.balance == Balance(books: books, queued: 1))
        #expect(s.replayed().balance == s.balance)
    }

    @Test(
        "P3: who is told that a message was taken which the bound lets go is told once that is counted for good",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func countedForGood(qos: QoS) {
        var s = Self.scenario(QueueBounds(messagesMax: 1, whenFull: .dropNewest))
        Self.fill(&s, 1...1)
        _ = s.received("press")
        s.publishes("press", "a/1", "2", qos: qos, id: 2)
        #expect(s.received("press") == [])
        s.syncsOnce()
        let answer = Acknowledgement(2)
        #expect(s.received("press") == [qos == .exactlyOnce ? .pubrec(answer) : .puback(answer)])
        s.losesPower()
        #expect(Self.books(s).dropped(.queueFull) == 1 && s.balance.isEven)
    }

    @Test(
        "P5: a queue in pages is bounded alike, and its books balance",
        arguments: [QueueBounds.WhenFull.dropOldest, .dropNewest])
    func paged(policy: QueueBounds.WhenFull) {
        var s = Self.scenario(QueueBounds(messagesMax: 50, whenFull: policy)) {
            $0.limits.queueEntriesMax = 8
            $0.limits.residentBytesOfAbsentMax = 20
        }
        for start in stride(from: 1, to: 201, by: 10) {
            Self.fill(&s, start...start + 9)
            s.seals()
            s.passes(milliseconds: 1500)
            s.syncs()
            if start % 50 == 1 { s.checkpoints() }
        }
        #expect(s.balance.isEven && s.balance.queued == 50)
        #expect(Self.books(s).dropped(.queueFull) == 150)
        #expect(s.replayed().balance == s.balance)
        s.losesPowerAndRecoversFromOldCheckpoint()
        #expect(s.balance.isEven && s.balance.queued == 50)
        let expected = policy == .dropOldest ? 151...200 : 1...50
        #expect(Self.drained(&s) == expected.map { "\($0)" })
    }
}
