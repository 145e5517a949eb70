import MQTT
import Testing

@testable import GatewayCore

/// Devices that are silent for longer than is expected of them.
@Suite("Device profiles: liveness")
struct ProfileLivenessTests {
    private static func plan(_ topic: String = "state/${clientid}", seconds: UInt32 = 60) throws
        -> GatewayPlan
    {
        let topic = try TopicTemplate(topic, as: .name)
        return ProfileTermsTests.plan { $0.liveness = Liveness(silentSeconds: seconds, stateTopic: topic) }
    }

    private static func watched(_ plan: GatewayPlan) -> Scenario {
        var s = Scenario.connected("sub", plan: plan)
        s.subscribes("sub", "state/#", qos: .atLeastOnce)
        return s
    }

    private static func states(_ s: inout Scenario) -> [String] {
        s.drains("sub").map { "\($0.topic) \($0.text)" }
    }

    @Test("A device is said to be there when it connects, and not to be when it was silent for too long")
    func silence() throws {
        var s = Self.watched(try Self.plan())
        s.connects("press")
        #expect(Self.states(&s) == ["state/press online"])
        for _ in 0..<5 {
            s.passes(milliseconds: 40_000)
            s.sends("press", .pingreq)
        }
        #expect(Self.states(&s).isEmpty)
        s.passes(milliseconds: 59_999)
        #expect(Self.states(&s).isEmpty)
        s.passes(milliseconds: 1)
        #expect(Self.states(&s) == ["state/press offline"])
        s.passes(milliseconds: 600_000)
        #expect(Self.states(&s).isEmpty)
        s.sends("press", .publish(.text("t")))
        #expect(Self.states(&s) == ["state/press online"])
    }

    @Test("A device that comes and goes in time is there all the while")
    func comesAndGoes() throws {
        var s = Self.watched(try Self.plan())
        for _ in 0..<5 {
            s.connects("press", cleanStart: true, expiry: 0)
            s.leaves("press")
            s.passes(milliseconds: 59_000)
        }
        #expect(Self.states(&s) == ["state/press online"])
        s.passes(milliseconds: 1000)
        #expect(Self.states(&s) == ["state/press offline"])
    }

    @Test("[MQTT5-3.3.1-5] the state is retained, and a restart knows who was there")
    func restart() throws {
        var s = Self.watched(try Self.plan())
        for client in ["press1", "press2", "press3"] { s.connects(client, cleanStart: true, expiry: 0) }
        s.vanishes("press3")
        s.passes(milliseconds: 30_000)
        s.sends("press1", .pingreq)
        s.sends("press2", .pingreq)
        s.passes(milliseconds: 40_000)
        _ = Self.states(&s)
        s.passes(milliseconds: 2000)
        s.syncs()
        s.losesPower()
        s.connects("sub")
        s.passes(milliseconds: 30_000)
        s.connects("press1", cleanStart: true, expiry: 0)
        #expect(Self.states(&s).isEmpty)
        s.passes(milliseconds: 31_000)
        #expect(Self.states(&s) == ["state/press2 offline"])
        s.connects("late")
        s.subscribes("late", "state/#")
        #expect(s.texts("late") == ["online", "offline", "offline"])
    }

    @Test("Whom we do not read we cannot hear")
    func unread() throws {
        var plan = try Self.plan()
        plan.profiles[0].rate = PublishRate(bytesPerSecond: 1)
        var s = Self.watched(plan)
        s.connects("press")
        _ = Self.states(&s)
        s.sends("press", .publish(.text("t", String(repeating: "x", count: 1000))))
        s.passes(milliseconds: 900_000)
        #expect(s.pausedClients == ["press"])
        #expect(Self.states(&s).isEmpty)
    }

    @Test("A level of more than the name, and a topic of another's that looks alike")
    func partOfALevel() throws {
        var s = Self.watched(try Self.plan("state/p-${clientid}-x"))
        s.connects("press")
        #expect(Self.states(&s) == ["state/p-press-x online"])
        s.sends("sub", .publish(.text("state/other", "online", retain: true)))
        _ = Self.states(&s)
        s.passes(milliseconds: 2000)
        s.restarts(with: try Self.plan("state/p-${clientid}-x"))
        s.connects("sub")
        s.passes(milliseconds: 61_000)
        #expect(Self.states(&s) == ["state/p-press-x offline"])
    }

    @Test("With another configuration devices are watched as that says")
    func reconfigured() throws {
        var s = Self.watched(try Self.plan())
        s.connects("press")
        _ = Self.states(&s)
        s.passes(milliseconds: 50_000)
        s.reconfigures(try Self.plan(seconds: 20))
        s.passes(milliseconds: 19_999)
        #expect(Self.states(&s).isEmpty)
        s.passes(milliseconds: 1)
        #expect(Self.states(&s) == ["state/press offline"])
        s.reconfigures(GatewayPlan())
        s.sends("press", .pingreq)
        s.passes(milliseconds: 600_000)
        #expect(Self.states(&s).isEmpty && s.closedClients.isEmpty)
    }

    @Test("Beyond the bound nothing is told of a device")
    func many() throws {
        var plan = try Self.plan()
        plan.limits.watchesMax = 1
        var s = Self.watched(plan)
        s.connects("press1")
        s.connects("press2")
        #expect(Self.states(&s) == ["state/press1 online"])
    }

    @Test("Who is silent and away makes room for another, and is watched anew when it comes back")
    func manyOverTime() throws {
        var plan = try Self.plan()
        plan.limits.watchesMax = 1
        var s = Self.watched(plan)
        for leaves in [true, false] {
            for client in ["press1", "press2", "press1"] {
                s.connects(client, cleanStart: true, expiry: 0)
                if leaves { s.leaves(client) }
                s.passes(milliseconds: 60_000)
                if !leaves { s.vanishes(client) }
                #expect(Self.states(&s) == ["state/\(client) online", "state/\(client) offline"])
            }
        }
    }

    @Test("A connection that was taken over says nothing of the one that took it")
    func takenOver() throws {
        var s = Self.watched(try Self.plan())
        s.connects("press")
        s.passes(milliseconds: 60_000)
        let old = s.connection(of: "press")
        s.connects("press")
        s.handle(.closed(old))
        s.passes(milliseconds: 59_000)
        s.sends("press", .pingreq)
        s.passes(milliseconds: 59_000)
        #expect(Self.states(&s) == ["state/press online", "state/press offline", "state/press online"])
        s.passes(milliseconds: 1000)
        #expect(Self.states(&s) == ["state/press offline"])
    }

    @Test("Uplinks get it where a route carries it, and the books balance")
    func uplink() throws {
        var plan = try Self.plan()
        plan.uplinks = LaneTests.plan([LaneTests.route("state/#")]).uplinks
        var s = Scenario.connected("press", plan: plan)
        s.passes(milliseconds: 60_000)
        s.syncs()
        #expect(s.waiting("") == 2 && s.balance.isEven)
        #expect(s.replayed().balance == s.balance)
    }

    @Test("Devices that share a topic share the watch: it ends with the last of them, and then is another's")
    func shared() throws {
        for leavesFirst in ["press1", "press2"] {
            var s = Self.watched(try Self.plan("state/${username}"))
            func arrives(_ client: String, _ user: String, _ s: inout Scenario) {
                s.opens(
                    client, Connect(clientIdentifier: client, userName: user, sessionExpirySeconds: 600))
                s.syncs()
            }
            for client in ["press1", "press2"] { arrives(client, "line", &s) }
            s.passes(milliseconds: 60_000)
            #expect(Self.states(&s) == ["state/line online", "state/line offline"])
            s.vanishes(leavesFirst)
            arrives("press3", "other", &s)
            #expect(Self.states(&s) == ["state/other online"])
            // Of the one that is still here.
            let stays = leavesFirst == "press1" ? "press2" : "press1"
            s.sends(stays, .pingreq)
            #expect(Self.states(&s) == ["state/line online"])
            s.passes(milliseconds: 60_000)
            #expect(Self.states(&s).sorted() == ["state/line offline", "state/other offline"])
            s.vanishes(stays)
            // One place is free, not two.
            arrives("press4", "third", &s)
            arrives("press5", "fourth", &s)
            s.sends("press3", .pingreq)
            #expect(Self.states(&s) == ["state/third online", "state/fourth online", "state/other online"])
            s.passes(milliseconds: 59_000)
            s.sends("press4", .pingreq)
            s.passes(milliseconds: 1000)
            #expect(Self.states(&s).sorted() == ["state/fourth offline", "state/other offline"])
        }
    }
}
