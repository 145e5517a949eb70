import MQTT
import Testing

@testable import GatewayCore

/// Values that are held back until their minimum interval is over, and all that happens meanwhile.
@Suite("Device profiles: values held back")
struct ProfileHeldBackTests {
    private static func plan(
        _ uplinks: [String] = ["cloud"], _ change: (inout DeviceProfile) throws -> Void = { _ in }
    ) throws -> GatewayPlan {
        var plan = try ProfileTermsTests.plan {
            $0.reportByException = [try rule()]
            try change(&$0)
        }
        plan.uplinks = uplinks.map { UplinkRoutes(name: $0, out: [LaneTests.route("#")], in: []) }
        return plan
    }

    private static func rule(_ band: Double = 0.5) throws -> ReportByException {
        ReportByException(
            filter: try TopicTemplate("t/#"), deadband: .absolute(band), intervalMillisecondsMin: 10_000)
    }

    // MARK: Reloads

    @Test(
        "A reload that takes an uplink away, or comes after one that did, sends up what is held back",
        arguments: [false, true])
    func uplinkRemoved(before: Bool) throws {
        let low = { (profile: inout DeviceProfile) in profile.uplink = UplinkChoice(priority: .low) }
        var s = Scenario.connected("press", plan: try Self.plan(["other", "cloud", "last"], low))
        if before { s.reconfigures(try Self.plan(["last", "cloud"], low)) }
        for n in 1...2 as ClosedRange<UInt16> { s.publishes("press", "t/1", "\(n)", id: n) }
        s.syncs()
        #expect(s.waiting("low", of: "cloud") == 1 && s.waiting("low", of: "last") == 1)
        s.reconfigures(
            try Self.plan(["cloud"]) {
                low(&$0)
                $0.reportByException = [try Self.rule(9)]
            })
        s.syncs()
        #expect(s.waiting("low", of: "cloud") == 2 && s.waiting("low", of: "last") == 2)
        #expect(s.waiting("low", of: "other") == (before ? 0 : 2))
        #expect(s.gateway.uplinkIndex(of: "cloud") == UplinkIndex(1) && s.balance.isEven)
    }

    @Test(
        "[MQTT5-3.1.2-8] so is the Will of a client that such a reload closes",
        arguments: [false, true])
    func willOfClosed(before: Bool) throws {
        let low = { (profile: inout DeviceProfile) in profile.uplink = UplinkChoice(priority: .low) }
        var s = Scenario(plan: try Self.plan(["other", "cloud", "last"], low))
        if before { s.reconfigures(try Self.plan(["last", "cloud"], low)) }
        s.connects("press/1", will: .text("w"))
        s.reconfigures(
            try Self.plan(["cloud"]) {
                low(&$0)
                $0.publish = TopicRights(allow: [try TopicTemplate("w"), try TopicTemplate("${clientid}")])
            })
        s.syncs()
        #expect(s.closedClients == ["press/1"])
        #expect(s.waiting("low", of: "cloud") == 1 && s.waiting("low", of: "last") == 1)
        #expect(s.waiting("low", of: "other") == (before ? 0 : 1) && s.balance.isEven)
    }

    @Test(
        "An uplink that comes, or comes back, is given the next value, however near it is; so are new routes")
    func uplinkAdded() throws {
        var id: UInt16 = 0
        func says(_ s: inout Scenario) {
            id += 1
            s.publishes("press", "t/1", "1", id: id)
            s.syncs()
        }
        var s = Scenario.connected("press", plan: try Self.plan())
        for _ in 1...2 { says(&s) }
        #expect(s.waiting("") == 1)
        s.reconfigures(try Self.plan(["cloud", "other"]))
        for _ in 1...2 { says(&s) }
        #expect(s.waiting("") == 2 && s.waiting("", of: "other") == 1)
        s.reconfigures(try Self.plan())
        says(&s)
        s.reconfigures(try Self.plan(["other", "cloud"]))
        for _ in 1...2 { says(&s) }
        #expect(s.waiting("", of: "other") == 2)
        let before = s.waiting("")
        var routed = try Self.plan(["other", "cloud"])
        routed.limits.retainedBytesMax = 77
        s.reconfigures(routed)
        says(&s)
        #expect(s.waiting("") == before)
        routed.uplinks[1].out = [LaneTests.route("t/#")]
        s.reconfigures(routed)
        for _ in 1...2 { says(&s) }
        #expect(s.waiting("") == before + 1 && s.balance.isEven)
    }

    // MARK: Deadlines

    @Test("A value that leaves the deadband and comes back again and again has one deadline")
    func oneDeadline() throws {
        var s = Scenario.connected("press", plan: try Self.plan())
        s.publishes("press", "t/1", "1", id: 1)
        let before = s.gateway.deadlines.count
        for n in 1...500 { s.sends("press", .publish(.text("t/1", n % 2 == 0 ? "1" : "\(n + 1)"))) }
        #expect(s.gateway.deadlines.count == before + 1)
        s.sends("press", .publish(.text("t/1", "7")))
        s.passes(milliseconds: 10_000)
        #expect(s.waiting("") == 1, "nobody is there to take it at QoS 0")
        #expect(s.gateway.deadlines.count <= before && s.gateway.heldBack.bytes == 0)
    }

    @Test("One that was set for a value that is gone is of use for the next, when that is due")
    func laterDeadline() throws {
        var s = Scenario.connected("press", plan: try Self.plan())
        func says(_ value: String, _ id: UInt16, _ s: inout Scenario) {
            s.publishes("press", "t/1", value, id: id)
            s.syncs()
        }
        says("1", 1, &s)
        s.passes(milliseconds: 5000)
        says("5", 2, &s)
        // No number goes up at once, and so does the next one: the interval begins anew.
        says("broken", 3, &s)
        says("5", 4, &s)
        says("9", 5, &s)
        #expect(s.waiting("") == 3)
        s.passes(milliseconds: 9999)
        #expect(s.waiting("") == 3)
        s.passes(milliseconds: 1)
        #expect(s.waiting("") == 4 && s.gateway.heldBack.bytes == 0 && s.balance.isEven)
    }

    @Test("Where too many deadlines are set values go up at once")
    func manyDeadlines() throws {
        var plan = try Self.plan()
        plan.limits.heldBackBytesMax = 1000
        var s = Scenario.connected("press", plan: plan)
        let before = s.gateway.deadlines.count
        for n in 1...50 {
            for value in ["1", "2", "1"] { s.sends("press", .publish(.text("t/\(n)", value))) }
        }
        #expect(s.gateway.heldBack.isEmpty && s.gateway.heldBack.bytes < 2000)
        #expect(s.gateway.deadlines.count < before + 10)
    }

    // MARK: Order

    @Test("A Will of its topic is the last word: what was held back does not follow it")
    func willOvertakes() throws {
        var s = Scenario(plan: try Self.plan())
        s.connects("press", will: .text("t/1", "gone"))
        for n in 1...2 as ClosedRange<UInt16> { s.publishes("press", "t/1", "\(n)", id: n) }
        s.vanishes("press")
        s.passes(milliseconds: 20_000)
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["1", "gone"])
        s.connects("press")
        s.publishes("press", "t/1", "1", id: 3)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["1"] && s.balance.isEven)
    }

    @Test(
        "So is what a client publishes that no rule is about, at whatever QoS, and then the next value is news",
        arguments: [QoS.atMostOnce, .atLeastOnce, .exactlyOnce])
    func otherOvertakes(qos: QoS) throws {
        var s = Scenario.connected("press", "oven", plan: try Self.plan())
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        for n in 1...2 as ClosedRange<UInt16> { s.publishes("press", "t/1", "\(n)", id: n) }
        // Another topic is no concern of it.
        for (n, topic) in ["t/2", "t/1"].enumerated() {
            let id = qos == .atMostOnce ? nil : PacketIdentifier(rawValue: UInt16(n + 1))
            s.sends("oven", .publish(.text(topic, "oven \(n)", qos: qos, id: id)))
            s.syncs()
            if n == 0 { #expect(!s.gateway.heldBack.isEmpty) }
        }
        s.passes(milliseconds: 20_000)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["1", "oven 0", "oven 1"])
        s.publishes("press", "t/1", "1", id: 3)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["1"] && s.balance.isEven)
    }

    @Test("What there was no room for overtakes nothing")
    func noRoom() throws {
        var plan = try Self.plan()
        plan.uplinks[0].out = [LaneTests.route("#", queue: QueueBounds(messagesMax: 1))]
        var s = Scenario.connected("press", "oven", plan: plan)
        for n in 1...2 as ClosedRange<UInt16> { s.publishes("press", "t/1", "\(n)", id: n) }
        s.publishes("oven", "t/1", "3", id: 1)
        s.syncs()
        #expect(s.received("oven") == [.puback(Acknowledgement(1, .quotaExceeded))])
        #expect(!s.gateway.heldBack.isEmpty)
    }

    @Test("A dead letter that is sent again is older than what is held back, and yet the next value is news")
    func replayed() throws {
        var s = Scenario.connected("press", plan: try Self.plan())
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        s.publishes("press", "t/1", "old", id: 1)
        s.syncs()
        let id = try #require(s.cloudReceived().publishes.first?.id)
        s.cloudSends(0, .puback(Acknowledgement(id, .quotaExceeded)))
        s.publishes("press", "t/1", "1", id: 2)
        s.syncs()
        #expect(s.replays() == 1)
        s.syncs()
        s.publishes("press", "t/1", "1", id: 3)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["1", "old", "1"])
    }

    @Test("Its time is that at which it came", arguments: [QoS.atMostOnce, .atLeastOnce])
    func receivedAt(qos: QoS) throws {
        var plan = try Self.plan()
        plan.uplinks[0].provenance = UplinkRoutes.Provenance(gateway: "plant-7")
        var s = Scenario.connected("press", plan: plan)
        s.handle(.wallClock(milliseconds: 1_767_225_600_000))
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        for n in 1...2 as ClosedRange<UInt16> {
            let id = qos == .atMostOnce ? nil : PacketIdentifier(rawValue: n)
            s.sends("press", .publish(.text("t/1", "\(n)", qos: qos, id: id)))
            s.passes(milliseconds: 1000)
        }
        s.passes(milliseconds: 20_000)
        s.syncs()
        let times = s.cloudReceived().publishes.map { publish in
            ForwardedProperties(publish.message.properties).userProperties.first {
                $0.name == "received-at"
            }?.value
        }
        #expect(times == ["2026-01-01T00:00:00.000Z", "2026-01-01T00:00:01.000Z"])
    }

    // MARK: Counting

    @Test(
        "It counts as kept from the uplinks when it is replaced, expires or is let go, and no count goes down"
    )
    func counts() throws {
        var s = Scenario.connected(
            "press", "oven",
            plan: try Self.plan())
        s.cloudConnects(sessionPresent: false)
        s.syncs()
        var id: UInt16 = 0
        func says(_ value: String, by client: String = "press", expiry: UInt32? = nil, _ s: inout Scenario)
            -> UInt64
        {
            id += 1
            var publish = Publish.text("t/1", value, qos: .atLeastOnce, id: PacketIdentifier(rawValue: id))
            publish.messageExpirySeconds = expiry
            s.sends(client, .publish(publish))
            s.syncs()
            return s.gateway.profileCounts[0].suppressed
        }
        #expect(says("1", &s) == 0)
        // Held back, replaced, and gone up.
        #expect(says("2", &s) == 0)
        #expect(says("3", &s) == 1)
        s.passes(milliseconds: 10_000)
        #expect(s.gateway.profileCounts[0].suppressed == 1 && s.gateway.profileCounts[0].suppressedBytes == 4)
        // Back in the deadband, which is no news either.
        #expect(says("5", &s) == 1)
        #expect(says("3", &s) == 3)
        // Expired.
        #expect(says("6", expiry: 2, &s) == 3)
        s.passes(milliseconds: 10_000)
        #expect(s.gateway.profileCounts[0].suppressed == 4)
        // Overtaken by what no rule is about.
        #expect(says("7", &s) == 4)
        #expect(says("8", &s) == 4)
        #expect(says("9", by: "oven", &s) == 5)
        s.passes(milliseconds: 20_000)
        s.syncs()
        #expect(s.gateway.profileCounts[0].suppressed == 5)
        #expect(s.cloudReceived().publishes.map(\.text) == ["1", "3", "7", "9"] && s.balance.isEven)
    }
}
