import MQTT
import Testing

@testable import GatewayCore

/// What is told of a place without room.
@Suite("P4: what is full is named")
struct FillingTests {
    /// "archive" is away, with a queue that takes ten messages.
    private static func scenario() -> Scenario {
        var plan = GatewayPlan()
        plan.limits.queuedMessagesMax = 10
        plan.limits.retainedBytesMax = 100
        var s = Scenario(plan: plan)
        s.connects("archive")
        s.subscribes("archive", "t")
        s.leaves("archive")
        s.connects("new")
        s.connects("old", version: .v3_1_1)
        return s
    }

    private static let queue = Store.queue(.client(identifier: "archive"), messagesMax: 10)

    private static func told(_ s: borrowing Scenario) -> [Observation] {
        s.observations.filter {
            switch $0 {
            case .full, .drained: true
            default: false
            }
        }
    }

    private static func publish(
        _ numbers: ClosedRange<UInt16>, by client: String = "new", to topic: String = "t", _ s: inout Scenario
    ) {
        for n in numbers {
            s.sends(client, .publish(.text(topic, qos: .atLeastOnce, id: PacketIdentifier(rawValue: n))))
            s.syncs()
        }
    }

    @Test("A full queue is told once, with whose it is and its limit, however many are refused and held")
    func once() {
        var s = Self.scenario()
        Self.publish(1...10, &s)
        #expect(Self.told(s) == [])
        Self.publish(11...20, &s)
        Self.publish(1...5, by: "old", &s)
        s.passes(milliseconds: 60_000)
        Self.publish(21...30, &s)
        #expect(Self.told(s) == [.full(Self.queue)])
    }

    @Test("Once it has drained that is told too, and not before; then the next time counts anew")
    func drains() {
        var s = Self.scenario()
        Self.publish(1...11, &s)
        s.passes(milliseconds: 20_000)
        #expect(Self.told(s) == [.full(Self.queue)])
        s.connects("archive")
        _ = s.drains("archive")
        #expect(Self.told(s) == [.full(Self.queue)], "it may be full again in a moment")
        s.passes(milliseconds: 10_000)
        #expect(Self.told(s) == [.full(Self.queue), .drained(Self.queue)])
        s.leaves("archive")
        Self.publish(21...40, &s)
        #expect(Self.told(s) == [.full(Self.queue), .drained(Self.queue), .full(Self.queue)])
        s.passes(milliseconds: 10_000)
    }

    @Test("Of a queue whose Session has ended nothing more is told, and the others go on")
    func ends() {
        var s = Self.scenario()
        Self.publish(1...11, &s)
        s.connects("archive", cleanStart: true)
        s.passes(milliseconds: 20_000)
        #expect(Self.told(s) == [.full(Self.queue)])
        #expect(s.gateway.fullStores.isEmpty && !s.gateway.fullStores.isCheckScheduled)
    }

    @Test("Retained messages without room are told in the same way")
    func retained() {
        var s = Self.scenario()
        func retain(_ topic: String, _ text: String, id: UInt16) {
            var publish = Publish.text(topic, text, qos: .atLeastOnce, id: PacketIdentifier(rawValue: id))
            publish.retain = true
            s.sends("new", .publish(publish))
            s.syncs()
        }
        retain("r/1", String(repeating: "x", count: 90), id: 1)
        retain("r/2", String(repeating: "x", count: 90), id: 2)
        retain("r/3", String(repeating: "x", count: 90), id: 3)
        #expect(Self.told(s) == [.full(.retained(bytesMax: 100))])
        retain("r/1", "", id: 4)
        s.passes(milliseconds: 10_000)
        #expect(Self.told(s) == [.full(.retained(bytesMax: 100)), .drained(.retained(bytesMax: 100))])
    }
}
