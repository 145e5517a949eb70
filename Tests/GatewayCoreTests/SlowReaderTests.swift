import MQTT
import Testing

@testable import GatewayCore

/// A subscriber that stops reading costs a bounded amount of memory, whatever is published to it, and what is let
/// go for it is counted. That its connection is cut after a while, and how many bytes may wait in it, is the
/// transport's part.
@Suite("4.9 A client that does not read")
struct SlowReaderTests {
    private static let payload = String(repeating: "x", count: 10_000)

    private static func scenario(expiry: UInt32) -> Scenario {
        var plan = GatewayPlan()
        plan.systemTopicsMilliseconds = 10_000
        var s = Scenario.connected("press", plan: plan)
        s.connects("slow", expiry: expiry)
        s.subscribes("slow", "t")
        s.handle(.writability(s.connection(of: "slow"), false))
        return s
    }

    private static func publish(_ count: Int, qos: QoS, to s: inout Scenario) {
        for n in 1...count {
            let id = qos == .atMostOnce ? nil : PacketIdentifier(rawValue: UInt16(n % 50 + 1))
            s.sends("press", .publish(.text("t", payload, qos: qos, id: id)))
            if n % 50 == 0 { s.syncs() }
        }
        s.syncs()
        _ = s.received("press")
    }

    private static func queue(_ s: borrowing Scenario) throws -> MessageQueue {
        let id = try #require(s.gateway.state.session(of: .client(identifier: "slow")))
        return try #require(s.gateway.state[id]).queue
    }

    private static func dropped(_ s: borrowing Scenario) -> Int {
        s.observations.reduce(0) { sum, observation in
            if case .dropped(.client("slow"), .queueFull, let count) = observation {
                sum + count
            } else {
                sum
            }
        }
    }

    @Test("QoS 0 passes by who does not read, counted, and nothing is kept", arguments: [UInt32(0), 3600])
    func atMostOnce(expiry: UInt32) throws {
        var s = Self.scenario(expiry: expiry)
        Self.publish(2000, qos: .atMostOnce, to: &s)
        #expect(s.received("slow") == [])
        #expect(try Self.queue(s).waitingCount == 0)
        #expect(Self.dropped(s) == 2000)
        s.connects("board")
        s.subscribes("board", "$SYS/broker/publish/messages/dropped")
        #expect(s.texts("board") == ["2000"])
    }

    @Test("A Session that keeps nothing holds some bytes and loses the newest, counted")
    func volatile() throws {
        var s = Self.scenario(expiry: 0)
        Self.publish(2000, qos: .atLeastOnce, to: &s)
        let queue = try Self.queue(s)
        let limits = Limits()
        #expect(queue.residentBytes <= limits.queuedBytesOfVolatileMax + Self.payload.utf8.count + 1)
        #expect(queue.waitingCount < limits.queuedMessagesOfVolatileMax)
        #expect(queue.waitingCount > 100)
        #expect(queue.waitingCount + Self.dropped(s) == 2000)
        s.handle(.writability(s.connection(of: "slow"), true))
        #expect(s.drains("slow", inRounds: true).count == queue.waitingCount)
        // It reads again, so it loses nothing more.
        Self.publish(50, qos: .atLeastOnce, to: &s)
        #expect(s.drains("slow", inRounds: true).count == 50)
    }

    @Test("A client that reads and never acknowledges costs no more")
    func neverAcknowledges() throws {
        var s = Self.scenario(expiry: 0)
        s.handle(.writability(s.connection(of: "slow"), true))
        Self.publish(2000, qos: .atLeastOnce, to: &s)
        let queue = try Self.queue(s)
        var received = 0
        for _ in 0..<20 {
            s.passes(milliseconds: 1)
            received += s.received("slow").publishes.count
        }
        #expect(received == Int(Limits().inFlightMax))
        #expect(queue.residentBytes <= Limits().queuedBytesOfVolatileMax + Self.payload.utf8.count + 1)
        #expect(queue.waitingCount + Self.dropped(s) == 2000)
    }

    @Test("A message larger than the bound still passes")
    func large() throws {
        var plan = GatewayPlan()
        plan.limits.queuedBytesOfVolatileMax = 100
        var s = Scenario.connected("press", plan: plan)
        s.connects("slow", expiry: 0)
        s.subscribes("slow", "t")
        Self.publish(1, qos: .atLeastOnce, to: &s)
        #expect(s.drains("slow", inRounds: true).count == 1)
    }

    @Test(
        "A persistent Session's backlog is on flash: little of it is in memory, and none is lost",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func persistent(qos: QoS) throws {
        var s = Self.scenario(expiry: 3600)
        for n: UInt16 in 1...500 {
            let id = PacketIdentifier(rawValue: n)
            s.sends("press", .publish(.text("t", "\(n) \(Self.payload)", qos: qos, id: id)))
            if qos == .exactlyOnce, let id { s.sends("press", .pubrel(Acknowledgement(id))) }
            s.syncs()
        }
        let queue = try Self.queue(s)
        #expect(queue.waitingCount == 500)
        #expect(queue.residentBytes <= Limits().residentBytesMax + Self.payload.utf8.count + 5)
        #expect(Self.dropped(s) == 0)
        s.handle(.writability(s.connection(of: "slow"), true))
        let numbers = s.drains("slow", inRounds: true).compactMap { Int($0.text.prefix { $0 != " " }) }
        #expect(numbers == Array(1...500))
    }
}
