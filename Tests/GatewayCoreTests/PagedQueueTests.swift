import GatewayCore
import MQTT
import Testing

/// Promise P5: what is queued lives on flash. A queue keeps a few entries in memory, and of the rest only which
/// stretch of the log has them.
@Suite("Queues on flash")
struct PagedQueueTests {
    private static func plan(entries: Int = 8) -> GatewayPlan {
        var plan = GatewayPlan()
        plan.limits.queueEntriesMax = entries
        return plan
    }

    /// Messages "0", "1", … for a client that is away, a complete stretch of the log each 100.
    private static func backlog(
        of count: Int, filter: String = "t", qos: QoS = .atLeastOnce, plan: GatewayPlan = plan()
    ) -> Scenario {
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", filter)
        s.vanishes("archive")
        publish(0..<count, qos: qos, to: &s)
        return s
    }

    private static func publish(_ range: Range<Int>, qos: QoS = .atLeastOnce, to s: inout Scenario) {
        for n in range {
            s.sends("press", .publish(.text("t", "\(n)", qos: qos, id: 1)))
            s.syncs()
            if qos == .exactlyOnce {
                s.sends("press", .pubrel(Acknowledgement(1)))
                s.syncs()
            }
            if n % 100 == 99 { s.seals() }
        }
        _ = s.received("press")
    }

    private static func texts(_ range: Range<Int>) -> [String] { range.map { "\($0)" } }

    @Test(
        "P5 A backlog takes little memory, however long, and comes out whole and in order",
        arguments: [false, true])
    func backlog(powerFails: Bool) throws {
        var s = Self.backlog(of: 2000)
        if powerFails { s.losesPower() }
        let queue = try s.queue(of: "archive")
        #expect(queue.waitingCount == 2000 && queue.entryCount <= 8 + 100 && queue.pageCount >= 18)
        #expect(queue.waitingBytes == (0..<2000).reduce(0) { $0 + 1 + "\($1)".utf8.count })
        s.connects("archive")
        #expect(s.drains("archive").map(\.text) == Self.texts(0..<2000))
        s.passes(milliseconds: 1000)
        s.syncs()
        let rest = try s.queue(of: "archive")
        #expect(rest.waitingCount == 0 && rest.waitingBytes == 0 && rest.pageCount == 0)
        #expect(!s.gateway.state.owes(from: Position(1), through: s.gateway.lastPosition))
    }

    @Test("P5 A checkpoint of a long queue is short, and a replay behind it settles what is in pages")
    func checkpoint() throws {
        var s = Self.backlog(of: 1000, qos: .exactlyOnce)
        s.checkpoints()
        s.connects("archive")
        var got: [String] = []
        while got.count < 333 {
            s.syncs()
            for packet in s.received("archive") {
                if case .publish(let publish) = packet { got.append(publish.text) }
                if let answer = packet.subscribersAnswer { s.sends("archive", answer) }
            }
        }
        s.passes(milliseconds: 1000)
        s.syncs()
        s.losesPowerAndRecoversFromOldCheckpoint()
        let queue = try s.queue(of: "archive")
        #expect(queue.waitingCount <= 1000 - 200 && queue.entryCount < 300)
        s.connects("archive")
        _ = s.drains("archive")
        #expect(try s.queue(of: "archive").waitingCount == 0)
    }

    @Test("What an index has lost is dropped, counted, once; everything else arrives")
    func damaged() throws {
        var s = Self.backlog(of: 400)
        let lost = s.positions(of: ["150", "151", "199", "320"])
        s.damagedPostings = Set(lost)
        s.connects("archive")
        #expect(
            s.drains("archive").map(\.text)
                == Self.texts(0..<400).filter { !["150", "151", "199", "320"].contains($0) })
        #expect(s.droppedAsDamaged == 4)
        s.losesPower()
        s.connects("archive")
        _ = s.drains("archive")
        #expect(s.droppedAsDamaged == 4)
    }

    @Test("A whole index that is damaged takes its page along, and no more")
    func damagedIndex() throws {
        var s = Self.backlog(of: 300)
        s.answersIndexes = false
        s.connects("archive")
        var got: [String] = []
        for _ in 0..<200 {
            got += s.drains("archive").map(\.text)
            guard let (session, stretch) = s.indexings.last else { continue }
            let isSecond = stretch.contains(s.positions(of: ["150"])[0])
            if isSecond {
                s.handle(.storage(.indexed(session, stretch, nil)))
            } else {
                s.answersIndex(session, stretch)
            }
        }
        #expect(got == Self.texts(0..<100) + Self.texts(200..<300))
        #expect(s.droppedAsDamaged == 100)
    }

    @Test("An index that comes when the receiver is gone is asked for again when it is back")
    func lateIndex() throws {
        var s = Self.backlog(of: 300)
        s.answersIndexes = false
        s.connects("archive")
        _ = s.drains("archive")
        let (session, stretch) = try #require(s.indexings.last)
        s.vanishes("archive")
        s.answersIndex(session, stretch)
        let count = s.indexings.count
        s.answersIndexes = true
        s.connects("archive")
        #expect(s.indexings.count > count)
        #expect(s.drains("archive").map(\.text).last == "299")
    }

    @Test("P5 [MQTT5-4.8.2-4] What waits for a shared subscription is on flash too")
    func group() throws {
        var s = Self.backlog(of: 1000, filter: "$share/g/t", qos: .exactlyOnce)
        let filter = try #require(TopicFilter("$share/g/t"))
        let group = try #require(s.gateway.state.session(of: .group(filter)))
        #expect(try #require(s.gateway.state[group]).queue.entryCount <= 8 + 100)
        s.checkpoints()
        s.connects("archive", receiveMaximum: 20)
        #expect(s.texts("archive").count == 20)
        s.syncs()
        // What was assigned is no longer named by any index.
        let member = try s.queue(of: "archive")
        let stretch = Stretch(first: Position(1), last: s.gateway.lastPosition)
        #expect(member.waitingCount > 0)
        #expect(s.gateway.state.strayPositions(in: stretch).count == member.waitingCount)
        s.losesPowerAndRecoversFromOldCheckpoint()
        s.connects("archive", receiveMaximum: 20)
        #expect(s.drains("archive").map(\.text) == Self.texts(0..<1000))
        #expect(s.gateway.state[group]?.queue.waitingCount == 0)
    }

    @Test("Compaction is told what is needed of a message, in memory or in a page")
    func needs() throws {
        var s = Self.backlog(of: 300)
        let id = try #require(s.gateway.state.session(of: .client(identifier: "archive")))
        for number in [0, 5, 50, 150, 299] as [UInt64] {
            #expect(s.gateway.state.needs(id, Delivery(number)))
        }
        #expect(!s.gateway.state.needs(id, Delivery(300)))
        #expect(!s.gateway.state.needs(SessionID(77), Delivery(0)))
        s.connects("archive")
        _ = s.drains("archive")
        s.passes(milliseconds: 1000)
        for number in [0, 50, 299] as [UInt64] { #expect(!s.gateway.state.needs(id, Delivery(number))) }
    }
}

/// A message's Record says which number it has in each queue.
@Suite("Numbers of deliveries")
struct DeliveryNumberTests {
    @Test("A5 A Record lost to damage moves no later delivery's Packet Identifier")
    func lostRecord() throws {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        for n in 0..<5 {
            s.sends(
                "press",
                .publish(
                    .text(
                        "t", "\(n)", qos: n % 2 == 0 ? .exactlyOnce : .atLeastOnce,
                        id: PacketIdentifier(rawValue: UInt16(n + 1)))))
            s.syncs()
        }
        let lost = s.positions(of: ["1", "2"]).map { Int($0.number) - 1 }
        s.losesPower(andRecords: Set(lost))
        s.connects("archive")
        let publishes = s.drains("archive")
        #expect(publishes.map(\.text) == ["0", "3", "4"])
        #expect(
            publishes.map(\.id) == [
                PacketIdentifierRule.whole.identifier(of: Delivery(0), qos: .exactlyOnce),
                PacketIdentifierRule.whole.identifier(of: Delivery(3), qos: .atLeastOnce),
                PacketIdentifierRule.whole.identifier(of: Delivery(4), qos: .exactlyOnce),
            ])
    }

    private static let session = SessionID(1)

    private static func state() -> DurableState {
        var state = DurableState()
        state.apply(
            .sessionOpened(
                SessionOpened(
                    session: session, owner: .client(identifier: "archive"), version: .v5_0,
                    expirySeconds: .max,
                    isPersistent: true, will: nil)), at: Position(1))
        return state
    }

    private static func message(_ number: UInt64?) -> Record {
        .message(
            MessageRecord(
                qos: .atLeastOnce, message: ApplicationMessage(topic: [0x74], payload: [1]),
                targets: [.init(session: session, delivery: number.map { Delivery($0) }, qos: .atLeastOnce)]))
    }

    @Test(
        "Numbers that were never written cost nothing, however many, and count as settled",
        arguments: [false, true])
    func gaps(isEmptyBefore: Bool) throws {
        var state = Self.state()
        let far: UInt64 = 1 << 40
        if !isEmptyBefore { state.apply(Self.message(0), at: Position(2)) }
        state.apply(Self.message(far), at: Position(3))
        let queue = try #require(state[Self.session]).queue
        #expect(queue.end == Delivery(far + 1) && queue.waitingCount == (isEmptyBefore ? 1 : 2))
        #expect(queue.entryCount == queue.waitingCount)
        #expect(queue.floor == Delivery(isEmptyBefore ? far : 0))
        state.apply(
            .acknowledged(AcknowledgedRecord(session: Self.session, floor: Delivery(1), settledAbove: [])),
            at: Position(4))
        #expect(state[Self.session]?.queue.floor == Delivery(far))
        #expect(state.needs(Self.session, Delivery(far)) && !state.needs(Self.session, Delivery(far - 1)))
        var restored = DurableState()
        state.snapshot { restored.apply($0, at: .zero) }
        #expect(restored[Self.session]?.queue.end == queue.end)
        #expect(restored[Self.session]?.queue.waitingCount == 1)
    }

    @Test("A Record with a number that was there already changes nothing")
    func again() throws {
        var state = Self.state()
        for number in [0, 1, 1, 0, 2, 2] as [UInt64] {
            state.apply(Self.message(number), at: Position(number + 2))
        }
        #expect(state[Self.session]?.queue.waitingCount == 3)
        // As older stores have it: the next.
        state.apply(Self.message(nil), at: Position(9))
        #expect(state[Self.session]?.queue.end == Delivery(4))
    }

    @Test("A floor beyond the end is the end: what was settled need never have been written")
    func floorBeyondEnd() throws {
        var state = Self.state()
        state.apply(Self.message(0), at: Position(2))
        state.apply(
            .acknowledged(AcknowledgedRecord(session: Self.session, floor: Delivery(70), settledAbove: [])),
            at: Position(3))
        let queue = try #require(state[Self.session]).queue
        #expect(queue.floor == Delivery(70) && queue.end == Delivery(70) && queue.waitingCount == 0)
        #expect(!state.owes(from: Position(1), through: Position(3)))
        state.apply(Self.message(69), at: Position(4))
        #expect(state[Self.session]?.queue.waitingCount == 0)
        state.apply(Self.message(70), at: Position(5))
        #expect(state[Self.session]?.queue.waitingCount == 1)
    }

    @Test("What was written without numbers stays in memory: no index could find it")
    func withoutNumbers() throws {
        var state = Self.state()
        state.limits.queueEntriesMax = 4
        for n in 2..<102 as Range<UInt64> { state.apply(Self.message(n % 2 == 0 ? n : nil), at: Position(n)) }
        state.seal(Stretch(first: Position(1), last: Position(101)))
        #expect(state[Self.session]?.queue.pageCount == 0)
        #expect(state[Self.session]?.queue.waitingCount == 100)
    }
}

extension Scenario {
    fileprivate func queue(of client: String) throws -> MessageQueue {
        let queue = gateway.state.session(of: .client(identifier: client)).flatMap {
            gateway.state[$0]?.queue
        }
        return try #require(queue)
    }

    fileprivate var droppedAsDamaged: Int {
        observations.reduce(0) {
            if case .dropped(_, .damaged, let count) = $1 { $0 + count } else { $0 }
        }
    }
}
