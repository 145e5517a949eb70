import Foundation
import Testing
import Workbench

/// `tidegate doctor` against a real broker with limits.
@Suite("tidegate doctor", .serialized)
struct DoctorTests {
    @Test("A cloud that gives what is asked: nothing would be lost, and a running gateway is not disturbed")
    func well() throws {
        let rig = try Rig()
        let cloud = try CloudBroker(in: rig.place)
        try cloud.start()
        defer { cloud.stop() }
        let gateway = try rig.gateway(uplinks: [Gateway.Uplink(port: cloud.port, routes: Self.routes)])
        try gateway.start()
        try #require(waitUpTo(15) { gateway.log.contains("uplink \"cloud\" connected") })
        let (ending, text) = try rig.command("doctor", "--config", gateway.configurationPath)
        #expect(ending == .exited(0), "\(text)")
        #expect(text.contains("mqtt://127.0.0.1:\(cloud.port): connected; session kept for 7d, QoS up to 2"))
        #expect(text.hasSuffix("nothing would be lost\n"), "\(text)")
        #expect(!gateway.log.contains("disconnected"), "\(gateway.log)")
        // What it subscribed to and how it was called ended with it.
        let watcher = try rig.run(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(cloud.port)", "-t", "$SYS/broker/clients/disconnected", "-C", "1", "-W", "20"])
        #expect(watcher == "0\n")
        #expect(gateway.stop() == .exited(0))
    }

    @Test(
        "A cloud with limits: each is named with what to write, and what only costs something does not fail")
    func limited() throws {
        let rig = try Rig()
        var options = CloudBroker.Options()
        options.lines = ["max_qos 1", "retain_available false", "max_packet_size 20000", "max_keepalive 60"]
        let cloud = try CloudBroker(in: rig.place, options: options)
        try cloud.start()
        defer { cloud.stop() }
        let gateway = try rig.gateway(uplinks: [Gateway.Uplink(port: cloud.port, routes: Self.routes)])
        let (ending, text) = try rig.command("doctor", "--config", gateway.configurationPath)
        #expect(ending == .exited(0), "\(text)")
        for words in [
            "QoS up to 1, no retained messages, packets up to 20000 bytes",
            "mind: the cloud takes QoS 1 at most", "write: qos: 1 at every route with out",
            "mind: the cloud retains nothing", "write: retain: false at every route with out",
            "mind: messages that make a packet of more than 20000 bytes",
        ] {
            #expect(text.contains(words), "\(words) in \(text)")
        }
    }

    @Test("A cloud of QoS 0, and a cloud that is not there: status 1")
    func losing() throws {
        let rig = try Rig()
        var options = CloudBroker.Options()
        options.lines = ["max_qos 0"]
        let cloud = try CloudBroker(in: rig.place, options: options)
        try cloud.start()
        defer { cloud.stop() }
        let gateway = try rig.gateway(uplinks: [Gateway.Uplink(port: cloud.port, routes: Self.routes)])
        let (ending, text) = try rig.command("doctor", "--config", gateway.configurationPath)
        #expect(ending == .exited(1), "\(text)")
        #expect(text.contains("WOULD BE LOST: the cloud takes QoS 0 only"), "\(text)")
        #expect(!text.contains("nothing would be lost"))

        try gateway.configure(uplinks: [Gateway.Uplink(port: FreePort.next(), routes: Self.routes)])
        let away = try rig.command("doctor", "--config", gateway.configurationPath)
        #expect(away.ending == .exited(1))
        #expect(away.text.contains("NOT CONNECTED"), "\(away.text)")
        let other = try rig.command("doctor", "--config", gateway.configurationPath, "--uplink", "clout")
        #expect(other.ending == .exited(1) && other.text.contains("there is \"cloud\""), "\(other.text)")
    }

    private static let routes = [
        "{ out: \"up/#\" }", "{ in: \"site/${gateway}/commands/#\", to: \"commands/#\" }",
    ]
}
