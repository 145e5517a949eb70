import Foundation
import Testing
import Workbench

/// Devices that show certificates: TLS listeners of the shipped binary, with mosquitto's and paho's clients.
@Suite("TLS listeners", .serialized)
struct SecureListenerTests {
    @Test(
        "A certificate decides which profile a device gets, and so does the listener; whoever shows none is turned away"
    )
    func profiles() throws {
        let site = try Site()
        try site.start()
        #expect(try site.publish("press/a", as: "press-1").isDone)
        #expect(try site.publish("other", as: "press-1").text.contains("Not authorized"))
        #expect(try site.publish("press/a", as: "oven-1").text.contains("Not authorized"))
        // Whose subject no profile asks for, its issuer decides.
        #expect(try site.publish("issued/a", as: "oven-1").isDone)
        #expect(try site.publish("issued/a", as: "press-1").text.contains("Not authorized"))
        #expect(try site.publish("plain/a", as: nil, port: site.plainPort).isDone)
        #expect(try site.publish("press/a", as: nil, port: site.plainPort).text.contains("Not authorized"))
        let clients = try site.answer(to: ["clients"], whileConnectedAs: "press-1")
        #expect(clients.contains("press-1\tconnected") && clients.contains("profile press"), "\(clients)")
        #expect(try !site.publish("press/a", as: "nobody").isDone)
        let stranger = try Authority("Plant CA", in: site.rig)
        try stranger.issue("press-1", to: "stranger")
        #expect(try !site.publish("press/a", as: "stranger").isDone)
        #expect(site.stop() == .exited(0))
    }

    @Test(
        "What is large goes through, and who is refused is told before the connection ends",
        arguments: ["1.2", "1.3"])
    func carries(minimum: String) throws {
        let site = try Site(minimum: minimum)
        try site.start()
        let large = String(repeating: "x", count: 300_000)
        let file = try site.rig.place.write(large, to: "large")
        let screen = try site.rig.tool(
            "/usr/bin/mosquitto_sub",
            site.words(as: "press-2", port: site.port) + ["-t", "press/#", "-q", "1", "-C", "2", "-W", "20"])
        usleep(700_000)
        for _ in 1...2 { #expect(try site.publish("press/a", as: "press-1", ["-f", file]).isDone) }
        #expect(screen.process.ended(within: 20) == .exited(0), "\(screen.process.log)")
        #expect(screen.output == "\(large)\n\(large)\n")
        let refused = try site.publish("press/a", as: "press-1", ["-m", "x"], identifier: "a/b")
        #expect(refused.text.contains("Client Identifier not valid"), "\(refused.text)")
        #expect(site.stop() == .exited(0))
    }

    /// Subscribes over WebSocket and TLS, and publishes to itself.
    private static let web = """
        import sys, paho.mqtt.client as mqtt
        arguments = dict(transport="websockets", client_id="web")
        if hasattr(mqtt, "CallbackAPIVersion"):
            arguments["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
        client = mqtt.Client(**arguments)
        client.tls_set(ca_certs=sys.argv[2], certfile=sys.argv[3], keyfile=sys.argv[4])
        client.on_connect = lambda c, *_: c.subscribe("press/#", qos=1)
        client.on_subscribe = lambda c, *_: c.publish("press/web", "x" * 100000, qos=1)
        def message(c, _, m):
            print(m.topic, len(m.payload), flush=True)
            c.disconnect()
        client.on_message = message
        client.connect("localhost", int(sys.argv[1]))
        client.loop_forever()
        """

    @Test("[MQTT5-6.0.0-2] WebSocket over TLS, with a certificate")
    func webSocket() throws {
        let site = try Site()
        try site.start()
        let told = try site.rig.run(
            "/usr/bin/python3",
            ["-c", Self.web, "\(site.webPort)", site.authority.file] + site.files(of: "press-1"), seconds: 20)
        #expect(told == "press/web 100000\n")
        #expect(site.stop() == .exited(0))
    }

    @Test(
        "A reload reads the certificate anew, for connections to come; one that cannot be used changes nothing"
    )
    func renews() throws {
        let site = try Site()
        try site.start()
        let screen = try site.rig.tool(
            "/usr/bin/mosquitto_sub",
            site.words(as: "press-2", port: site.port) + ["-t", "press/#", "-q", "1", "-C", "2", "-W", "30"])
        usleep(700_000)
        #expect(try site.publish("press/a", as: "press-1").isDone)
        _ = try site.rig.place.write("no certificate", to: "server.pem")
        let broken = try site.command("reload")
        #expect(
            broken.contains(
                "server.pem holds no certificate that can be read; what was read before stays in use"))
        #expect(try site.publish("press/a", as: "press-1").isDone)
        let other = try Authority("Other CA", in: site.rig)
        try other.issue("server", to: "server")
        #expect(try site.command("reload").hasPrefix("reloaded"))
        #expect(try !site.publish("press/a", as: "press-1").isDone, "the client does not trust the new one")
        #expect(try site.publish("press/a", as: "press-1", trusting: other).isDone)
        #expect(screen.process.ended(within: 20) == .exited(0), "it was connected all the while")
        #expect(site.stop() == .exited(0))
    }
}

/// A gateway with a listener that asks for certificates, a WebSocket one that does too, and a plain one.
private final class Site {
    struct Answer {
        let isDone: Bool
        let text: String
    }

    let rig: Rig
    let authority: Authority
    let port = FreePort.next()
    let webPort = FreePort.next()
    let plainPort = FreePort.next()
    private let configuration: String
    private var process: ChildProcess?

    init(minimum: String = "1.2") throws {
        rig = try Rig()
        authority = try Authority("Plant CA", in: rig)
        for name in ["server", "press-1", "press-2", "oven-1"] { try authority.issue(name, to: name) }
        let place = rig.place
        let security =
            "tls: { certificate: \(place.file("server.pem")), key: \(place.file("server.key")), "
            + "client-ca: \(authority.file), require-certificate: true, minimum: \(minimum) }"
        var lines = [
            "gateway: plant", "state: \(place.file("state"))", "listeners:",
            "  - address: 127.0.0.1:\(plainPort)",
            "  - { address: \"127.0.0.1:\(port)\", \(security) }",
            "  - { address: \"127.0.0.1:\(webPort)\", protocol: websocket, \(security) }",
        ]
        if place.isVolatile { lines.append("journal: { allow-volatile: true }") }
        configuration = try place.write(lines.joined(separator: "\n") + "\n", to: "tidegate.yaml")
        let profiles = [
            "press": """
            order: 1
            match: { certificate-subject: "CN=press-*,O=Plant 7", certificate-issuer: "*CN=Plant CA*" }
            publish: { allow: [ "press/#", "own/${clientid}" ] }
            """,
            "issued":
                "order: 3\nmatch: { certificate-issuer: \"CN=Plant CA,*\" }\npublish: { allow: \"issued/#\" }",
            "plain":
                "order: 2\nmatch: { listener: \"127.0.0.1:\(plainPort)\" }\npublish: { allow: \"plain/#\" }",
            "default": "publish: { deny: \"#\" }",
        ]
        for (name, text) in profiles {
            _ = try place.write("profile: \(name)\n\(text)\n", to: "device-profiles/\(name).yaml")
        }
    }

    deinit { process?.kill() }

    func start() throws {
        let child = try ChildProcess(
            Rig.executable, ["run", "--config", configuration], log: rig.place.file("gateway.log"))
        process = child
        let isServing = waitUpTo(20) { child.log.contains("serving MQTT") || !child.isRunning }
        try #require(isServing && child.isRunning, "\(child.log)")
    }

    func stop() -> ChildProcess.Ending? {
        process?.send(SIGTERM)
        return process?.ended(within: 10)
    }

    func command(_ words: String...) throws -> String {
        try rig.command(arguments: words + ["--config", configuration]).text
    }

    func files(of name: String) -> [String] { ["pem", "key"].map { rig.place.file("\(name).\($0)") } }

    /// What mosquitto's tools need to connect.
    ///
    /// - Parameter name: of a certificate that was issued; nil for a connection without TLS.
    func words(as name: String?, port: UInt16, trusting other: Authority? = nil, identifier: String? = nil)
        -> [String]
    {
        let common = ["-h", "localhost", "-p", "\(port)", "-V", "5", "-i", identifier ?? name ?? "plain"]
        guard let name else { return common }
        let secure = common + ["--cafile", (other ?? authority).file]
        let identity = files(of: name)
        guard FileManager.default.fileExists(atPath: identity[0]) else { return secure }
        return secure + ["--cert", identity[0], "--key", identity[1]]
    }

    func publish(
        _ topic: String, as name: String?, port: UInt16? = nil, _ message: [String] = ["-m", "x"],
        trusting other: Authority? = nil, identifier: String? = nil
    ) throws -> Answer {
        let words = words(as: name, port: port ?? self.port, trusting: other, identifier: identifier)
        let tool = try rig.tool("/usr/bin/mosquitto_pub", words + ["-q", "1", "-t", topic] + message)
        let ending = tool.process.ended(within: 15)
        let text = tool.output + tool.process.log
        return Answer(isDone: ending == .exited(0) && !text.contains("Not authorized"), text: text)
    }

    /// What a command says while a client is connected.
    func answer(to command: [String], whileConnectedAs name: String) throws -> String {
        let screen = try rig.tool(
            "/usr/bin/mosquitto_sub", words(as: name, port: port) + ["-t", "press/#", "-W", "20"])
        defer { screen.process.kill() }
        var text = ""
        _ = waitUpTo(10) {
            do { text = try rig.command(arguments: command + ["--config", configuration]).text } catch {
                return true
            }
            return text.contains(name)
        }
        return text
    }
}

/// A certificate authority, made with `openssl` in the test's own directory.
private struct Authority {
    let file: String
    private let key: String
    private let rig: Rig

    init(_ name: String, in rig: Rig) throws {
        self.rig = rig
        let stem = "authority-\(UInt32.random(in: 0 ... .max))"
        file = rig.place.file("\(stem).pem")
        key = rig.place.file("\(stem).key")
        try rig.run(
            "/usr/bin/openssl",
            [
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "30",
            ]
                + ["-subj", "/O=Plant 7/CN=\(name)", "-keyout", key, "-out", file])
    }

    /// Writes `FILE.pem` and `FILE.key`: good for this machine and for a device of that name.
    func issue(_ name: String, to file: String) throws {
        let request = rig.place.file("\(file).csr")
        try rig.run(
            "/usr/bin/openssl",
            ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
                + [
                    "-subj", "/O=Plant 7/CN=\(name)", "-keyout", rig.place.file("\(file).key"), "-out",
                    request,
                ])
        let extensions = try rig.place.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n", to: "\(file).ext")
        try rig.run(
            "/usr/bin/openssl",
            [
                "x509", "-req", "-in", request, "-CA", self.file, "-CAkey", key, "-CAcreateserial", "-days",
                "30",
            ]
                + ["-extfile", extensions, "-out", rig.place.file("\(file).pem")])
    }
}
