import GatewayCore
import MQTT
import Testing

/// Damage takes some messages, and must take nothing else.
@Suite("What lost Records leave behind")
struct LostRecordTests {
    @Test("More damaged messages in a row than one Record can settle stop nobody")
    func longRun() throws {
        var plan = GatewayPlan()
        plan.limits.identifierSpan = 4
        plan.limits.residentBytesOfAbsentMax = 0
        var s = Scenario.connected("press", "archive", plan: plan)
        s.subscribes("archive", "t", qos: .atLeastOnce)
        s.leaves("archive")
        for n in 0..<40 { s.publishes(n) }
        s.damaged = Set(s.positions(of: (1..<39).map(String.init)))
        s.losesPowerBehindACheckpoint()
        s.connects("archive")
        #expect(s.drains("archive").map(\.text) == ["0", "39"])
        s.passes(milliseconds: 2000)
        #expect(s.gateway.state.balance.queued == 0)
        #expect(s.gateway.state.balance.books.dropped(.damaged) == 38)
    }
}

extension Scenario {
    /// The message `n` from "press" to "t" at QoS 2, durable and released.
    fileprivate mutating func publishes(_ n: Int) {
        guard let id = PacketIdentifier(rawValue: UInt16(n + 1)) else {
            preconditionFailure("n + 1 is not zero")
        }
        sends("press", .publish(.text("t", "\(n)", qos: .exactlyOnce, id: id)))
        syncs()
        sends("press", .pubrel(Acknowledgement(id)))
        syncs()
    }

    /// So that no message is in memory afterwards.
    fileprivate mutating func losesPowerBehindACheckpoint() {
        checkpoints()
        losesPowerAndRecoversFromCheckpoint()
    }
}
