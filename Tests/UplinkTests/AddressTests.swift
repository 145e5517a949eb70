import Foundation
import GatewayCore
import MQTT
import Testing
import Workbench

@testable import Uplink

@Suite("The uplink's addresses", .serialized)
struct AddressTests {
    @Test("One address: a pause after each failure, doubling until a connection lasts")
    func single() {
        var order = AddressOrder(count: 1)
        #expect((0..<3).map { _ in order.failed() } == (0..<3).map { .afterPause(doublings: $0) })
        #expect(order.ended() == .afterPause(doublings: 0))
        #expect(order.failed() == .afterPause(doublings: 1))
    }

    @Test("Several addresses: each once, then a pause, then the first again")
    func rounds() {
        var order = AddressOrder(count: 3)
        var tried: [Int] = []
        var pauses: [AddressOrder.Next] = []
        for _ in 0..<7 {
            tried.append(order.current)
            let next = order.failed()
            if next != .atOnce { pauses.append(next) }
        }
        #expect(tried == [0, 1, 2, 0, 1, 2, 0])
        #expect(pauses == [.afterPause(doublings: 0), .afterPause(doublings: 1)])
    }

    @Test("After a connection that lasted the first address is next")
    func preference() {
        var order = AddressOrder(count: 3)
        _ = order.failed()
        #expect(order.current == 1)
        #expect(order.ended() == .afterPause(doublings: 0))
        #expect(order.current == 0)
    }

    @Test("Another way to try the same address comes after a pause")
    func anotherWay() {
        var order = AddressOrder(count: 2)
        #expect(order.failedForNow() == .afterPause(doublings: 0))
        #expect(order.current == 0)
    }

    /// A plan that prefers the first of two brokers.
    private func plan(_ first: Int, _ second: Int, failBack: Int64? = nil) -> UplinkPlan {
        UplinkPlan(
            name: "cloud",
            addresses: [
                UplinkAddress(host: "127.0.0.1", port: first), UplinkAddress(host: "127.0.0.1", port: second),
            ], failBackMilliseconds: failBack, clientIdentifier: "gw", backoffMinMilliseconds: 20,
            backoffMaxMilliseconds: 100)
    }

    @Test(
        "Where the first address gives no connection the second does, without a pause",
        .timeLimit(.minutes(10)))
    func failover() async throws {
        let broker = try Mosquitto()
        let nobody = Int(FreePort.next())
        let link = Probe(plan(nobody, broker.port))
        try await link.perform(.open(cleanStart: true))
        _ = try await link.connected()
        try await link.publish("t")
        #expect(
            link.noticesSoFar.filter { if case .retrying = $0 { true } else { false } } == [])
        try await link.stop()
    }

    @Test("A broker that refuses us is passed over like one that is not there", .timeLimit(.minutes(10)))
    func refusing() async throws {
        let (closed, open) = (try Mosquitto(anonymous: false), try Mosquitto())
        let link = Probe(plan(closed.port, open.port))
        try await link.perform(.open(cleanStart: true))
        _ = try await link.connected()
        try await link.publish("t")
        try await link.stop()
    }

    @Test(
        "Back to the first address once it gives a connection, and not before; the other is told goodbye",
        .timeLimit(.minutes(10)))
    func failBack() async throws {
        let (first, second) = (try Mosquitto(), try Mosquitto())
        first.stop()
        let link = Probe(plan(first.port, second.port, failBack: 200))
        try await link.perform(.open(cleanStart: true))
        _ = try await link.connected()
        _ = try await link.noticed { if case .notFailingBack(.unreachable) = $0 { true } else { false } }
        try await link.publish("still/here")
        try first.start()
        try await link.disconnected()
        #expect(try await link.connected().sessionPresent == false)
        second.stop()
        try await link.publish("back/again", id: 2)
        try await link.stop()
    }

    @Test("Without fail-back a connection stays where it is", .timeLimit(.minutes(10)))
    func stays() async throws {
        let (first, second) = (try Mosquitto(), try Mosquitto())
        first.stop()
        let link = Probe(plan(first.port, second.port))
        try await link.perform(.open(cleanStart: true))
        _ = try await link.connected()
        try first.start()
        try await Task.sleep(for: .seconds(1))
        first.stop()
        try await link.publish("t")
        try await link.stop()
    }

    @Test("Of the addresses a name has, whichever answers is used", .timeLimit(.minutes(10)))
    func localhost() async throws {
        // mosquitto listens on 127.0.0.1 alone; where localhost is ::1 as well, nobody answers there.
        let broker = try Mosquitto()
        var plan = broker.plan(.v5_0)
        plan.addresses[0].host = "localhost"
        let link = try await Probe.connected(plan)
        try await link.publish("t")
        try await link.stop()
    }

    @Test("IPv6", .timeLimit(.minutes(10)))
    func version6() async throws {
        let server = try await TestServer(host: "::1") { _ in TestServer.connack }
        let link = Probe(
            UplinkPlan(
                name: "cloud", addresses: [UplinkAddress(host: "::1", port: server.port)],
                clientIdentifier: "gw"))
        try await link.perform(.open(cleanStart: true))
        _ = try await link.connected()
        try await link.stop()
        try await server.close()
    }

    @Test("A name that does not resolve is said so", .timeLimit(.minutes(10)))
    func noSuchName() async throws {
        let link = Probe(
            UplinkPlan(
                name: "cloud", addresses: [UplinkAddress(host: "broker.invalid", port: 1883)],
                clientIdentifier: "gw"
            ))
        try await link.perform(.open(cleanStart: true))
        let loss = try await link.lost()
        #expect(loss.description.hasPrefix("the name broker.invalid does not resolve"), "\(loss)")
        try await link.stop()
    }

    @Test(
        "Back at a broker that holds a QoS 2 message of ours, after another began a new session: it is released",
        .timeLimit(.minutes(10)))
    func heldByCloud() async throws {
        let (first, second) = (try Mosquitto(), try Mosquitto())
        let line = try CuttableLink(to: UInt16(first.port))
        defer { line.end() }
        let link = Probe(plan(Int(line.port), second.port, failBack: 300))
        try await link.perform(.open(cleanStart: true))
        _ = try await link.connected()
        try await leaveOneHeld(link)
        line.cut()
        try await link.disconnected()
        // For the core the message is the cloud's.
        #expect(try await link.connected().sessionPresent == false)
        line.restore()
        try await link.disconnected()
        #expect(try await link.connected().sessionPresent)
        try await expectReleased(by: first, link)
        try await link.stop()
    }

    /// PUBREC comes of a retained message, and no PUBREL follows: the broker holds it.
    private func leaveOneHeld(_ link: Probe) async throws {
        let message = ApplicationMessage(topic: Array("t".utf8), payload: [0x31])
        try await link.perform(
            .send(.publish(Publish(message: message, qos: .exactlyOnce, id: 0x8001, retain: true))))
        let answer = try await link.received()
        if case .pubrec = answer { return }
        Issue.record("no PUBREC, but \(answer)")
    }

    private func expectReleased(by broker: Mosquitto, _ link: Probe) async throws {
        // PUBCOMP of the old message is not the core's: what it hears next is of its new one.
        try await link.publish("u")
        #expect(try broker.run("mosquitto_sub", "-t", "t", "-C", "1", "-W", "5") == "1\n")
    }

    @Test(
        "What the second broker holds of us is remembered as its own, also when another plan comes meanwhile",
        .timeLimit(.minutes(10)))
    func heldWhileReloading() async throws {
        let (first, second) = (try Mosquitto(), try Mosquitto())
        first.stop()
        let link = Probe(plan(first.port, second.port))
        try await link.perform(.open(cleanStart: true))
        _ = try await link.connected()
        try await leaveOneHeld(link)
        try first.start()
        var other = plan(first.port, second.port)
        other.backoffMaxMilliseconds += 1
        try await link.adopt(other)
        try await link.disconnected()
        #expect(try await link.connected().sessionPresent == false)
        first.stop()
        try await link.disconnected()
        #expect(try await link.connected().sessionPresent)
        try await expectReleased(by: second, link)
        try await link.stop()
    }
}
