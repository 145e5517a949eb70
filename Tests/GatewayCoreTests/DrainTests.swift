import GatewayCore
import MQTT
import Testing

/// How fast what waits for an uplink leaves.
@Suite("Drains")
struct DrainTests {
    private static func drain(_ messages: UInt32? = nil, bytes: UInt32? = nil) -> UplinkRoutes.Drain {
        .init(messagesPerSecond: messages, bytesPerSecond: bytes)
    }

    /// A backlog of so many waits for a cloud that is there now and answers at once.
    private static func backlog(
        _ count: Int, _ plan: GatewayPlan, topics: [String] = ["a/1"], payloadBytes: Int = 10
    ) -> Scenario {
        var s = Scenario.connected("press", plan: plan)
        for n in 0..<count {
            let text = "\(n) " + String(repeating: ".", count: payloadBytes)
            s.publishes("press", topics[n % topics.count], text, id: UInt16(n % 60_000 + 1))
            s.syncs()
        }
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        return s
    }

    /// What the cloud is sent in so many milliseconds, while it answers at once.
    private static func passes(_ milliseconds: Int, _ s: inout Scenario) -> [Publish] {
        var got: [Publish] = []
        for _ in 0..<milliseconds / 5 {
            while true {
                let packets = s.cloudReceived()
                if packets.isEmpty { break }
                got += packets.publishes
                for case .some(let answer) in packets.map(\.subscribersAnswer) { s.cloudSends(0, answer) }
                s.syncs()
            }
            s.passes(milliseconds: 5)
        }
        return got
    }

    @Test("Messages leave at their rate, after one second's worth at once", arguments: [UInt32(20), 200])
    func messages(rate: UInt32) {
        var s = Self.backlog(900, LaneTests.plan([LaneTests.route("a/#")], drain: Self.drain(rate)))
        let seconds = rate == 20 ? 10 : 3
        let got = Self.passes(seconds * 1000, &s)
        let expected = Int(rate) * (seconds + 1)
        #expect((expected * 97 / 100...expected + 1).contains(got.count), "\(got.count)")
        #expect(got.map { Int($0.text.prefix { $0 != " " }) } == (0..<got.count).map { $0 })
    }

    @Test(
        "Bytes leave at their rate, in order, and a message larger than a second's worth when the bucket is full"
    )
    func bytes() {
        var s = Self.backlog(
            12, LaneTests.plan([LaneTests.route("a/#")], drain: Self.drain(bytes: 1000)), payloadBytes: 2000)
        let got = Self.passes(10_000, &s)
        #expect((5...6).contains(got.count), "2 seconds each")
    }

    @Test("A lane that waits for the drain is not overtaken by one of lower priority")
    func priority() {
        var s = Self.backlog(
            60,
            LaneTests.plan(
                [LaneTests.route("a/#", .low), LaneTests.route("b/#", .high)], drain: Self.drain(10)),
            topics: ["a/1", "b/1"])
        let got = Self.passes(6000, &s)
        #expect(got.prefix(30).allSatisfy { $0.topic == "b/1" })
        #expect(got.dropFirst(30).allSatisfy { $0.topic == "a/1" })
        #expect((68...71).contains(got.count) || got.count == 60)
    }

    @Test("What is live does not wait for the drain but counts, and so does QoS 0")
    func live() {
        var s = Self.backlog(
            500, LaneTests.plan([LaneTests.route("a/#", liveFirst: true)], drain: Self.drain(50)))
        _ = Self.passes(1000, &s)
        _ = s.cloudReceived()
        s.cloudAnswersAll()
        for n in 0..<40 {
            s.publishes("press", "a/1", "live \(n)", id: UInt16(n + 1))
            #expect(s.cloudReceived().publishes.map(\.text) == ["live \(n)"])
            s.cloudAnswersAll()
        }
        s.sends("press", .publish(.text("a/1", "QoS 0")))
        #expect(s.cloudReceived().publishes.map(\.text) == ["QoS 0"])
        let got = Self.passes(2000, &s)
        #expect((50...62).contains(got.count), "\(got.count): 100 less 41")
    }

    @Test("A burst of live messages owes the drain no more than a second")
    func debt() {
        var s = Self.backlog(
            200, LaneTests.plan([LaneTests.route("a/#", liveFirst: true)], drain: Self.drain(10)))
        _ = Self.passes(500, &s)
        for n in 0..<90 { s.sends("press", .publish(.text("a/1", "\(n)"))) }
        #expect(s.cloudReceived().publishes.count >= 90)
        let got = Self.passes(3000, &s)
        #expect((10...21).contains(got.count), "\(got.count)")
    }

    @Test("A drain that is made faster counts at once, however long the old one had to wait")
    func faster() {
        let routes = [LaneTests.route("a/#")]
        var s = LaneTests.established(LaneTests.plan(routes, drain: Self.drain(bytes: 100)))
        s.publishes("press", "a/1", String(repeating: ".", count: 100_000), id: 1)
        for n in 2...20 as ClosedRange<UInt16> { s.publishes("press", "a/1", "\(n)", id: n) }
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.id) == [1])
        s.cloudSends(0, .puback(Acknowledgement(1)))
        #expect(s.cloudReceived().isEmpty, "the next one waits for 1000 seconds")
        s.reconfigures(LaneTests.plan(routes, drain: Self.drain(4)))
        let got = Self.passes(5000, &s)
        #expect(got.map(\.text) == (2...20).map { "\($0)" })
    }

    @Test("E2: a message that has to wait for the drain does not linger, one that has not may be elided")
    func elision() {
        var s = LaneTests.established(LaneTests.plan([LaneTests.route("a/#")], drain: Self.drain(2)))
        s.publishes("press", "a/1", "1", id: 1)
        s.publishes("press", "a/1", "2", id: 2)
        #expect(s.lastMessageUrgency == .elidable)
        s.publishes("press", "a/1", "3", id: 3)
        #expect(s.lastMessageUrgency == .message)
        #expect(s.cloudReceived().publishes.map(\.text) == ["1", "2"])
        s.passes(milliseconds: 500)
        #expect(s.cloudReceived().publishes.map(\.text) == ["3"])
    }

    @Test("P5: a paced backlog is read from its index as it leaves")
    func paged() {
        var plan = LaneTests.plan(
            [LaneTests.route("a/#", liveFirst: true), LaneTests.route("b/#", .low)], drain: Self.drain(100))
        plan.limits.queueEntriesMax = 16
        plan.limits.residentBytesMax = 200
        plan.limits.residentBytesOfAbsentMax = 50
        var s = Scenario.connected("press", plan: plan)
        for n in 0..<400 {
            s.publishes("press", n % 2 == 0 ? "a/1" : "b/1", "\(n)", id: UInt16(n + 1))
            s.syncs()
            if n % 25 == 0 { s.seals() }
        }
        s.losesPower()
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        let got = Self.passes(6000, &s)
        for (start, topic) in [(0, "a/1"), (1, "b/1")] {
            let texts = got.filter { $0.topic == topic }.map(\.text)
            #expect(texts == stride(from: start, to: 400, by: 2).map { "\($0)" })
        }
        #expect(s.indexings.count > 4)
        #expect(s.balance.isEven)
    }
}

extension Scenario {
    /// The cloud acknowledges everything it has been sent under any identifier.
    mutating func cloudAnswersAll() {
        for id in 1...0x7000 as ClosedRange<UInt16> {
            if let id = PacketIdentifier(rawValue: id) { cloudSends(0, .puback(Acknowledgement(id))) }
        }
    }
}
