import Foundation
import Testing
import Workbench

/// One gateway, three ways in: TCP, WebSocket (paho) and a Unix socket (mosquitto's tools).
@Suite("Several listeners", .serialized)
struct ListenerTests {
    /// A gateway that takes its listeners from its file.
    private final class Gateway {
        let port = FreePort.next()
        let webPort = FreePort.next()
        let socket: String
        private let place: Workplace
        private let configuration: String
        private var process: ChildProcess?

        init(in place: Workplace) throws {
            self.place = place
            socket = place.file("mqtt.sock")
            var lines = [
                "gateway: plant", "state: \(place.file("state"))", "listeners:",
                "  - address: 127.0.0.1:\(port)",
                "  - { address: \"127.0.0.1:\(webPort)\", protocol: websocket, packet-size: 2 KiB }",
                "  - { address: \"unix:\(socket)\", mode: 0600 }",
            ]
            if place.isVolatile { lines.append("journal: { allow-volatile: true }") }
            configuration = try place.write(lines.joined(separator: "\n") + "\n", to: "tidegate.yaml")
        }

        deinit { process?.kill() }

        func start() throws {
            let child = try ChildProcess(
                Rig.executable, ["run", "--config", configuration],
                log: place.file("gateway-\(UInt32.random(in: 0 ... .max)).log"))
            process = child
            let isServing = waitUpTo(20) { child.log.contains("serving MQTT") || !child.isRunning }
            try #require(isServing && child.isRunning, "\(child.log)")
        }

        func kill() { process?.kill() }

        func stop() -> ChildProcess.Ending? {
            process?.send(SIGTERM)
            return process?.ended(within: 10)
        }
    }

    /// Subscribes over WebSocket, says so, and tells what comes until the message "end". With a size it publishes
    /// that many bytes instead, and tells that it was disconnected (paho hides why).
    private static let subscriber = """
        import os, sys, paho.mqtt.client as mqtt
        arguments = dict(transport="websockets", protocol=int(sys.argv[2]), client_id="web")
        if hasattr(mqtt, "CallbackAPIVersion"):
            arguments["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
        client = mqtt.Client(**arguments)
        def connected(client, _, flags, reason, properties=None):
            print("connected", int(getattr(reason, "value", reason)), flush=True)
            if properties: print("packets up to", properties.MaximumPacketSize, flush=True)
            client.subscribe("hall/#", qos=2)
        def message(client, _, m):
            print(m.topic, m.qos, len(m.payload), flush=True)
            if m.payload == b"end": client.disconnect()
        def subscribed(*_):
            print("subscribed", flush=True)
            if len(sys.argv) > 3: client.publish("too/large", bytes(int(sys.argv[3])))
        def disconnected(*_):
            print("disconnected", flush=True)
            os._exit(0)
        client.on_connect, client.on_message, client.on_subscribe = connected, message, subscribed
        if len(sys.argv) > 3: client.on_disconnect = disconnected
        client.connect("127.0.0.1", int(sys.argv[1]))
        client.loop_forever()
        """

    @Test("[MQTT5-6.0.0-2] what comes in over a Unix socket goes out over WebSocket", arguments: [4, 5])
    func carries(version: Int) throws {
        let rig = try Rig()
        let gateway = try Gateway(in: rig.place)
        try gateway.start()
        let web = try rig.tool(
            "/usr/bin/python3", ["-c", Self.subscriber, "\(gateway.webPort)", "\(version)"])
        try #require(waitUpTo(10) { web.output.contains("subscribed") }, "\(web.output)\(web.process.log)")
        let large = try rig.place.write(String(repeating: "x", count: 200_000), to: "large")
        for (qos, message) in [("0", ["-f", large]), ("2", ["-m", "on"]), ("1", ["-m", "end"])] {
            try rig.run(
                "/usr/bin/mosquitto_pub",
                ["--unix", gateway.socket, "-V", "mqttv5", "-t", "hall/light", "-q", qos] + message)
        }
        #expect(web.process.ended(within: 10) == .exited(0), "\(web.process.log)")
        let told = web.output.split(separator: "\n").filter { !$0.hasPrefix("packets up to") }
        #expect(
            told == ["connected 0", "subscribed", "hall/light 0 200000", "hall/light 2 2", "hall/light 1 3"])
        #expect(gateway.stop() == .exited(0))
        #expect(!FileManager.default.fileExists(atPath: gateway.socket))
    }

    @Test(
        "[MQTT5-3.2.2-15] each listener announces the packet size it takes, and more than that ends the connection"
    )
    func packetSize() throws {
        let rig = try Rig()
        let gateway = try Gateway(in: rig.place)
        try gateway.start()
        let told = try rig.run(
            "/usr/bin/python3", ["-c", Self.subscriber, "\(gateway.webPort)", "5", "3000"], seconds: 10)
        #expect(told == "connected 0\npackets up to 2048\nsubscribed\ndisconnected\n")
        #expect(gateway.stop() == .exited(0))
    }

    @Test("after SIGKILL the gateway takes its socket's path again")
    func staleSocket() throws {
        let rig = try Rig()
        let gateway = try Gateway(in: rig.place)
        try gateway.start()
        gateway.kill()
        #expect(FileManager.default.fileExists(atPath: gateway.socket))
        try gateway.start()
        try rig.run("/usr/bin/mosquitto_pub", ["--unix", gateway.socket, "-t", "a", "-q", "1", "-m", "b"])
        #expect(gateway.stop() == .exited(0))
    }
}
