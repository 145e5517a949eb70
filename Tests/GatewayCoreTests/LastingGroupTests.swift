import MQTT
import Testing

@testable import GatewayCore

/// A group of members whose Sessions end with their connections leaves no trace, until one joins whose does not.
@Suite("4.8.2 Shared Subscriptions that begin to last")
struct LastingGroupTests {
    @Test("When the first member with a trace joins, what waits and what comes is safe from power cuts")
    func becomesLasting() {
        var s = Scenario.connected("press")
        s.connects("a", cleanStart: true, expiry: 0, receiveMaximum: 2)
        s.subscribes("a", "$share/g/t/#", qos: .atLeastOnce)
        for n in 1...5 { s.publishes("\(n)", qos: .atLeastOnce) }
        #expect(s.texts("a") == ["1", "2"])
        s.opens(
            "b", Connect(version: .v5_0, clientIdentifier: "b", cleanStart: false, sessionExpirySeconds: 3600)
        )
        s.syncs()
        s.sends("b", .subscribe("$share/g/t/#", qos: .atLeastOnce))
        s.syncs()
        #expect(s.texts("b") == ["3", "4", "5"])
        s.vanishes("a")
        #expect(s.texts("b") == ["1", "2"])
        s.syncs()
        s.losesPower()
        s.connects("b")
        #expect(s.drains("b").map(\.text) == ["3", "4", "5", "1", "2"])
    }

    @Test(
        "Then what a member still holds that has unsubscribed comes back to the group when its Session ends")
    func becomesLastingAfterLeaving() {
        var s = Scenario.connected("press")
        s.connects("a", cleanStart: true, expiry: 0)
        s.connects("c", cleanStart: true, expiry: 0)
        s.subscribes("a", "$share/g/t/#", qos: .atLeastOnce)
        s.subscribes("c", "$share/g/t/#", qos: .atLeastOnce)
        s.publishes("1", qos: .atLeastOnce)
        s.publishes("2", qos: .atLeastOnce)
        #expect(s.texts("a") == ["1"])
        #expect(s.drains("c").map(\.text) == ["2"])
        s.sends("a", .unsubscribe("$share/g/t/#"))
        s.connects("b")
        s.subscribes("b", "$share/g/t/#", qos: .atLeastOnce)
        s.vanishes("a")
        #expect(s.drains("b").map(\.text) + s.drains("c").map(\.text) == ["1"])
        #expect(s.owedToGroup == 0)
    }

    @Test("Members that come, unsubscribe with messages in their hands and go leave nothing behind")
    func leavers() throws {
        var s = Scenario.connected("press")
        s.connects("full", cleanStart: true, expiry: 0, receiveMaximum: 1)
        s.subscribes("full", "$share/g/t/#", qos: .atLeastOnce)
        s.publishes("0", qos: .atLeastOnce)
        #expect(s.texts("full") == ["0"])
        for n in 1...300 {
            s.connects("m\(n)", cleanStart: true, expiry: 0, receiveMaximum: 1)
            s.subscribes("m\(n)", "$share/g/t/#", qos: .atLeastOnce)
            if n == 1 { s.publishes("1", qos: .atLeastOnce) }
            #expect(s.texts("m\(n)") == ["1"])
            s.sends("m\(n)", .unsubscribe("$share/g/t/#"))
            s.vanishes("m\(n)")
        }
        let filter = try #require(TopicFilter("$share/g/t/#"))
        let group = try #require(s.gateway.state.session(of: .group(filter)))
        let count = try #require(s.gateway.state[group]?.sharing?.leavers.count)
        #expect(count <= 65)
    }
}
