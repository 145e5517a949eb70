import GatewayCore
import MQTT
import Testing

/// A configuration that changes while everything goes on.
@Suite("Reconfiguring")
struct ReconfiguringTests {
    private static func controls(_ commands: [UplinkCommand]) -> [String] { commands.map { "\($0)" } }

    @Test("Routes change; what waits stays, and the connection too")
    func routes() {
        var s = LaneTests.established(LaneTests.plan([LaneTests.route("a/#")]), receiveMaximum: 1)
        for n in 1...3 as ClosedRange<UInt16> { s.publishes("press", "a/1", "\(n)", id: n) }
        s.syncs()
        s.reconfigures(LaneTests.plan([LaneTests.route("b/#", .high)]))
        s.syncs()
        s.publishes("press", "a/1", "no route", id: 4)
        s.publishes("press", "b/1", "4", id: 5)
        s.syncs()
        #expect(s.uplinkControls().isEmpty)
        var texts: [String] = []
        while let publish = s.cloudReceived().publishes.first {
            texts.append(publish.text)
            if let id = publish.id { s.cloudSends(0, .puback(Acknowledgement(id))) }
            s.syncs()
        }
        #expect(texts == ["1", "4", "2", "3"])
        #expect(s.balance.isEven)
    }

    @Test("Inbound routes change: the uplink subscribes anew")
    func inbound() {
        var s = LaneTests.established(LaneTests.plan([]))
        s.subscribes("press", "in/#")
        s.reconfigures(LaneTests.plan([], in: [LaneTests.route("in/#")]))
        #expect(Self.controls(s.uplinkControls()) == ["subscribe"])
        s.cloudSends(0, .publish(.text("in/x", qos: .atLeastOnce, id: 1)))
        #expect(s.drains("press").map(\.text) == ["x"])
    }

    @Test("An uplink that is removed keeps what waits, and has it sent when it is back")
    func removed() {
        let plan = LaneTests.plan([LaneTests.route("a/#"), LaneTests.route("b/#", .low)])
        var s = LaneTests.established(plan, receiveMaximum: 1)
        s.publishes("press", "a/1", "1", id: 1)
        s.publishes("press", "b/1", "2", id: 2)
        s.syncs()
        _ = s.cloudReceived()
        s.reconfigures(GatewayPlan())
        #expect(Self.controls(s.uplinkControls()) == ["close"])
        #expect(s.observations.contains(.uplinkRemoved(name: "cloud", waiting: 2)))
        #expect(s.gateway.uplinkIndex(of: "cloud") == nil)
        s.publishes("press", "a/1", "nobody's", id: 3)
        s.cloudConnects(sessionPresent: true)
        #expect(s.cloudReceived() == [])
        s.reconfigures(plan)
        #expect(Self.controls(s.uplinkControls()) == ["open(cleanStart: false)"])
        #expect(s.gateway.uplinkIndex(of: "cloud") == UplinkIndex(0))
        s.cloudConnects(sessionPresent: true)
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["1", "2"])
        #expect(s.balance.isEven)
    }

    @Test("Uplinks that come get places behind those that are there, whatever the order in the configuration")
    func added() {
        var s = LaneTests.established(LaneTests.plan([LaneTests.route("a/#")]))
        var plan = LaneTests.plan([LaneTests.route("a/#")])
        var other = UplinkRoutes(name: "other", out: [LaneTests.route("a/#")], in: [])
        plan.uplinks.insert(other, at: 0)
        s.reconfigures(plan)
        s.syncs()
        #expect(Self.controls(s.uplinkControls(1)) == ["open(cleanStart: true)"])
        #expect(Self.controls(s.uplinkControls(0)) == [])
        s.cloudConnects(1, sessionPresent: false)
        s.syncs()
        s.publishes("press", "a/1", "both", id: 1)
        s.syncs()
        #expect(s.cloudReceived(0).publishes.map(\.text) == ["both"])
        #expect(s.cloudReceived(1).publishes.map(\.text) == ["both"])
        other.name = "third"
        plan.uplinks = [other]
        s.reconfigures(plan)
        #expect(Self.controls(s.uplinkControls(2)) == ["open(cleanStart: true)"])
        #expect(s.gateway.uplinkIndex(of: "third") == UplinkIndex(2))
    }

    @Test("A drain that is configured paces from now on, and one that is removed no longer does")
    func drain() {
        var s = LaneTests.established(LaneTests.plan([LaneTests.route("a/#")]))
        s.reconfigures(LaneTests.plan([LaneTests.route("a/#")], drain: .init(messagesPerSecond: 1)))
        for n in 1...3 as ClosedRange<UInt16> { s.publishes("press", "a/1", "\(n)", id: n) }
        s.syncs()
        #expect(s.cloudReceived().publishes.map(\.text) == ["1"])
        s.reconfigures(LaneTests.plan([LaneTests.route("a/#")]))
        #expect(s.cloudReceived().publishes.map(\.text) == ["2", "3"])
    }

    @Test("[MQTT5-3.3.4-7] What a client was told in CONNACK holds for as long as it is connected")
    func announced() {
        var s = Scenario.connected("press")
        var plan = GatewayPlan()
        plan.limits.inFlightMax = 1
        plan.limits.topicAliasMax = 20
        s.reconfigures(plan)
        for n in 1...3 as ClosedRange<UInt16> { s.publishes("press", "t", "\(n)", qos: .exactlyOnce, id: n) }
        #expect(s.closedClients.isEmpty)
        var publish = Publish.text("t", qos: .atMostOnce)
        publish.topicAlias = 16
        s.sends("press", .publish(publish))
        #expect(s.closedClients.isEmpty)
        publish.topicAlias = 17
        s.sends("press", .publish(publish))
        #expect(s.received("press").contains(.disconnect(Disconnect(.topicAliasInvalid))))
    }

    @Test("Limits change for what comes next")
    func limits() {
        var s = Scenario.connected("archive", "press")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        var plan = GatewayPlan()
        plan.limits.queuedMessagesMax = 1
        s.reconfigures(plan)
        s.publishes("press", "t", "1", id: 1)
        s.syncs()
        s.publishes("press", "t", "2", id: 2)
        s.syncs()
        #expect(
            s.received("press") == [.puback(Acknowledgement(1)), .puback(Acknowledgement(2, .quotaExceeded))])
    }
}
