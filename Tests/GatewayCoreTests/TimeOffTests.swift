import GatewayCore
import MQTT
import Testing

/// Deadlines over a time in which the gateway was off. What of the wall clock is believed is tested with the journal's
/// `WallWitness`.
@Suite("3.1.2.11.2, 3.1.3.2.2 and 3.3.2.3.3: intervals that pass while the gateway is off")
struct TimeOffTests {
    private static let day: UInt64 = 86_400_000

    /// "press" publishes to the absent "archive", which has until `expiry`.
    private static func waiting(expiry: UInt32 = 3600, messageExpiry: UInt32 = 100) -> Scenario {
        var s = Scenario.connected("press")
        s.connects("archive", expiry: expiry)
        s.subscribes("archive", "t/#", qos: .atLeastOnce)
        s.vanishes("archive")
        publish(&s, "old", expiry: messageExpiry)
        return s
    }

    private static func publish(
        _ s: inout Scenario, _ text: String, topic: String = "t/1", expiry: UInt32, retain: Bool = false
    ) {
        var publish = Publish.text(topic, text, qos: .atLeastOnce, id: 1, retain: retain)
        publish.messageExpirySeconds = expiry
        s.sends("press", .publish(publish))
        s.syncs()
        _ = s.received("press")
    }

    private static func restart(_ s: inout Scenario, fromCheckpoint: Bool) {
        if fromCheckpoint { s.losesPowerAndRecoversFromCheckpoint() } else { s.losesPower() }
    }

    /// What a checkpoint of the live state holds, and what one of the replayed state would.
    private static func expectReplayEqualsLive(
        _ s: borrowing Scenario, at location: SourceLocation = #_sourceLocation
    ) {
        var live: [Record] = []
        s.gateway.state.snapshot { live.append($0) }
        var replayed: [Record] = []
        s.replayed().snapshot { replayed.append($0) }
        #expect(live == replayed, sourceLocation: location)
    }

    // MARK: The machine stayed up

    @Test(
        "[MQTT5-3.3.2-6] A message's interval is less the time off that the uptime counted, and the message gone after it",
        arguments: [(UInt64(30_000), UInt32?.some(60)), (89_000, 1), (90_000, nil), (500_000, nil)])
    func messageOverCountedTime(off: UInt64, left: UInt32?) {
        var s = Self.waiting()
        s.passes(milliseconds: 10_000)
        s.isKilled(offFor: off)
        s.connects("archive")
        #expect(s.drains("archive").map(\.messageExpirySeconds) == (left.map { [$0] } ?? []))
        #expect(
            s.observations.contains(
                .dropped(owner: .client(identifier: "archive"), .messageExpired, count: 1)) == (left == nil))
    }

    @Test(
        "A Session whose interval passed while the gateway was off ends, but not before its client had time to return",
        arguments: [false, true])
    func sessionOverCountedTime(comesBack: Bool) {
        var s = Self.waiting(expiry: 60)
        s.isKilled(offFor: 100_000)
        s.passes(milliseconds: 29_999)
        if comesBack {
            s.opens(
                "archive", Connect(clientIdentifier: "archive", cleanStart: false, sessionExpirySeconds: 60))
            s.syncs()
            #expect(s.received("archive").connack?.sessionPresent == true)
        }
        s.passes(milliseconds: 1)
        s.syncs()
        #expect((s.gateway.state.session(of: .client(identifier: "archive")) == nil) == !comesBack)
    }

    @Test(
        "[MQTT5-3.1.3-9] A Will Delay goes on while the gateway is off", arguments: [UInt64(20_000), 200_000])
    func willOverCountedTime(off: UInt64) {
        var s = Scenario.connected("watch")
        s.subscribes("watch", "gone/#")
        s.connects("press", will: .text("gone/press", delay: 100))
        s.vanishes("press")
        s.syncs()
        s.isKilled(offFor: off)
        s.connects("watch")
        let wait: UInt64 = off == 20_000 ? 79_999 : 30_000
        s.passes(milliseconds: wait - 1)
        #expect(s.drains("watch") == [])
        s.passes(milliseconds: 1)
        #expect(s.drains("watch").map(\.text) == ["gone"])
    }

    @Test("Who was connected when the process died counts as gone since then")
    func connectedOverCountedTime() {
        var s = Scenario.connected("press")
        s.connects("archive", expiry: 60)
        s.subscribes("archive", "t")
        s.isKilled(offFor: 50_000)
        s.passes(milliseconds: 30_000)
        s.syncs()
        #expect(s.gateway.state.session(of: .client(identifier: "archive")) == nil)
        #expect(s.gateway.state.session(of: .client(identifier: "press")) != nil)
        Self.expectReplayEqualsLive(s)
    }

    // MARK: The machine was off

    @Test("Until it is proven nothing expires because the gateway was off")
    func unproven() {
        var s = Self.waiting(expiry: 120)
        s.losesPower()
        s.passes(milliseconds: 99_000)
        s.connects("archive")
        #expect(s.drains("archive").map(\.messageExpirySeconds) == [1])
    }

    @Test(
        "Proven later, it counts for what was there before the start and for nothing that came since",
        arguments: [false, true])
    func messageOverProvenTime(fromCheckpoint: Bool) {
        var s = Self.waiting(expiry: .max)
        Self.publish(&s, "older", expiry: 4000)
        Self.restart(&s, fromCheckpoint: fromCheckpoint)
        s.connects("press")
        Self.publish(&s, "new", expiry: 100)
        s.passes(milliseconds: 60_000)
        s.learns(offFor: 3_600_000)
        #expect(s.observations.last == .wasOff(milliseconds: 3_600_000))
        s.syncs()
        Self.expectReplayEqualsLive(s)
        s.connects("archive")
        let left = s.drains("archive")
        #expect(left.map(\.text) == ["older", "new"])
        #expect(left.map(\.messageExpirySeconds) == [340, 40])
    }

    @Test("Proven once, it counts for ever: through power cuts and checkpoints", arguments: [false, true])
    func provenIsKept(fromCheckpoint: Bool) {
        var s = Self.waiting(expiry: .max, messageExpiry: 4000)
        s.losesPower()
        s.connects("press")
        Self.publish(&s, "new", expiry: 4000)
        s.passes(milliseconds: 1000)
        s.learns(offFor: 1_000_000)
        s.syncs()
        Self.restart(&s, fromCheckpoint: fromCheckpoint)
        s.passes(milliseconds: 1000)
        s.learns(offFor: 500_000)
        s.syncs()
        Self.restart(&s, fromCheckpoint: fromCheckpoint)
        s.connects("archive")
        #expect(s.drains("archive").map(\.messageExpirySeconds) == [2498, 3498])
    }

    @Test("A power cut before the proof is durable takes it back whole; proven again, it counts once")
    func powerCutBeforeProofIsDurable() {
        var s = Self.waiting(expiry: .max, messageExpiry: 4000)
        s.losesPower()
        s.learns(offFor: 1_000_000)
        s.losesPower()
        #expect(s.replayed().offMilliseconds(since: Instant(milliseconds: 0)) == 0)
        s.learns(offFor: 1_000_000)
        s.syncs()
        s.losesPower()
        s.connects("archive")
        #expect(s.drains("archive").map(\.messageExpirySeconds) == [3000])
    }

    @Test("A Session's end that follows from a proof is never durable without it", arguments: 0...3)
    func powerCutBetweenProofAndEnd(lucky: Int) {
        var s = Self.waiting(expiry: 60)
        s.losesPower()
        s.passes(milliseconds: 31_000)
        s.syncs()
        s.learns(offFor: Self.day)
        s.passes(milliseconds: 1)
        s.losesPower(keeping: lucky)
        let hasEnded = s.gateway.state.session(of: .client(identifier: "archive")) == nil
        let isProven = s.gateway.state.offMilliseconds(since: Instant(milliseconds: 0)) == Self.day
        #expect(!hasEnded || isProven)
        #expect(lucky > 0 || !isProven)
        Self.expectReplayEqualsLive(s)
    }

    @Test("Sessions from before end, those since the start and those that are connected stay")
    func sessionsOverProvenTime() {
        var s = Self.waiting(expiry: 600)
        s.connects("connected", expiry: 600, keepAlive: 60)
        s.losesPower()
        s.connects("connected", expiry: 600, keepAlive: 60)
        s.connects("since", expiry: 600)
        s.passes(milliseconds: 1000)
        s.vanishes("since")
        s.passes(milliseconds: 44_000)
        s.learns(offFor: Self.day)
        s.passes(milliseconds: 10_000)
        s.syncs()
        // 55 seconds after its CONNECT a Keep Alive of 60 has not passed, whatever the wall clock says.
        #expect(s.closedClients == [])
        let owners = ["archive", "press", "connected", "since"]
        #expect(
            owners.map { s.gateway.state.session(of: .client(identifier: $0)) != nil }
                == [false, false, true, true])
        s.passes(milliseconds: 540_000)
        #expect(s.gateway.state.session(of: .client(identifier: "since")) != nil)
        s.passes(milliseconds: 11_000)
        #expect(s.gateway.state.session(of: .client(identifier: "since")) == nil)
        Self.expectReplayEqualsLive(s)
    }

    @Test("A client that is connecting when the time off is proven has its whole time to do so")
    func connectTimeout() {
        var s = Self.waiting()
        s.losesPower()
        s.handle(.opened(ConnectionID(77), listener: 0))
        s.passes(milliseconds: 5000)
        s.learns(offFor: Self.day)
        s.passes(milliseconds: 4999)
        #expect(s.closed == [])
        s.passes(milliseconds: 1)
        #expect(s.closed == [ConnectionID(77)])
    }

    @Test("[MQTT5-3.1.3-9] A Will from before the start is due by it, one since the start is not")
    func willsOverProvenTime() {
        var s = Scenario.connected("watch")
        s.subscribes("watch", "gone/#")
        s.connects("press", expiry: .max, will: .text("gone/press", "press", delay: 1000))
        s.connects("pump", expiry: .max, will: .text("gone/pump", "pump", delay: 1000))
        s.vanishes("press")
        s.syncs()
        s.losesPower()
        s.connects("watch")
        s.connects("pump", expiry: .max, will: .text("gone/pump", "pump", delay: 1000))
        s.passes(milliseconds: 1000)
        s.vanishes("pump")
        s.passes(milliseconds: 60_000)
        #expect(s.drains("watch") == [])
        s.learns(offFor: Self.day)
        s.passes(milliseconds: 1)
        #expect(s.drains("watch").map(\.text) == ["press"])
        s.passes(milliseconds: 939_998)
        #expect(s.drains("watch") == [])
        s.passes(milliseconds: 1)
        #expect(s.drains("watch").map(\.text) == ["pump"])
    }

    @Test(
        "A retained message from before the start expires by it, one since the start does not",
        arguments: [false, true])
    func retainedOverProvenTime(fromCheckpoint: Bool) {
        var s = Scenario.connected("press")
        Self.publish(&s, "old", topic: "r/old", expiry: 1000, retain: true)
        Self.publish(&s, "older", topic: "r/older", expiry: 4000, retain: true)
        s.losesPower()
        s.connects("press")
        Self.publish(&s, "new", topic: "r/new", expiry: 1000, retain: true)
        s.passes(milliseconds: 1000)
        s.learns(offFor: 3_600_000)
        s.syncs()
        Self.restart(&s, fromCheckpoint: fromCheckpoint)
        s.connects("late")
        s.sends("late", .subscribe("r/#"))
        let got = s.drains("late")
        #expect(Set(got.map { "\($0.text) \($0.messageExpirySeconds ?? 0)" }) == ["older 399", "new 999"])
        s.passes(milliseconds: 30_000)
        s.syncs()
        var kept: Set<String> = []
        s.gateway.state.snapshot {
            if case .retained(let record) = $0 {
                kept.insert(String(decoding: record.message.payload, as: UTF8.self))
            }
        }
        #expect(kept == ["older", "new"])
        Self.expectReplayEqualsLive(s)
    }

    @Test("[MQTT5-4.3.3-7] A QoS 2 message that was sent does not expire by it")
    func sentDoesNotExpire() {
        var s = Scenario.connected("press", "archive")
        s.subscribes("archive", "t")
        var publish = Publish.text("t", qos: .exactlyOnce, id: 1)
        publish.messageExpirySeconds = 10
        s.sends("press", .publish(publish))
        s.syncs()
        #expect(s.received("archive").publishes.count == 1)
        s.isKilled(offFor: 60_000)
        s.connects("archive")
        #expect(s.received("archive").publishes.map(\.duplicate) == [true])
    }

    @Test("A message that waits in a shared subscription expires by it too")
    func shared() {
        var s = Scenario.connected("press")
        s.connects("worker", expiry: .max)
        s.subscribes("worker", "$share/g/t/#", qos: .atLeastOnce)
        s.vanishes("worker")
        Self.publish(&s, "old", expiry: 100)
        s.losesPower()
        s.connects("press")
        Self.publish(&s, "new", expiry: 100)
        s.learns(offFor: 200_000)
        s.syncs()
        s.connects("worker", expiry: .max)
        #expect(s.drains("worker").map(\.text) == ["new"])
    }

    @Test("The clock is worth writing down while there is something that it may end")
    func countsTime() {
        var s = Scenario()
        #expect(!s.gateway.state.countsTime)
        s.connects("press", expiry: 60)
        #expect(!s.gateway.state.countsTime, "who is connected has no deadline in the journal")
        s.vanishes("press")
        #expect(s.gateway.state.countsTime)
        s.connects("press", expiry: .max)
        s.vanishes("press")
        #expect(!s.gateway.state.countsTime)
        s.connects("press", will: .text("gone"))
        #expect(s.gateway.state.countsTime)
        var waiting = Self.waiting(expiry: .max)
        waiting.passes(milliseconds: 1)
        #expect(waiting.gateway.state.countsTime)
    }

    // MARK: Many

    @Test("Sessions that are overdue end a few at a time")
    func slices() {
        var plan = GatewayPlan()
        plan.limits.overdueAtOnceMax = 10
        var s = Scenario(plan: plan)
        for n in 0..<25 {
            s.connects("c\(n)", expiry: 10)
            s.vanishes("c\(n)")
        }
        s.syncs()
        s.isKilled(offFor: 60_000)
        s.passes(milliseconds: 29_999)
        var counts = [s.gateway.state.sessionCount]
        s.passes(milliseconds: 1)
        counts.append(s.gateway.state.sessionCount)
        s.passes(milliseconds: 10)
        counts.append(s.gateway.state.sessionCount)
        s.passes(milliseconds: 10)
        counts.append(s.gateway.state.sessionCount)
        #expect(counts == [25, 15, 5, 0])
    }

    @Test("However often it was off, the list stays short, and nothing counts for what came later")
    func manyTimes() {
        var state = DurableState()
        for n in 1...200 {
            let off = OffTime(
                after: Position(UInt64(n * 10)), since: Instant(milliseconds: UInt64(n * 1000)),
                milliseconds: 1)
            state.apply(.wasOff(off), at: Position(UInt64(n * 10 + 5)))
        }
        var count = 0
        state.snapshot { if case .wasOff = $0 { count += 1 } }
        #expect(count == 64)
        #expect(state.offMilliseconds(since: Instant(milliseconds: 0)) == 200)
        for n in 1...200 {
            #expect(
                state.offMilliseconds(since: Instant(milliseconds: UInt64(n * 1000 + 1))) <= UInt64(200 - n))
        }
        #expect(state.offMilliseconds(since: Instant(milliseconds: 190_000)) == 11)
    }
}
