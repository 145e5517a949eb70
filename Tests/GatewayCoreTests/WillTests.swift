import GatewayCore
import MQTT
import Testing

@Suite("3.1.2.5 Will Messages")
struct WillTests {
    /// "watch" sees every Will; "press" has one.
    private static func armed(
        _ will: Will = .text("gone/press"), expiry: UInt32 = 3600, keepAlive: UInt16 = 0
    ) -> Scenario {
        var s = Scenario.connected("watch")
        s.subscribes("watch", "gone/#")
        s.connects("press", expiry: expiry, keepAlive: keepAlive, will: will)
        return s
    }

    @Test(
        "[MQTT5-3.1.2-8] [MQTT5-3.1.2-10] [MQTT311-3.1.2-8] The Will is published when the connection is lost, once"
    )
    func lost() {
        var s = Self.armed()
        s.vanishes("press")
        s.syncs()
        #expect(s.drains("watch").map(\.text) == ["gone"])
        s.passes(milliseconds: 1000)
        s.syncs()
        s.losesPower()
        s.connects("watch")
        s.passes(milliseconds: 60_000)
        #expect(s.drains("watch") == [])
    }

    @Test("[MQTT5-3.1.2-22] The Will is published on Keep Alive timeout")
    func keepAlive() {
        var s = Self.armed(keepAlive: 10)
        s.passes(milliseconds: 15_000)
        #expect(s.drains("watch").map(\.text) == ["gone"])
    }

    @Test("[MQTT5-3.1.4-3] The Will is published on take-over")
    func takeOver() {
        var s = Self.armed()
        s.opens("again", Connect(clientIdentifier: "press", cleanStart: false, sessionExpirySeconds: 60))
        #expect(s.drains("watch").map(\.text) == ["gone"])
    }

    @Test(
        "[MQTT5-3.14.4-3] [MQTT311-3.14.4-3] DISCONNECT deletes the Will, unless it says 0x04",
        arguments: [(ReasonCode.normalDisconnection, 0), (.disconnectWithWill, 1)])
    func disconnect(reason: ReasonCode, count: Int) {
        var s = Self.armed()
        s.leaves("press", Disconnect(reason))
        s.passes(milliseconds: 60_000)
        #expect(s.drains("watch").count == count)
    }

    @Test(
        "[MQTT5-3.1.3-9] A delayed Will is published after its delay, unless the client is back by then",
        arguments: [false, true])
    func delay(comesBack: Bool) {
        var s = Self.armed(.text("gone/press", delay: 30))
        s.vanishes("press")
        s.passes(milliseconds: 29_999)
        #expect(s.drains("watch") == [])
        if comesBack { s.connects("press", will: .text("gone/press", delay: 30)) }
        s.passes(milliseconds: 1)
        #expect(s.drains("watch").map(\.text) == (comesBack ? [] : ["gone"]))
    }

    @Test("[MQTT5-3.1.2-8] A delayed Will is published no later than the Session's end")
    func delayBeyondSession() {
        var s = Self.armed(.text("gone/press", delay: 30), expiry: 10)
        s.vanishes("press")
        s.passes(milliseconds: 10_000)
        #expect(s.drains("watch").map(\.text) == ["gone"])
    }

    @Test("[MQTT5-3.1.2-8] A Clean Start ends the Session, and so publishes a delayed Will")
    func cleanStart() {
        var s = Self.armed(.text("gone/press", delay: 30))
        s.vanishes("press")
        s.syncs()
        s.connects("press", cleanStart: true)
        #expect(s.drains("watch").map(\.text) == ["gone"])
    }

    @Test("Coming and going with a delayed Will leaves the delay whole each time")
    func delayStartsAnew() {
        var s = Self.armed(.text("gone/press", delay: 30))
        for _ in 0..<5 {
            s.vanishes("press")
            s.passes(milliseconds: 20_000)
            s.connects("press", will: .text("gone/press", delay: 30))
            s.passes(milliseconds: 5000)
        }
        s.vanishes("press")
        s.passes(milliseconds: 29_999)
        #expect(s.drains("watch") == [])
        s.passes(milliseconds: 1)
        #expect(s.drains("watch").count == 1)
    }

    @Test(
        "After a power cut a Will is owed by who does not come back", arguments: [UInt32(0), 3600],
        [false, true])
    func powerCut(expiry: UInt32, comesBack: Bool) {
        var s = Self.armed(expiry: expiry)
        s.losesPower()
        s.connects("watch")
        s.passes(milliseconds: 29_999)
        #expect(s.drains("watch") == [])
        if comesBack { s.connects("press", cleanStart: expiry == 0, expiry: expiry) }
        s.passes(milliseconds: 1)
        #expect(s.drains("watch").map(\.text) == (comesBack ? [] : ["gone"]))
    }

    @Test("A delay that began before the power cut goes on after it")
    func delayThroughPowerCut() {
        var s = Self.armed(.text("gone/press", delay: 40))
        s.vanishes("press")
        s.syncs()
        s.passes(milliseconds: 20_000)
        s.losesPowerAndRecoversFromCheckpoint()
        s.connects("watch")
        s.passes(milliseconds: 19_999)
        #expect(s.drains("watch") == [])
        s.passes(milliseconds: 1)
        #expect(s.drains("watch").map(\.text) == ["gone"])
    }

    @Test("[MQTT5-3.1.2-15] [MQTT5-3.1.2-14] A Will is retained when it says so", arguments: [false, true])
    func retained(retain: Bool) {
        var s = Self.armed(.text("gone/press", retain: retain))
        s.vanishes("press")
        s.syncs()
        s.connects("late")
        s.sends("late", .subscribe("gone/#"))
        #expect(s.drains("late").map(\.text) == (retain ? ["gone"] : []))
    }
}
