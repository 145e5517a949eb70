import Foundation
import Testing
import Workbench

/// The configuration of a running gateway, read again: by SIGHUP, and by `tidegate reload`.
@Suite("reloading", .serialized)
struct ReloadTests {
    @Test("SIGHUP changes a route while messages are queued: none is lost, and each goes where it was routed")
    func changesRoute() throws {
        let rig = try Rig()
        let (cloud, link) = try rig.cloudBehindLink()
        defer {
            link.end()
            cloud.stop()
        }
        link.cut()
        var uplink = Gateway.Uplink(port: link.port, routes: ["{ out: \"sensors/#\", to: \"old/#\" }"])
        let gateway = try rig.gateway(uplinks: [uplink])
        try gateway.start()
        try publish(rig, gateway, 1...300)

        uplink.routes = ["{ out: \"sensors/#\", to: \"new/#\" }"]
        try gateway.configure(uplinks: [uplink])
        gateway.hangUp()
        try #require(waitUpTo(10) { gateway.log.contains("reloaded") }, "\(gateway.log)")
        #expect(gateway.log.contains("uplink \"cloud\": changed"), "\(gateway.log)")
        try publish(rig, gateway, 301...600)

        let watcher = try rig.tool(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(cloud.port)", "-t", "#", "-q", "1", "-C", "600", "-W", "60", "-F", "%t %p"])
        usleep(500_000)
        link.restore()
        #expect(watcher.process.ended(within: 60) == .exited(0), "\(gateway.log.suffix(2000))")
        var numbers: [String: [Int]] = [:]
        for line in watcher.output.split(separator: "\n") {
            let words = line.split(separator: " ")
            numbers[String(words[0]), default: []].append(try #require(Int(words[1])))
        }
        #expect(numbers["old/press"] == Array(1...300), "as they were routed when they came")
        #expect(numbers["new/press"] == Array(301...600))
        // The cloud's last acknowledgements are on their way.
        usleep(1_500_000)
        #expect(gateway.stop() == .exited(0))
        #expect(gateway.log.contains("books: 600 received, 600 delivered, 0 queued"), "\(gateway.log)")
    }

    @Test("A broken file changes nothing and says what is wrong, in the log and to whoever asked")
    func refusesBrokenFile() throws {
        let rig = try Rig()
        let cloud = try CloudBroker(in: rig.place)
        try cloud.start()
        defer { cloud.stop() }
        var uplink = Gateway.Uplink(port: cloud.port, routes: ["{ out: \"sensors/#\" }"])
        let gateway = try rig.gateway(uplinks: [uplink])
        try gateway.start()
        try Self.awaitConnected(gateway)
        let before = gateway.log.count

        uplink.routes = ["{ out: \"sensors/#\", qos: 3 }"]
        try gateway.configure(uplinks: [uplink])
        gateway.hangUp()
        let words = "qos of 3 is out of bounds; write: a number from 0 to 2"
        #expect(
            waitUpTo(10) {
                let log = gateway.log.dropFirst(before)
                return log.contains("nothing was changed: \(gateway.configurationPath):")
                    && log.contains(words)
            }, "\(gateway.log)")
        // By the state directory, since the file does not say where it is any more.
        let (ending, text) = try rig.command("reload", "--state", gateway.statePath)
        #expect(ending == .exited(1))
        #expect(text.hasPrefix("\(gateway.configurationPath):"), "\(text)")
        #expect(text.hasSuffix("\(words)\nnothing was changed\n"), "\(text)")
        let byFile = try rig.command("reload", "--config", gateway.configurationPath)
        #expect(byFile.ending == .exited(78) && byFile.text.contains(words), "\(byFile.text)")

        let watcher = try rig.tool(
            "/usr/bin/mosquitto_sub", ["-p", "\(cloud.port)", "-t", "#", "-q", "1", "-C", "1", "-W", "20"])
        usleep(500_000)
        try publish(rig, gateway, 1...1)
        #expect(watcher.process.ended(within: 20) == .exited(0), "the route is as it was")
        #expect(!gateway.log.dropFirst(before).contains("\"cloud\" disconnected"))
        #expect(gateway.stop() == .exited(0))
    }

    @Test("tidegate reload answers what was done; what needs a restart is named, and stays as it is")
    func saysWhatItDid() throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        let reload = { try rig.command("reload", "--config", gateway.configurationPath) }
        #expect(
            try reload().text == "reloaded: nothing that can change while the gateway runs has changed\n")
        try gateway.configure(
            uplinks: [], settings: ["limits: { connections: 5, inflight: 7, queue-messages: 20 }"])
        let (ending, text) = try reload()
        #expect(ending == .exited(0))
        #expect(
            text == "reloaded\nlimits: connections: changed in the file; that needs a restart\n"
                + "limits: inflight: changed in the file; that needs a restart\n")
        #expect(gateway.stop() == .exited(0))
        let stopped = try reload()
        #expect(stopped.ending == .exited(1))
        #expect(stopped.text.contains("no gateway runs on this state directory"), "\(stopped.text)")
    }

    @Test("An uplink whose connection is described anew connects anew, and goes on with the cloud's session")
    func changesConnection() throws {
        let rig = try Rig()
        let cloud = try CloudBroker(in: rig.place)
        try cloud.start()
        defer { cloud.stop() }
        var uplink = Gateway.Uplink(
            port: cloud.port, routes: ["{ out: \"sensors/#\" }", "{ in: \"commands/#\" }"])
        let gateway = try rig.gateway(uplinks: [uplink])
        try gateway.start()
        try Self.awaitConnected(gateway)
        let before = gateway.log.count
        uplink.extra = ["receive-maximum: 20"]
        uplink.routes[1] = "{ in: \"orders/#\" }"
        try gateway.configure(uplinks: [uplink])
        let (ending, text) = try rig.command("reload", "--config", gateway.configurationPath)
        #expect(ending == .exited(0))
        #expect(text == "reloaded\nuplink \"cloud\": changed, and connects anew\n")
        let kept = "uplink \"cloud\" connected, the cloud kept its session"
        #expect(waitUpTo(10) { gateway.log.dropFirst(before).contains(kept) }, "\(gateway.log)")
        let order = try rig.tool(
            "/usr/bin/mosquitto_sub", ["-p", "\(gateway.port)", "-t", "orders/#", "-C", "1", "-W", "20"])
        usleep(500_000)
        try rig.run(
            "/usr/bin/mosquitto_pub", ["-p", "\(cloud.port)", "-t", "orders/1", "-q", "1", "-r", "-m", "go"])
        #expect(order.process.ended(within: 20) == .exited(0), "the new route is subscribed to")
        #expect(gateway.stop() == .exited(0))
    }

    @Test(
        "An uplink that is added connects; one that is taken away keeps what waits, and has it back when it is back"
    )
    func addsAndRemoves() throws {
        let rig = try Rig()
        let (cloud, link) = try rig.cloudBehindLink()
        defer {
            link.end()
            cloud.stop()
        }
        let uplink = Gateway.Uplink(port: link.port, routes: ["{ out: \"sensors/#\" }"])
        let gateway = try rig.gateway()
        try gateway.start()
        let reload = { try rig.command("reload", "--config", gateway.configurationPath) }

        try gateway.configure(uplinks: [uplink])
        #expect(try reload().text == "reloaded\nuplink \"cloud\": new\n")
        try Self.awaitConnected(gateway)
        link.cut()
        try #require(waitUpTo(10) { gateway.log.contains("uplink \"cloud\" disconnected") })
        try publish(rig, gateway, 1...50)

        try gateway.configure(uplinks: [])
        let gone = try reload()
        #expect(gone.text.contains("uplink \"cloud\": gone; what waits for it is kept under its name"))
        try publish(rig, gateway, 51...60)

        let watcher = try rig.tool(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(cloud.port)", "-t", "#", "-q", "1", "-C", "51", "-W", "30"])
        link.restore()
        usleep(1_500_000)
        #expect(watcher.output.isEmpty, "it is not connected")
        try gateway.configure(uplinks: [uplink])
        #expect(try reload().text == "reloaded\nuplink \"cloud\": back\n")
        try publish(rig, gateway, 61...61)
        #expect(watcher.process.ended(within: 30) == .exited(0), "\(watcher.output)")
        let numbers = watcher.output.split(separator: "\n").compactMap { Int($0) }
        #expect(numbers == Array(1...50) + [61], "what came while there was no route has nowhere to go")
        #expect(gateway.stop() == .exited(0))
    }

    private static func awaitConnected(_ gateway: Gateway) throws {
        try #require(waitUpTo(15) { gateway.log.contains("uplink \"cloud\" connected") }, "\(gateway.log)")
    }

    private func publish(_ rig: Rig, _ gateway: Gateway, _ numbers: ClosedRange<Int>) throws {
        let file = try rig.place.write(numbers.map { "\($0)\n" }.joined(), to: "numbers")
        try rig.run(
            "/bin/sh",
            ["-c", "mosquitto_pub -p \(gateway.port) -i press -q 1 -t sensors/press -l < \(file)"])
    }
}
