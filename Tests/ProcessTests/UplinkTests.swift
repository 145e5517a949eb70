import Foundation
import Testing
import Workbench

/// The gateway between real clients and a real cloud broker, the line between them being cut.
@Suite("an uplink that is cut", .serialized)
struct UplinkTests {
    @Test(
        "cuts, half a packet, a black hole and a kill: nothing lost, nothing doubled",
        arguments: ["5", "3.1.1"], [Seed.ofThisRun])
    func survivesCuts(version: String, seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let rig = try Rig()
        let (cloud, link) = try rig.cloudBehindLink()
        defer {
            link.end()
            cloud.stop()
        }
        var uplink = Gateway.Uplink(port: link.port, routes: Self.routes)
        uplink.extra = ["version: \(version)"]
        let gateway = try rig.gateway(uplinks: [uplink])
        try gateway.start()
        let ledger = Ledger()
        let clients = populate(gateway: gateway.port, cloud: cloud.port, ledger)
        defer { clients.forEach { $0.end() } }
        try #require(waitUpTo(15) { clients.allSatisfy { $0.isReady } })
        try Probe.awaitUplink(of: gateway.port, cloud: cloud.port, prefix: "site/plant")

        clients.forEach { $0.publishing(true) }
        usleep(500_000)
        link.cut()
        usleep(1_500_000)
        link.restore()
        usleep(1_500_000)
        for direction in [CuttableLink.Direction.towardsTarget, .fromTarget] {
            link.cut(after: .random(in: 1...3000, using: &random), direction)
            #expect(waitUpTo(5) { link.isCut }, "no bytes flow")
            usleep(500_000)
            link.restore()
            usleep(1_500_000)
        }
        link.blackHole()
        usleep(700_000)
        gateway.kill()
        try gateway.start()
        usleep(300_000)
        link.cut()
        usleep(300_000)
        link.restore()
        usleep(1_000_000)
        clients.forEach { $0.publishing(false) }
        waitUpTo(30) { ledger.totals().unanswered == 0 && ledger.totals().underWay == 0 }
        usleep(1_000_000)

        expectNothingLost(ledger, clients, atLeast: 200)
        #expect(ledger.totals(.up, qos: 2).received > 100)
        #expect(ledger.totals(.down, qos: 2).received > 100)
        #expect(link.connections >= 5, "the gateway did not come back after each cut")
        #expect(gateway.stop() == .exited(0))
    }

    @Test("a cloud that does not answer delays nobody at home, nor the end")
    func ignoresBlackHole() throws {
        let rig = try Rig()
        let (cloud, link) = try rig.cloudBehindLink()
        defer {
            link.end()
            cloud.stop()
        }
        link.blackHole()
        let gateway = try rig.gateway(uplinks: [Gateway.Uplink(port: link.port, routes: Self.routes)])
        try gateway.start()
        let ledger = Ledger()
        var publisher = Client.Plan(id: "publisher", port: gateway.port, version: .v5)
        publisher.publications = [1, 2].map { qos in
            .init(
                stream: ledger.open(.up, qos: qos, name: "QoS \(qos)"), topic: "sensors/\(qos)",
                qos: Int32(qos), perSecond: 100)
        }
        var subscriber = Client.Plan(id: "subscriber", port: gateway.port, version: .v311)
        subscriber.subscriptions = [("sensors/#", 2)]
        let clients = [publisher, subscriber].map { Client($0, ledger: ledger) }
        defer { clients.forEach { $0.end() } }
        try #require(waitUpTo(10) { clients.allSatisfy { $0.isReady } })
        clients.forEach { $0.publishing(true) }
        usleep(2_000_000)
        clients.forEach { $0.publishing(false) }
        #expect(waitUpTo(2) { ledger.totals().unanswered == 0 && ledger.totals().underWay == 0 })
        expectNothingLost(ledger, clients, atLeast: 100)
        #expect(gateway.stop() == .exited(0), "\(gateway.log.suffix(1000))")
    }

    @Test(
        "a message of the cloud larger than packet-size stands in nobody's way, and is counted",
        arguments: ["5", "3.1.1"])
    func tooLarge(version: String) throws {
        let rig = try Rig()
        let cloud = try CloudBroker(in: rig.place)
        try cloud.start()
        defer { cloud.stop() }
        var uplink = Gateway.Uplink(port: cloud.port, routes: Self.routes)
        uplink.extra = ["version: \(version)"]
        let gateway = try rig.gateway(uplinks: [uplink], settings: ["limits: { packet-size: 4 KiB }"])
        try gateway.start()
        try Probe.awaitUplink(of: gateway.port, cloud: cloud.port, prefix: "site/plant")
        let subscriber = try rig.tool(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(gateway.port)", "-t", "commands/large/#", "-q", "2", "-C", "2", "-W", "20"])
        usleep(500_000)
        let file = try rig.place.write(String(repeating: "x", count: 100_000), to: "large")
        for qos in ["1", "2"] {
            let topic = "site/plant/commands/large/\(qos)"
            try rig.run(
                "/usr/bin/mosquitto_pub", ["-p", "\(cloud.port)", "-t", topic, "-q", qos, "-f", file])
            try rig.run(
                "/usr/bin/mosquitto_pub",
                ["-p", "\(cloud.port)", "-t", topic, "-q", qos, "-m", "small \(qos)"])
        }
        #expect(subscriber.process.ended(within: 20) == .exited(0))
        #expect(subscriber.output == "small 1\nsmall 2\n")
        #expect(gateway.stop() == .exited(0))
        #expect(gateway.log.contains("larger than packet-size allows") == (version == "3.1.1"))
    }

    @Test("what waited for a cloud that forgot its sessions is sent to it all the same")
    func survivesForgetfulCloud() throws {
        let rig = try Rig()
        let (cloud, link) = try rig.cloudBehindLink()
        defer {
            link.end()
            cloud.stop()
        }
        let gateway = try rig.gateway(uplinks: [Gateway.Uplink(port: link.port, routes: Self.routes)])
        try gateway.start()
        let ledger = Ledger()
        let clients = populate(gateway: gateway.port, cloud: cloud.port, ledger)
        let (sensor, application) = (clients[0], clients[2])
        defer { clients.forEach { $0.end() } }
        try #require(waitUpTo(15) { clients.allSatisfy { $0.isReady } })
        try Probe.awaitUplink(of: gateway.port, cloud: cloud.port, prefix: "site/plant")

        link.cut()
        cloud.kill()
        sensor.publishing(true)
        usleep(1_500_000)
        gateway.kill()
        try gateway.start()
        usleep(500_000)
        sensor.publishing(false)
        #expect(waitUpTo(10) { ledger.totals().unanswered == 0 })
        try cloud.start()
        #expect(waitUpTo(10) { application.connections == 2 && application.isReady })
        link.restore()
        #expect(waitUpTo(20) { ledger.totals().underWay == 0 }, "\(ledger.totals())")
        usleep(1_000_000)
        expectNothingLost(ledger, clients.dropLast(), atLeast: 50)
        // And the way down is there again, without anyone's help.
        application.publishing(true)
        usleep(500_000)
        application.publishing(false)
        #expect(waitUpTo(10) { ledger.totals(.down).underWay == 0 && ledger.totals(.down).received > 10 })
        #expect(gateway.stop() == .exited(0))
    }

    private static let routes = [
        "{ out: \"sensors/#\", to: \"site/${gateway}/sensors/#\", qos: 2 }",
        "{ in: \"site/${gateway}/commands/#\", to: \"commands/#\", qos: 2 }",
    ]

    private func populate(gateway: UInt16, cloud: UInt16, _ ledger: Ledger) -> [Client] {
        var sensor = Client.Plan(id: "sensor", port: gateway, version: .v5)
        var device = Client.Plan(id: "device", port: gateway, version: .v311)
        var application = Client.Plan(id: "application", port: cloud, version: .v5)
        device.subscriptions = [("commands/#", 2)]
        application.subscriptions = [("site/plant/sensors/#", 2)]
        for qos in [1, 2] {
            sensor.publications.append(
                .init(
                    stream: ledger.open(.up, qos: qos, name: "up, QoS \(qos)"), topic: "sensors/qos\(qos)",
                    qos: Int32(qos), perSecond: 60))
            application.publications.append(
                .init(
                    stream: ledger.open(.down, qos: qos, name: "down, QoS \(qos)"),
                    topic: "site/plant/commands/qos\(qos)", qos: Int32(qos), perSecond: 60))
        }
        return [sensor, device, application].map { Client($0, ledger: ledger) }
    }
}
