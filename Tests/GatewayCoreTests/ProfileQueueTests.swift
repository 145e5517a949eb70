import MQTT
import Testing

@testable import GatewayCore

/// What may wait for a class of device.
@Suite("Device profiles: queues")
struct ProfileQueueTests {
    private static func plan(_ bounds: QueueBounds?) -> GatewayPlan {
        ProfileTermsTests.plan { $0.queue = bounds }
    }

    /// A device that subscribes and goes away, and a publisher without bounds.
    private static func away(_ bounds: QueueBounds?, _ version: ProtocolVersion) -> Scenario {
        var s = Scenario.connected("pub", plan: plan(bounds))
        s.connects("press", version: version)
        s.subscribes("press", "t", qos: .exactlyOnce)
        s.vanishes("press")
        s.syncs()
        return s
    }

    private static func publish(
        _ s: inout Scenario, _ range: ClosedRange<UInt16>, qos: QoS = .atLeastOnce, bytes: Int = 0
    ) {
        for n in range {
            let text = "\(n) " + String(repeating: ".", count: bytes)
            guard let id = PacketIdentifier(rawValue: n) else { continue }
            s.sends("pub", .publish(.text("t", text, qos: qos, id: id)))
            s.syncs()
            if qos == .exactlyOnce {
                s.sends("pub", .pubrel(Acknowledgement(id)))
                s.syncs()
            }
        }
    }

    private static func numbers(_ publishes: [Publish]) -> [Int] {
        publishes.compactMap { Int($0.text.prefix { $0 != " " }) }
    }

    static let cases: [(QueueBounds.WhenFull, ProtocolVersion, QoS)] = QueueBounds.WhenFull.allCases.flatMap {
        policy in
        [ProtocolVersion.v5_0, .v3_1_1].flatMap { version in
            [QoS.atLeastOnce, .exactlyOnce].map { (policy, version, $0) }
        }
    }

    @Test(
        "P3: each overflow policy keeps what it says, and the books balance, also after a power cut",
        arguments: cases)
    func policies(policy: QueueBounds.WhenFull, version: ProtocolVersion, qos: QoS) {
        var s = Self.away(QueueBounds(messagesMax: 3, whenFull: policy), version)
        Self.publish(&s, 1...5, qos: qos)
        #expect(s.balance.isEven && s.balance.queued == 3)
        s.losesPower()
        s.connects("pub")
        Self.publish(&s, 6...6, qos: qos)
        #expect(s.balance.isEven && s.balance.queued == 3)
        #expect(s.balance.books.dropped(.queueFull) == (policy == .refuse ? 0 : 3))
        s.connects("press", version: version)
        let expected = policy == .dropOldest ? [4, 5, 6] : [1, 2, 3]
        #expect(Self.numbers(s.drains("press")) == expected)
        s.passes(milliseconds: 2000)
        s.syncs()
        #expect(s.balance.isEven && s.balance.queued == 0)
        #expect(s.replayed().balance == s.balance)
    }

    @Test(
        "P4: refusing, MQTT 5 publishers are told 0x97 and older ones wait",
        arguments: [ProtocolVersion.v5_0, .v3_1_1])
    func refused(version: ProtocolVersion) {
        var s = Self.away(QueueBounds(messagesMax: 1), .v3_1_1)
        s.connects("pub", version: version)
        Self.publish(&s, 1...2)
        let answers = s.received("pub")
        if version == .v5_0 {
            #expect(answers == [.puback(Acknowledgement(1)), .puback(Acknowledgement(2, .quotaExceeded))])
        } else {
            #expect(answers == [.puback(Acknowledgement(1))])
        }
        s.connects("press", version: .v3_1_1)
        _ = s.drains("press")
        s.passes(milliseconds: 2000)
        #expect(Self.numbers(s.drains("press")) == (version == .v5_0 ? [] : [2]))
        #expect(s.received("pub") == (version == .v5_0 ? [] : [.puback(Acknowledgement(2))]))
    }

    @Test("Bytes are bounded too", arguments: [ProtocolVersion.v5_0, .v3_1_1])
    func bytes(version: ProtocolVersion) {
        var s = Self.away(QueueBounds(bytesMax: 500, whenFull: .dropOldest), version)
        Self.publish(&s, 1...9, bytes: 100)
        s.connects("press", version: version)
        #expect(Self.numbers(s.drains("press")) == [6, 7, 8, 9])
        #expect(s.balance.isEven && s.balance.books.dropped(.queueFull) == 5)
    }

    @Test("The bounds of a device that is away hold after a restart, from the log and from a checkpoint")
    func durable() {
        for fromCheckpoint in [false, true] {
            var s = Self.away(QueueBounds(messagesMax: 2, whenFull: .dropOldest), .v5_0)
            if fromCheckpoint {
                s.losesPowerAndRecoversFromCheckpoint()
            } else {
                s.losesPower()
            }
            s.connects("pub")
            Self.publish(&s, 1...5)
            #expect(s.balance.queued == 2)
        }
    }

    @Test(
        "A restart with other bounds binds those who are away by the name of their profile, or as the default"
    )
    func otherPlan() {
        var s = Self.away(QueueBounds(messagesMax: 1, whenFull: .dropNewest), .v5_0)
        s.restarts(with: Self.plan(QueueBounds(messagesMax: 3, whenFull: .dropNewest)))
        s.connects("pub")
        Self.publish(&s, 1...5)
        #expect(s.balance.queued == 3)
        var plan = GatewayPlan()
        var standard = DeviceProfile(name: "rest")
        standard.queue = QueueBounds(messagesMax: 4, whenFull: .dropNewest)
        plan.profiles = [standard]
        s.restarts(with: plan)
        s.connects("pub")
        Self.publish(&s, 6...9)
        #expect(s.balance.queued == 4)
        s.restarts(with: GatewayPlan())
        s.connects("pub")
        Self.publish(&s, 1...5)
        #expect(s.balance.queued == 9 && s.balance.isEven)
    }

    @Test("Another configuration binds who is here and who is away, and drops no Session")
    func reconfigured() {
        var s = Self.away(nil, .v5_0)
        s.connects("press2")
        s.subscribes("press2", "t", qos: .atLeastOnce)
        s.sends("press2", .disconnect(Disconnect(.normalDisconnection, sessionExpirySeconds: 9999)))
        s.reconfigures(Self.plan(QueueBounds(messagesMax: 2, whenFull: .dropNewest)))
        Self.publish(&s, 1...5)
        #expect(s.balance.queued == 4 && s.balance.isEven)
        s.reconfigures(GatewayPlan())
        Self.publish(&s, 6...6)
        #expect(s.balance.queued == 6)
        s.connects("press")
        #expect(Self.numbers(s.drains("press")) == [1, 2, 6])
    }

    @Test("Nobody is refused for a client that keeps nothing: it misses what is too much, counted")
    func volatile() {
        var s = Scenario.connected("pub", plan: Self.plan(QueueBounds(messagesMax: 2)))
        s.connects("press", cleanStart: true, expiry: 0, receiveMaximum: 1)
        s.subscribes("press", "t", qos: .atLeastOnce)
        Self.publish(&s, 1...5)
        #expect(s.received("pub").count == 5)
        #expect(!s.received("pub").contains(.puback(Acknowledgement(5, .quotaExceeded))))
        #expect(Self.numbers(s.drains("press")) == [1, 2])
        #expect(
            s.observations.reduce(0) {
                if case .dropped(.client("press"), .queueFull, let count) = $1 { $0 + count } else { $0 }
            } == 3)
    }

    @Test(
        "Nothing is written of profiles where there are none, and one Record for each Session where there are"
    )
    func records() {
        func profiled(_ s: borrowing Scenario) -> [String] {
            s.journal.compactMap { if case .profiled(_, let name) = $0 { name } else { nil } }
        }
        var plain = Scenario.connected("press")
        plain.vanishes("press")
        plain.connects("press")
        #expect(profiled(plain).isEmpty)
        var s = Scenario.connected("press", "oven", plan: Self.plan(nil))
        s.vanishes("press")
        s.connects("press")
        #expect(profiled(s) == ["press", "default"])
        s.reconfigures(GatewayPlan())
        #expect(profiled(s) == ["press", "default", "", ""])
    }
}
