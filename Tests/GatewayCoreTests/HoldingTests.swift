import MQTT
import Testing

@testable import GatewayCore

/// What a publisher of before MQTT 5 sees of a queue or a disk without room: its PUBLISH waits, and nothing else.
/// MQTT 5 is told 0x97, which `FlowTests` shows.
@Suite("4.3, 4.6 A PUBLISH that waits for room")
struct HoldingTests {
    /// "loop" subscribes to what it publishes, and its queue takes no more than two messages.
    private static func loop(
        _ limits: (inout Limits) -> Void = { _ in }, qos: QoS = .atLeastOnce, keepAlive: UInt16 = 0,
        will: Will? = nil
    ) -> Scenario {
        var plan = GatewayPlan()
        plan.limits.queuedMessagesMax = 2
        limits(&plan.limits)
        var s = Scenario(plan: plan)
        s.connects("loop", version: .v3_1_1, keepAlive: keepAlive, will: will)
        s.subscribes("loop", "t", qos: qos)
        return s
    }

    private static func publish(_ n: UInt16, qos: QoS = .atLeastOnce, to s: inout Scenario) {
        s.sends("loop", .publish(.text("t", "\(n)", qos: qos, id: PacketIdentifier(rawValue: n))))
        s.syncs()
    }

    private static func dropped(_ s: borrowing Scenario) -> Int {
        s.observations.reduce(0) { sum, observation in
            if case .dropped(.client("loop"), .queueFull, let count) = observation {
                sum + count
            } else {
                sum
            }
        }
    }

    // MARK: A client in its own way

    @Test(
        "[MQTT311-4.6.0-6] Who waits for its own queue drains it, and all arrives and is acknowledged in order",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func ownQueue(qos: QoS) {
        var s = Self.loop(qos: qos)
        for n: UInt16 in 1...20 { Self.publish(n, qos: qos, to: &s) }
        #expect(s.pausedClients.isEmpty)
        var texts: [String] = []
        var answered: [UInt16] = []
        while true {
            s.syncs()
            let packets = s.received("loop")
            if packets.isEmpty { break }
            for packet in packets {
                switch packet {
                case .publish(let publish): texts.append(publish.text)
                case .puback(let answer): answered.append(answer.id.rawValue)
                case .pubrec(let answer):
                    answered.append(answer.id.rawValue)
                    s.sends("loop", .pubrel(Acknowledgement(answer.id)))
                default: break
                }
                if let answer = packet.subscribersAnswer { s.sends("loop", answer) }
            }
        }
        // No time has passed: room was used when it came.
        #expect(texts == (1...20).map { "\($0)" })
        #expect(answered == Array(1...20))
        #expect(s.gateway.heldBytes == 0)
    }

    @Test("[MQTT311-3.12.4-1] [MQTT311-3.8.4-1] PINGREQ and SUBSCRIBE are answered while a PUBLISH waits")
    func passing() {
        var s = Self.loop()
        for n: UInt16 in 1...3 { Self.publish(n, to: &s) }
        _ = s.received("loop")
        s.sends("loop", .pingreq)
        #expect(s.received("loop") == [.pingresp])
        s.sends("loop", .subscribe("other", qos: .atLeastOnce, id: 9))
        s.syncs()
        #expect(s.received("loop") == [.suback(Suback(id: 9, reasons: [.grantedQoS1]))])
    }

    @Test("[MQTT311-3.10.4-5] UNSUBSCRIBE is answered, and what then is owed to nobody waits no longer")
    func unsubscribing() {
        var s = Self.loop()
        for n: UInt16 in 1...3 { Self.publish(n, to: &s) }
        _ = s.received("loop")
        s.sends("loop", .unsubscribe("t", id: 9))
        s.syncs()
        #expect(
            s.received("loop") == [
                .unsuback(Unsuback(id: 9, reasons: [.success])), .puback(Acknowledgement(3)),
            ]
        )
    }

    @Test("[MQTT311-4.6.0-6] What is published behind a waiting PUBLISH waits too, although it had room")
    func order() {
        var s = Self.loop()
        s.connects("screen")
        s.subscribes("screen", "#")
        for n: UInt16 in 1...3 { Self.publish(n, to: &s) }
        s.sends("loop", .publish(.text("else", "4", qos: .atLeastOnce, id: 4)))
        s.sends("loop", .publish(.text("else", "5")))
        s.syncs()
        #expect(s.drains("screen").map(\.text) == ["1", "2"])
        _ = s.drains("loop")
        #expect(s.drains("screen").map(\.text) == ["3", "4", "5"])
    }

    // MARK: Endings

    @Test("[MQTT311-3.14.4-3] DISCONNECT is heeded at once: no Will, and what waited its client sends again")
    func disconnecting() {
        var s = Self.loop(will: .text("wills"))
        s.connects("screen")
        s.subscribes("screen", "#")
        for n: UInt16 in 1...3 { Self.publish(n, to: &s) }
        s.sends("loop", .publish(.text("t", "QoS 0")))
        s.leaves("loop")
        s.syncs()
        #expect(s.closedClients == ["loop"])
        #expect(s.drains("screen").map(\.text) == ["1", "2", "QoS 0"])
        #expect(s.gateway.heldBytes == 0)
        s.connects("loop", version: .v3_1_1)
        #expect(s.drains("loop").map(\.text) == ["1", "2"])
        s.sends("loop", .publish(.text("t", "3", qos: .atLeastOnce, id: 3, duplicate: true)))
        #expect(s.drains("loop").map(\.text) == ["3"])
    }

    @Test("Silence is silence: who says nothing while its PUBLISH waits is found gone by its Keep Alive")
    func halfOpen() {
        var s = Self.loop(keepAlive: 10)
        for n: UInt16 in 1...3 { Self.publish(n, to: &s) }
        s.passes(milliseconds: 14_000)
        s.sends("loop", .pingreq)
        s.passes(milliseconds: 14_999)
        #expect(s.closedClients.isEmpty)
        s.passes(milliseconds: 1)
        #expect(s.closedClients == ["loop"])
        #expect(s.gateway.heldBytes == 0)
    }

    // MARK: Bounds

    @Test("Who has more waiting than the bound is not read until half is taken, and has not been silent then")
    func notRead() {
        var s = Self.loop({ $0.heldPerConnectionMax = 4 }, keepAlive: 10)
        for n: UInt16 in 1...5 { Self.publish(n, to: &s) }
        #expect(s.pausedClients.isEmpty)
        Self.publish(6, to: &s)
        #expect(s.pausedClients == ["loop"])
        // An hour in which we did not listen.
        s.passes(milliseconds: 3_600_000)
        #expect(s.closedClients.isEmpty && s.pausedClients == ["loop"])
        let first = s.received("loop").publishes
        #expect(first.map(\.text) == ["1", "2"])
        // What was on its way when reading stopped.
        for case .some(let id) in first.map(\.id) { s.sends("loop", .puback(Acknowledgement(id))) }
        #expect(s.pausedClients.isEmpty)
        s.passes(milliseconds: 14_999)
        #expect(s.closedClients.isEmpty)
        s.passes(milliseconds: 1)
        #expect(s.closedClients == ["loop"])
    }

    @Test("The bytes that wait are bounded as well", arguments: [true, false])
    func bytes(ofAll: Bool) {
        var plan = GatewayPlan()
        if ofAll { plan.limits.heldBytesMax = 10_000 } else { plan.limits.heldBytesPerConnectionMax = 10_000 }
        var s = Scenario(plan: plan)
        let names = ["one", "two"]
        for name in names {
            s.connects(name, version: .v3_1_1)
            s.subscribes(name, "t")
        }
        s.handle(.storage(.pressure(true)))
        let text = String(repeating: "x", count: 6000)
        for name in names { s.sends(name, .publish(.text("t", text, qos: .atLeastOnce, id: 1))) }
        #expect(s.pausedClients == (ofAll ? ["two"] : []))
        for name in names { s.sends(name, .publish(.text("t", text, qos: .atLeastOnce, id: 2))) }
        #expect(s.pausedClients == ["one", "two"])
        s.vanishes("one")
        s.passes(milliseconds: 1000)
        #expect(s.pausedClients.contains("two"))
        s.handle(.storage(.pressure(false)))
        #expect(!s.pausedClients.contains("two"))
        #expect(s.gateway.heldBytes == 0)
        s.syncs()
        let answers = s.received("two").filter { if case .puback = $0 { true } else { false } }
        #expect(answers == [.puback(Acknowledgement(1)), .puback(Acknowledgement(2))])
    }

    @Test("QoS 0 behind a waiting PUBLISH is dropped beyond the bound, counted, and never stops the reading")
    func atMostOnce() {
        var s = Self.loop { $0.heldPerConnectionMax = 4 }
        for n: UInt16 in 1...3 { Self.publish(n, to: &s) }
        for n in 1...10 { s.sends("loop", .publish(.text("t", "QoS 0 \(n)"))) }
        #expect(s.pausedClients.isEmpty)
        #expect(Self.dropped(s) == 7)
        #expect(
            s.drains("loop").map(\.text) == ["1", "2", "3", "QoS 0 1", "QoS 0 2", "QoS 0 3"])
    }
}
