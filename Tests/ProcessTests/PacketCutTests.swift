import Foundation
import Testing
import Workbench

/// The line between gateway and cloud is cut behind every single Control Packet of QoS 2 exchanges that go both ways, and
/// behind those by which they are taken up again.
@Suite("an uplink that is cut behind every packet", .serialized)
struct PacketCutTests {
    /// CONNECT, SUBSCRIBE, what is resumed, and a whole exchange: no connection needs more packets in one direction before
    /// it has cut everything.
    private static let packetsMax = 12

    @Test(
        "[MQTT5-4.3.3] [MQTT311-4.3.3] QoS 2 arrives exactly once, with and without a kill in between",
        arguments: ["5", "3.1.1"], [false, true])
    func exactlyOnce(version: String, killing: Bool) throws {
        let rig = try Rig()
        let cloud = try CloudBroker(in: rig.place)
        try cloud.start()
        defer { cloud.stop() }
        let ledger = Ledger()
        let tap = WireTap(ledger)
        let link = try CuttableLink(to: cloud.port, tap: tap)
        defer { link.end() }
        var uplink = Gateway.Uplink(port: link.port, routes: Self.routes)
        uplink.extra = ["version: \(version)"]
        uplink.reconnect = "{ min: 100ms, max: 100ms }"
        let gateway = try rig.gateway(uplinks: [uplink])
        try gateway.start()
        let clients = Self.populate(gateway: gateway.port, cloud: cloud.port, ledger)
        defer { clients.forEach { $0.end() } }
        try #require(waitUpTo(15) { clients.allSatisfy { $0.isReady } })
        try Probe.awaitUplink(of: gateway.port, cloud: cloud.port, prefix: "site/plant")
        clients.forEach { $0.publishing(true) }
        // A cloud of 3.1.1 is asked to forget what it knew in a connection of its own.
        let sessionsLost = tap.sessionsLost
        var cuts = 0
        for packets in 1...Self.packetsMax {
            for direction in [CuttableLink.Direction.towardsTarget, .fromTarget] {
                link.cut(afterPackets: packets, direction)
                #expect(waitUpTo(10) { link.isCut }, "no \(packets) packets flow")
                cuts += 1
                if killing, (packets + cuts) % 2 == 0 {
                    gateway.kill()
                    try gateway.start()
                }
                link.restore()
            }
        }
        clients.forEach { $0.publishing(false) }
        #expect(
            waitUpTo(30) { ledger.totals().unanswered == 0 && ledger.totals().underWay == 0 },
            "\(ledger.totals())")
        usleep(500_000)
        for direction in Direction.allCases {
            let totals = ledger.totals(direction, qos: 2)
            let doubled = ledger.doubled().filter { fault in
                fault.direction == direction && !tap.publishedAgainByCloud.contains(fault.message)
            }
            #expect(
                totals.lost == 0 && doubled.isEmpty,
                "\(direction): \(totals) \(ledger.faults())\n\(tap.trace.prefix(400).joined(separator: "\n"))"
            )
            #expect(totals.received > cuts, "\(direction): too little passed to show anything: \(totals)")
        }
        #expect(tap.publishedAgain.isEmpty, "[MQTT5-4.3.3-6] no PUBLISH after PUBREL")
        #expect(tap.sessionsLost == sessionsLost)
        #expect(gateway.stop() == .exited(0))
    }

    private static let routes = [
        "{ out: \"sensors/#\", to: \"site/${gateway}/sensors/#\", qos: 2 }",
        "{ in: \"site/${gateway}/commands/#\", to: \"commands/#\", qos: 2 }",
    ]

    private static func populate(gateway: UInt16, cloud: UInt16, _ ledger: Ledger) -> [Client] {
        var sensor = Client.Plan(id: "sensor", port: gateway, version: .v5)
        var device = Client.Plan(id: "device", port: gateway, version: .v311)
        var application = Client.Plan(id: "application", port: cloud, version: .v5)
        device.subscriptions = [("commands/#", 2)]
        application.subscriptions = [("site/plant/sensors/#", 2)]
        // Slow enough for the packets of one exchange to be cut apart.
        sensor.publications = [
            .init(
                stream: ledger.open(.up, qos: 2, name: "up"), topic: "sensors/exact", qos: 2, perSecond: 25)
        ]
        application.publications = [
            .init(
                stream: ledger.open(.down, qos: 2, name: "down"), topic: "site/plant/commands/exact", qos: 2,
                perSecond: 25)
        ]
        return [sensor, device, application].map { Client($0, ledger: ledger) }
    }
}
