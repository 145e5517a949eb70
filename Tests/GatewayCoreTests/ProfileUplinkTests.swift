import MQTT
import Testing

@testable import GatewayCore

/// What a profile says of messages on their way up, and of how they are kept.
@Suite("Device profiles: messages")
struct ProfileUplinkTests {
    private static func plan(
        _ uplinks: [UplinkRoutes] = LaneTests.plan([LaneTests.route("#")]).uplinks,
        _ change: (inout DeviceProfile) -> Void
    ) -> GatewayPlan {
        var plan = ProfileTermsTests.plan(change)
        plan.uplinks = uplinks
        return plan
    }

    private static func rule(
        _ filter: String = "t/#", _ deadband: ReportByException.Deadband = .absolute(0.5),
        pointer: String? = nil, from least: UInt64 = 0, to most: UInt64? = nil
    ) throws -> ReportByException {
        ReportByException(
            filter: try TopicTemplate(filter), value: try pointer.map { try #require(JSONPointer($0)) },
            deadband: deadband, intervalMillisecondsMin: least, intervalMillisecondsMax: most)
    }

    // MARK: Uplinks

    @Test("Only the uplinks that a profile names carry what its devices publish, Wills included")
    func names() {
        let uplinks = ["cloud", "backup"].map { UplinkRoutes(name: $0, out: [LaneTests.route("#")], in: []) }
        let plan = Self.plan(uplinks) { $0.uplink = UplinkChoice(names: ["backup"]) }
        var s = Scenario.connected("press", "oven", plan: plan)
        s.connects("press", will: .text("w"))
        s.publishes("press", "t", "1", id: 1)
        s.publishes("oven", "t", "2", id: 1)
        s.vanishes("press")
        s.syncs()
        #expect(s.waiting("", of: "cloud") == 1 && s.waiting("", of: "backup") == 3)
        #expect(s.balance.isEven)
    }

    @Test("Where no uplink is named, nothing goes up and everybody here gets it")
    func none() {
        var s = Scenario.connected("press", "sub", plan: Self.plan { $0.uplink = UplinkChoice(names: []) })
        s.subscribes("sub", "#")
        s.publishes("press", "t", "1", id: 1)
        s.syncs()
        #expect(s.waiting("") == 0)
        #expect(s.texts("sub") == ["1"])
    }

    @Test("What a class publishes leaves by its own priority, but where a route has a queue of its own")
    func priority() {
        let routes = [
            LaneTests.route("own/#", queue: QueueBounds(messagesMax: 9)), LaneTests.route("#", .low),
        ]
        let plan = Self.plan(LaneTests.plan(routes).uplinks) { $0.uplink = UplinkChoice(priority: .high) }
        var s = Scenario.connected("press", "oven", plan: plan)
        #expect(s.lanes() == ["high", "low", "route own/#"])
        s.publishes("oven", "t", "oven", id: 1)
        s.publishes("press", "t", "press", id: 1)
        s.publishes("press", "own/t", "own", id: 2)
        s.syncs()
        #expect(s.waiting("high") == 1 && s.waiting("low") == 1 && s.waiting("route own/#") == 1)
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["press", "own", "oven"])
    }

    @Test("A profile that comes with a priority opens its lane, and one that goes ends it when it is empty")
    func laneLife() {
        let plain = LaneTests.plan([LaneTests.route("#")])
        var s = Scenario.connected("press", plan: plain)
        #expect(s.lanes() == [])
        s.reconfigures(Self.plan { $0.uplink = UplinkChoice(priority: .low) })
        #expect(s.lanes() == ["low"])
        s.publishes("press", "t", "1", id: 1)
        s.syncs()
        #expect(s.waiting("low") == 1)
        s.reconfigures(plain)
        #expect(s.lanes() == ["low"])
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        for id in s.cloudReceived().publishes.compactMap(\.id) {
            s.cloudSends(0, .puback(Acknowledgement(id)))
        }
        s.passes(milliseconds: 2000)
        s.publishes("press", "t", "2", id: 2)
        s.syncs()
        #expect(s.lanes() == [] && s.balance.isEven)
    }

    // MARK: Report by exception

    private static func sends(_ s: inout Scenario, _ values: [String], topic: String = "t/1") -> [String] {
        var up: [String] = []
        for value in values {
            s.sends("press", .publish(.text(topic, value)))
            up += s.cloudReceived().publishes.map(\.text)
            s.passes(milliseconds: 1000)
        }
        return up
    }

    private static func connected(_ rules: [ReportByException]) -> Scenario {
        var s = Scenario.connected("press", "sub", plan: plan { $0.reportByException = rules })
        s.subscribes("sub", "#")
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        _ = s.cloudReceived()
        return s
    }

    @Test(
        "Uplinks get what differs by more than the deadband from what went up last; who subscribes here, everything"
    )
    func deadband() throws {
        var s = Self.connected([try Self.rule()])
        let values = ["20.0", "20.5", "20.6", "20.2", "20.1", "20.0", "20.55"]
        #expect(Self.sends(&s, values) == ["20.0", "20.6", "20.0", "20.55"])
        #expect(s.texts("sub") == values)
        #expect(s.gateway.profileCounts[0].suppressed == 3)
        #expect(s.gateway.profileCounts[0].suppressedBytes == 3 * 7)
    }

    @Test("A relative deadband is a part of what went up last")
    func relative() throws {
        var s = Self.connected([try Self.rule("t/#", .relative(0.1))])
        #expect(Self.sends(&s, ["100", "110", "111", "100", "-100", "-109"]) == ["100", "111", "-100"])
        #expect(Self.sends(&s, ["0", "0", "0.001"], topic: "t/2") == ["0", "0.001"])
    }

    @Test("No sooner than the minimum interval, and after the maximum interval also what has not changed")
    func intervals() throws {
        var s = Self.connected([try Self.rule(from: 2000, to: 5000)])
        // One a second.
        #expect(
            Self.sends(&s, ["1", "2", "3", "3", "3", "3", "3", "3", "3"]) == ["1", "2", "3"])
    }

    @Test(
        "What changes too soon goes up when the minimum interval is over, though the device says no more; the books balance",
        arguments: [QoS.atMostOnce, .atLeastOnce, .exactlyOnce])
    func heldBack(qos: QoS) throws {
        var s = Self.connected([try Self.rule(from: 10_000)])
        func says(_ value: String, _ id: UInt16, _ s: inout Scenario) {
            s.sends(
                "press",
                .publish(
                    .text(
                        "t/1", value, qos: qos, id: qos == .atMostOnce ? nil : PacketIdentifier(rawValue: id))
                ))
            s.syncs()
        }
        says("1", 1, &s)
        s.passes(milliseconds: 1000)
        says("5", 2, &s)
        says("9", 3, &s)
        #expect(s.cloudReceived().publishes.map(\.text) == ["1"])
        s.passes(milliseconds: 8999)
        #expect(s.cloudReceived().publishes.isEmpty)
        s.passes(milliseconds: 1)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["9"])
        #expect(s.gateway.profileCounts[0].suppressed == 1)
        // Back within the deadband before its time: that was all.
        says("1", 4, &s)
        says("9.1", 5, &s)
        s.passes(milliseconds: 60_000)
        s.syncs()
        #expect(s.cloudReceived().publishes.isEmpty)
        says("1", 6, &s)
        #expect(s.cloudReceived().publishes.map(\.text) == ["1"])
        #expect(s.balance.isEven && s.replayed().balance.isEven)
    }

    @Test(
        "What is held back goes up when the rules change or the gateway stops, and at once where too much is held"
    )
    func heldBackEnds() throws {
        let rules = [try Self.rule(from: 10_000)]
        for ending in 0...2 {
            var plan = Self.plan { $0.reportByException = rules }
            if ending == 2 { plan.limits.heldBackBytesMax = -1 }
            var s = Scenario.connected("press", plan: plan)
            s.publishes("press", "t/1", "1", id: 1)
            s.publishes("press", "t/1", "5", id: 2)
            s.syncs()
            if ending < 2 { #expect(s.waiting("") == 1) }
            if ending == 0 { s.reconfigures(Self.plan { _ in }) }
            if ending == 1 { s.handle(.stop) }
            #expect(s.waiting("") == 2 && s.balance.isEven)
        }
    }

    // MARK: What went up and did not arrive

    @Test(
        "P3: what a full queue took was not reported: the next value is news",
        arguments: [QueueBounds.WhenFull.dropOldest, .dropNewest])
    func dropped(policy: QueueBounds.WhenFull) throws {
        let rules = [try Self.rule()]
        let routes = [LaneTests.route("#", queue: QueueBounds(messagesMax: 1, whenFull: policy))]
        var s = Scenario.connected(
            "press", plan: Self.plan(LaneTests.plan(routes).uplinks) { $0.reportByException = rules })
        s.publishes("press", "t/1", "1", id: 1)
        // Takes the place of the first, or has none.
        s.publishes("press", "t/2", "1", id: 2)
        s.syncs()
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        let lost = policy == .dropOldest ? "t/1" : "t/2"
        let up = s.cloudReceived().publishes
        #expect(up.map(\.topic) == [policy == .dropOldest ? "t/2" : "t/1"])
        for id in up.compactMap(\.id) { s.cloudSends(0, .puback(Acknowledgement(id))) }
        for (n, topic) in ["t/1", "t/2"].enumerated() { s.publishes("press", topic, "1", id: UInt16(3 + n)) }
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.topic) == [lost])
        #expect(s.balance.isEven)
    }

    @Test("What expired on its way up was not reported either")
    func expired() throws {
        let rules = [try Self.rule()]
        var s = Scenario.connected(
            "press",
            plan: Self.plan {
                $0.reportByException = rules
                $0.messageExpiry = MessageExpiry(defaultSeconds: 10)
            })
        s.publishes("press", "t/1", "1", id: 1)
        s.publishes("press", "t/1", "1", id: 2)
        #expect(s.waiting("") == 1)
        s.passes(milliseconds: 11_000)
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        #expect(s.cloudReceived().publishes.isEmpty)
        s.publishes("press", "t/1", "1", id: 3)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["1"])
    }

    @Test("[MQTT5-4.3.2-3] nor what the cloud refused, which is kept as a dead letter")
    func refusedByCloud() throws {
        var s = Self.connected([try Self.rule()])
        s.publishes("press", "t/1", "1", id: 1)
        s.syncs()
        let id = try #require(s.cloudReceived().publishes.first?.id)
        s.cloudSends(0, .puback(Acknowledgement(id, .quotaExceeded)))
        s.publishes("press", "t/1", "1", id: 2)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["1"])
    }

    @Test("At QoS 0 nobody knows what arrived: after a link has come or gone the next value is news")
    func linkLost() throws {
        var s = Self.connected([try Self.rule()])
        #expect(Self.sends(&s, ["1", "1"]) == ["1"])
        s.cloudVanishes()
        #expect(Self.sends(&s, ["5", "5"]).isEmpty)
        s.cloudConnects(sessionPresent: true)
        s.syncs()
        #expect(Self.sends(&s, ["5", "5"]) == ["5"])
        s.handle(.uplink(UplinkIndex(0), .writability(false)))
        #expect(Self.sends(&s, ["9"]).isEmpty)
        s.handle(.uplink(UplinkIndex(0), .writability(true)))
        #expect(Self.sends(&s, ["9", "9"]) == ["9"])
        // What waits for the cloud in a queue needs none of that.
        s.publishes("press", "t/2", "1", id: 1)
        s.cloudVanishes()
        s.publishes("press", "t/2", "1", id: 2)
        s.syncs()
        #expect(s.waiting("") == 1)
    }

    @Test("Nor is it known any more what was reported when a Will went up")
    func willBetween() throws {
        let rules = [try Self.rule()]
        var s = Scenario.connected("sub", plan: Self.plan { $0.reportByException = rules })
        s.connects("press", will: .text("t/1", "gone"))
        s.publishes("press", "t/1", "1", id: 1)
        s.vanishes("press")
        s.connects("press")
        s.publishes("press", "t/1", "1", id: 1)
        s.syncs()
        #expect(s.waiting("") == 3)
    }

    @Test("Each topic for itself; others are not touched; the first rule that matches decides")
    func topics() throws {
        var s = Self.connected([try Self.rule("t/free", .absolute(0)), try Self.rule("t/#", .absolute(100))])
        #expect(Self.sends(&s, ["1", "1", "2"], topic: "t/free") == ["1", "2"])
        #expect(Self.sends(&s, ["1", "2"], topic: "t/a") == ["1"])
        #expect(Self.sends(&s, ["1"], topic: "t/b") == ["1"])
        #expect(Self.sends(&s, ["1", "1"], topic: "u") == ["1", "1"])
    }

    @Test("What is no number always goes up, and so does the next number")
    func noNumber() throws {
        var s = Self.connected([try Self.rule()])
        #expect(
            Self.sends(&s, ["1", "1", "broken", "broken", "1", "1", ""]) == [
                "1", "broken", "broken", "1", "",
            ])
    }

    @Test("A number in a JSON text")
    func pointer() throws {
        var s = Self.connected([try Self.rule(pointer: "/v/0")])
        let values = [#"{"v":[1.0],"n":1}"#, #"{"v":[1.1],"n":2}"#, #"{"v":[2]}"#, #"{"v":2}"#]
        #expect(Self.sends(&s, values) == [values[0], values[2], values[3]])
    }

    @Test(
        "P3: who publishes at QoS 1 and 2 is answered, and the books balance",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func books(qos: QoS) throws {
        let rules = [try Self.rule()]
        var s = Scenario.connected("press", plan: Self.plan { $0.reportByException = rules })
        for n in 1...4 as ClosedRange<UInt16> {
            s.publishes("press", "t/1", n < 4 ? "1" : "2", qos: qos, id: n)
            s.syncs()
        }
        let answers = (1...4 as ClosedRange<UInt16>).compactMap { PacketIdentifier(rawValue: $0) }.map {
            qos == .atLeastOnce ? Packet.puback(Acknowledgement($0)) : .pubrec(Acknowledgement($0))
        }
        #expect(s.received("press") == answers)
        #expect(s.waiting("") == 2 && s.balance.isEven && s.balance.books.received == 2)
        s.losesPower()
        s.connects("press")
        s.publishes("press", "t/1", "2", qos: .atLeastOnce, id: 9)
        s.syncs()
        #expect(s.waiting("") == 3, "after a start the first value is news")
    }

    @Test("What there was no room for is not remembered as having gone up")
    func noRoom() throws {
        let rules = [try Self.rule()]
        let routes = [LaneTests.route("#", queue: QueueBounds(messagesMax: 1))]
        var s = Scenario.connected(
            "press", plan: Self.plan(LaneTests.plan(routes).uplinks) { $0.reportByException = rules })
        s.publishes("press", "t/1", "1", id: 1)
        s.publishes("press", "t/1", "2", id: 2)
        s.syncs()
        #expect(
            s.received("press") == [
                .puback(Acknowledgement(1)), .puback(Acknowledgement(2, .quotaExceeded)),
            ])
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        for id in s.cloudReceived().publishes.compactMap(\.id) {
            s.cloudSends(0, .puback(Acknowledgement(id)))
        }
        s.publishes("press", "t/1", "2", id: 2)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["2"])
    }

    @Test("Beyond the bounds on topics those go up again that went up longest ago", arguments: [true, false])
    func manyTopics(inBytes: Bool) throws {
        let rules = [try Self.rule()]
        var plan = Self.plan { $0.reportByException = rules }
        if inBytes { plan.limits.reportTopicBytesMax = 12 } else { plan.limits.reportTopicsMax = 4 }
        var s = Scenario.connected("press", plan: plan)
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        for n in 1...5 { #expect(Self.sends(&s, ["1", "1"], topic: "t/\(n)") == ["1"]) }
        #expect(Self.sends(&s, ["1"], topic: "t/5").isEmpty)
        #expect(Self.sends(&s, ["1"], topic: "t/3").isEmpty)
        #expect(Self.sends(&s, ["1"], topic: "t/1") == ["1"])
        if inBytes { #expect(Self.sends(&s, ["1", "1"], topic: "t/too-long") == ["1", "1"]) }
    }

    // MARK: Last values

    @Test("[MQTT5-3.3.1-5] the last value is kept on request; its receivers see RETAIN 0 as without")
    func lastValue() throws {
        let filter = try TopicTemplate("state/${clientid}/#")
        var s = Scenario.connected(
            "press", "oven", "sub", plan: ProfileTermsTests.plan { $0.keepsLastValue = [filter] })
        s.sends("sub", .subscribe("#", qos: .atLeastOnce, retainAsPublished: true))
        s.syncs()
        _ = s.received("sub")
        for (n, qos) in [QoS.atMostOnce, .atLeastOnce].enumerated() {
            let id: PacketIdentifier? = qos == .atMostOnce ? nil : 1
            s.sends("press", .publish(.text("state/press/\(n)", "v\(n)", qos: qos, id: id)))
        }
        s.sends("press", .publish(.text("state/oven/1", "not its own")))
        s.sends("oven", .publish(.text("state/press/2", "not its profile")))
        s.sends("press", .publish(.text("state/press/0", "")))
        s.syncs()
        #expect(s.received("sub").publishes.allSatisfy { !$0.retain })
        s.losesPower()
        s.connects("late", cleanStart: true)
        s.subscribes("late", "state/#")
        let got = s.received("late").publishes
        #expect(got.map(\.text).sorted() == ["v0", "v1"])
        #expect(got.allSatisfy { $0.retain })
    }

    @Test("P4: a last value that there is no room for is passed on and not kept")
    func lastValueWithoutRoom() throws {
        let filter = try TopicTemplate("#")
        var plan = ProfileTermsTests.plan { $0.keepsLastValue = [filter] }
        plan.limits.retainedBytesMax = 10
        var s = Scenario.connected("press", plan: plan)
        s.publishes("press", "a", "12345678", id: 1)
        s.publishes("press", "b", "1", id: 2)
        s.syncs()
        #expect(
            s.received("press") == [
                .puback(Acknowledgement(1, .noMatchingSubscribers)),
                .puback(Acknowledgement(2, .noMatchingSubscribers)),
            ])
        #expect(s.gateway.state.retained.count == 1)
    }

    // MARK: Durability

    @Test(
        "How soon a message must be durable is its publisher's affair",
        arguments: [
            (nil, Urgency.message, Urgency.handshake), (.balanced, .message, .handshake),
            (.latency, .control, .control), (.flashSaver, .relaxed, .relaxed),
        ] as [(DurabilityWindow?, Urgency, Urgency)])
    func durability(window: DurabilityWindow?, one: Urgency, two: Urgency) {
        var s = Scenario.connected("press", "sub", plan: ProfileTermsTests.plan { $0.durability = window })
        s.subscribes("sub", "#")
        s.vanishes("sub")
        s.publishes("press", "t", "1", id: 1)
        #expect(s.lastMessageUrgency == one)
        s.publishes("press", "t", "2", qos: .exactlyOnce, id: 2)
        #expect(s.lastMessageUrgency == two)
        s.syncs()
        s.sends("press", .pubrel(Acknowledgement(2)))
        #expect(s.lastUrgency == two)
    }

    @Test("Rules E1 to E7: what may be elided still may, but for who cannot wait")
    func elision() {
        for (window, expected) in [(.flashSaver, .elidable), (.latency, .control)]
            as [(DurabilityWindow, Urgency)]
        {
            var s = Scenario.connected(
                "press", "sub", plan: ProfileTermsTests.plan { $0.durability = window })
            s.subscribes("sub", "#")
            s.publishes("press", "t", "1", id: 1)
            #expect(s.lastMessageUrgency == expected)
        }
    }

    @Test("A1: nobody is acknowledged before its Record is durable, however patient")
    func patience() {
        var s = Scenario.connected(
            "press", "sub", plan: ProfileTermsTests.plan { $0.durability = .flashSaver })
        s.subscribes("sub", "#")
        s.vanishes("sub")
        s.publishes("press", "t", "2", qos: .exactlyOnce, id: 2)
        s.publishes("press", "t", "2", qos: .exactlyOnce, id: 2)
        #expect(s.received("press") == [])
        s.syncs()
        #expect(s.received("press") == [.pubrec(Acknowledgement(2)), .pubrec(Acknowledgement(2))])
    }
}
