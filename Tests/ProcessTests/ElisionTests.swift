import Foundation
import Testing
import Workbench

/// The flash is spared while the link is up, and nothing hangs on that it is.
@Suite("messages that are never written", .serialized)
struct ElisionTests {
    @Test("while a cloud acknowledges at once nearly nothing is written, and a kill afterwards loses nothing")
    func writesNextToNothing() throws {
        let rig = try Rig()
        let cloud = try CloudBroker(in: rig.place)
        try cloud.start()
        defer { cloud.stop() }
        let link = try CuttableLink(to: cloud.port)
        defer { link.end() }
        let routes = [
            "{ out: \"sensors/#\", to: \"site/${gateway}/sensors/#\", qos: 1 }",
            "{ in: \"site/${gateway}/commands/#\", to: \"commands/#\", qos: 1 }",
        ]
        let gateway = try rig.gateway(uplinks: [Gateway.Uplink(port: link.port, routes: routes)])
        try gateway.start()
        let ledger = Ledger()
        var sensor = Client.Plan(id: "sensor", port: gateway.port, version: .v5)
        sensor.publications = [
            .init(
                stream: ledger.open(.up, qos: 1, name: "QoS 1"), topic: "sensors/1", qos: 1, perSecond: 200)
        ]
        var application = Client.Plan(id: "application", port: cloud.port, version: .v5)
        application.subscriptions = [("site/plant/sensors/#", 1)]
        let clients = [sensor, application].map { Client($0, ledger: ledger) }
        defer { clients.forEach { $0.end() } }
        try #require(waitUpTo(15) { clients.allSatisfy { $0.isReady } })
        try Probe.awaitUplink(of: gateway.port, cloud: cloud.port, prefix: "site/plant")
        usleep(1_500_000)

        let before = Self.logBytes(gateway)
        clients[0].publishing(true)
        usleep(3_000_000)
        clients[0].publishing(false)
        #expect(waitUpTo(5) { ledger.totals().unanswered == 0 && ledger.totals().underWay == 0 })
        let sent = ledger.totals().received
        #expect(sent > 300)
        // Written, each would take some 160 bytes and each commit a page.
        let grown = Self.logBytes(gateway) - before
        #expect(grown <= 10 * 4096, "\(sent) messages took \(grown) bytes")

        // With the link down every message is on flash before it is acknowledged.
        link.cut()
        clients[0].publishing(true)
        #expect(waitUpTo(10) { ledger.totals().underWay > 100 })
        gateway.kill()
        try gateway.start()
        usleep(500_000)
        clients[0].publishing(false)
        #expect(waitUpTo(10) { ledger.totals().unanswered == 0 })
        #expect(Self.logBytes(gateway) > before + 10 * 4096)
        link.restore()
        #expect(waitUpTo(20) { ledger.totals().underWay == 0 }, "\(ledger.totals())")
        #expect(ledger.totals().lost == 0, "\(ledger.faults().joined(separator: "\n"))")
        #expect(gateway.stop() == .exited(0))
    }

    @Test("a kill while messages are on their way unwritten loses none that was acknowledged")
    func killedInBetween() throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        let ledger = Ledger()
        var sensor = Client.Plan(id: "sensor", port: gateway.port, version: .v311)
        sensor.publications = [1, 2].map { qos in
            .init(
                stream: ledger.open(.up, qos: qos, name: "QoS \(qos)"), topic: "t/\(qos)",
                qos: Int32(qos), perSecond: 100)
        }
        var archive = Client.Plan(id: "archive", port: gateway.port, version: .v5)
        archive.subscriptions = [("t/#", 2)]
        let clients = [sensor, archive].map { Client($0, ledger: ledger) }
        defer { clients.forEach { $0.end() } }
        try #require(waitUpTo(15) { clients.allSatisfy { $0.isReady } })
        clients[0].publishing(true)
        for _ in 0..<3 {
            usleep(.random(in: 400_000...900_000))
            gateway.kill()
            try gateway.start()
        }
        usleep(500_000)
        clients[0].publishing(false)
        #expect(waitUpTo(20) { ledger.totals().unanswered == 0 && ledger.totals().underWay == 0 })
        usleep(500_000)
        expectNothingLost(ledger, clients, atLeast: 50)
        #expect(gateway.stop() == .exited(0))
    }

    /// Of the segments, which grow as batches are written.
    private static func logBytes(_ gateway: Gateway) -> Int {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: gateway.statePath)) ?? []
        return names.filter { $0.hasPrefix("seg-") }.reduce(0) { sum, name in
            let attributes = try? FileManager.default.attributesOfItem(atPath: "\(gateway.statePath)/\(name)")
            return sum + ((attributes?[.size] as? Int) ?? 0)
        }
    }
}
