import Foundation
import GatewayCore
import MQTT
import Testing
import Workbench

@testable import Uplink

/// TLS against mosquitto and against servers that are not what they should be. Names, dates and signatures of
/// certificates are BoringSSL's to check; here it is seen that they are checked, and what is said of it.
@Suite("The uplink over TLS", .serialized)
struct SecurityTests {
    static let versions: [ProtocolVersion] = [.v3_1_1, .v5_0]

    private func plan(
        _ port: Int, host: String = "localhost", _ security: UplinkSecurity,
        version: ProtocolVersion = .v5_0
    ) -> UplinkPlan {
        UplinkPlan(
            name: "cloud", addresses: [UplinkAddress(.mqtts, host: host, port: port)], security: security,
            clientIdentifier: "gw", version: version, backoffMinMilliseconds: 50, backoffMaxMilliseconds: 200)
    }

    private func firstLoss(_ plan: UplinkPlan) async throws -> LinkLoss {
        let link = Probe(plan)
        try await link.perform(.open(cleanStart: true))
        let loss = try await link.lost()
        try await link.stop()
        return loss
    }

    @Test(
        "Publishes to a cloud that shows the right certificate and wants ours", .timeLimit(.minutes(10)),
        arguments: versions, [UplinkSecurity.MinimumVersion.tls12, .tls13])
    func mutual(version: ProtocolVersion, minimum: UplinkSecurity.MinimumVersion) async throws {
        let ours = try Certificates()
        let client = try ours.issue("gw")
        let broker = try Mosquitto(lines: ours.lines(try ours.issueServer(), asksForCertificates: true))
        let link = try await Probe.connected(
            plan(
                broker.port,
                UplinkSecurity(
                    authorityFile: ours.authorityFile, certificateFile: client.certificate,
                    keyFile: client.key,
                    minimumVersion: minimum), version: version))
        try await link.publish("t")
        try await link.stop()
    }

    @Test("A numeric address is checked against the certificate's addresses", .timeLimit(.minutes(10)))
    func numeric() async throws {
        let ours = try Certificates()
        let broker = try Mosquitto(lines: ours.lines(try ours.issueServer()))
        let security = UplinkSecurity(authorityFile: ours.authorityFile)
        let link = try await Probe.connected(plan(broker.port, host: "127.0.0.1", security))
        try await link.stop()
        let other = try Certificates()
        let server = try await TestServer.secure(try other.issue("x", for: ["IP:10.0.0.1"]))
        let loss = try await firstLoss(
            plan(server.port, host: "127.0.0.1", UplinkSecurity(authorityFile: other.authorityFile)))
        #expect(loss == .wrongName(expected: "127.0.0.1"))
        #expect(server.bytes == [])
        try await server.close()
    }

    @Test("An authority that is not ours: said so, and nothing of MQTT is sent", .timeLimit(.minutes(10)))
    func wrongAuthority() async throws {
        let ours = try Certificates()
        let others = try Certificates("Somebody")
        let server = try await TestServer.secure(try others.issueServer())
        let loss = try await firstLoss(plan(server.port, UplinkSecurity(authorityFile: ours.authorityFile)))
        #expect(
            loss
                == .untrusted(
                    "the cloud's certificate does not lead to an authority that is trusted in \(ours.authorityFile)"
                ))
        #expect(server.bytes == [] && server.connections > 0)
        try await server.close()
    }

    @Test("Without a file of authorities the system's are trusted, and nobody else", .timeLimit(.minutes(10)))
    func systemRoots() async throws {
        let ours = try Certificates()
        let server = try await TestServer.secure(try ours.issueServer())
        guard case .untrusted = try await firstLoss(plan(server.port, UplinkSecurity())) else {
            Issue.record("trusted")
            return
        }
        #expect(server.bytes == [] && server.connections > 0)
        try await server.close()
    }

    @Test("An expired certificate: said with its date, and nothing of MQTT is sent", .timeLimit(.minutes(10)))
    func expired() async throws {
        let ours = try Certificates()
        let server = try await TestServer.secure(try ours.issueServer(hasExpired: true))
        let loss = try await firstLoss(plan(server.port, UplinkSecurity(authorityFile: ours.authorityFile)))
        guard case .untrusted(let words) = loss else {
            Issue.record("\(loss)")
            return
        }
        #expect(words.hasPrefix("the cloud's certificate expired on 2020-12-31 (here it is 2"))
        #expect(server.bytes == [] && server.connections > 0)
        try await server.close()
    }

    @Test("A certificate for another name: said so, and nothing of MQTT is sent", .timeLimit(.minutes(10)))
    func wrongName() async throws {
        let ours = try Certificates()
        let server = try await TestServer.secure(try ours.issue("x", for: ["DNS:other.example"]))
        let security = UplinkSecurity(authorityFile: ours.authorityFile)
        #expect(try await firstLoss(plan(server.port, security)) == .wrongName(expected: "localhost"))
        #expect(server.bytes == [] && server.connections > 0)
        try await server.close()
    }

    @Test("server-name is asked for and checked instead of the host", .timeLimit(.minutes(10)))
    func serverName() async throws {
        let ours = try Certificates()
        let identity = try ours.issue("x", for: ["DNS:broker.example"])
        let broker = try Mosquitto(lines: ours.lines(identity))
        let link = try await Probe.connected(
            plan(
                broker.port, host: "127.0.0.1",
                UplinkSecurity(authorityFile: ours.authorityFile, serverName: "broker.example")))
        try await link.stop()
    }

    @Test(
        "A revoked certificate of ours: the cloud's refusal is said", .timeLimit(.minutes(10)),
        arguments: ["tlsv1.2", "tlsv1.3"])
    func revoked(tls: String) async throws {
        let ours = try Certificates()
        let (good, bad) = (try ours.issue("gw"), try ours.issue("gw"))
        try ours.revoke(bad)
        try ours.writeRevocations()
        let broker = try Mosquitto(
            lines: ours.lines(try ours.issueServer(), asksForCertificates: true)
                + ["crlfile \(ours.revocationFile)", "tls_version \(tls)"])
        func security(_ identity: Certificates.Identity?) -> UplinkSecurity {
            UplinkSecurity(
                authorityFile: ours.authorityFile, certificateFile: identity?.certificate,
                keyFile: identity?.key)
        }
        let link = try await Probe.connected(plan(broker.port, security(good)))
        try await link.stop()
        #expect(try await firstLoss(plan(broker.port, security(bad))) == .certificateRefused("it is revoked"))
        let none = try await firstLoss(plan(broker.port, security(nil)))
        #expect(none.description.contains("certificate"), "\(none)")
    }

    @Test("Our certificate of another authority is refused, and that is said", .timeLimit(.minutes(10)))
    func strangeClient() async throws {
        let ours = try Certificates()
        let others = try Certificates("Somebody")
        let client = try others.issue("gw")
        let broker = try Mosquitto(lines: ours.lines(try ours.issueServer(), asksForCertificates: true))
        let loss = try await firstLoss(
            plan(
                broker.port,
                UplinkSecurity(
                    authorityFile: ours.authorityFile, certificateFile: client.certificate,
                    keyFile: client.key)))
        #expect(loss == .certificateRefused("the cloud does not know the authority that signed it"))
    }

    @Test(
        "ALPN: the protocols are asked for, and one has to be agreed to", .timeLimit(.minutes(10)),
        arguments: [["mqtt"], [], ["h2"]])
    func alpn(offered: [String]) async throws {
        let ours = try Certificates()
        let server = try await TestServer.secure(try ours.issueServer(), protocols: offered) { _ in
            TestServer.connack
        }
        let plan = plan(
            server.port,
            UplinkSecurity(authorityFile: ours.authorityFile, protocols: ["x-amzn-mqtt-ca", "mqtt"]))
        if offered == ["mqtt"] {
            let link = Probe(plan)
            try await link.perform(.open(cleanStart: true))
            _ = try await link.connected()
            try await link.stop()
        } else {
            #expect(try await firstLoss(plan) == .protocolNotAgreed)
            #expect(server.bytes == [])
        }
        try await server.close()
    }

    @Test("A server without TLS is sent a ClientHello and nothing in clear", .timeLimit(.minutes(10)))
    func noTLS() async throws {
        let server = try await TestServer(answer: { _ in TestServer.connack })
        let plan = plan(server.port, UplinkSecurity())
        let loss = try await firstLoss(plan)
        #expect(loss == .insecure("what answers there does not speak TLS"))
        // A handshake record, with no word of MQTT in it.
        #expect(server.bytes.first == 0x16)
        #expect(!String(decoding: server.bytes, as: UTF8.self).contains("MQTT"))
        try await server.close()
        // One that hangs up.
        let rude = try await TestServer(answer: { _ in nil })
        let rudeLoss = try await firstLoss(self.plan(rude.port, UplinkSecurity()))
        #expect(rudeLoss == .insecure("the connection was closed during the TLS handshake"))
        try await rude.close()
    }

    @Test("TLS 1.2 is not spoken where 1.3 is the least", .timeLimit(.minutes(10)))
    func minimumVersion() async throws {
        let ours = try Certificates()
        let server = try await TestServer.secure(try ours.issueServer(), speaksTLS13: false)
        let loss = try await firstLoss(
            plan(server.port, UplinkSecurity(authorityFile: ours.authorityFile, minimumVersion: .tls13)))
        #expect(loss == .insecure("the cloud speaks no version of TLS that is allowed here"))
        #expect(server.bytes == [])
        try await server.close()
    }

    @Test("A server that accepts and is silent does not hold up the next attempt", .timeLimit(.minutes(10)))
    func silentHandshake() async throws {
        let server = try await TestServer()
        var plan = plan(server.port, UplinkSecurity())
        plan.connectTimeoutSeconds = 1
        #expect(
            try await firstLoss(plan) == .unreachable("no answer from mqtts://localhost:\(server.port) (TLS)")
        )
        try await server.close()
    }

    @Test("Files that cannot be used are named", .timeLimit(.minutes(10)))
    func unusableFiles() async throws {
        let ours = try Certificates()
        let (one, other) = (try ours.issue("a"), try ours.issue("b"))
        func loss(_ security: UplinkSecurity) async throws -> LinkLoss {
            try await firstLoss(plan(1, security))
        }
        #expect(
            try await loss(UplinkSecurity(authorityFile: "/nonexistent/ca.pem"))
                == .securityUnusable("/nonexistent/ca.pem holds no certificate that can be read"))
        #expect(
            try await loss(UplinkSecurity(certificateFile: one.certificate, keyFile: one.certificate))
                == .securityUnusable("\(one.certificate) holds no private key that can be read"))
        #expect(
            try await loss(UplinkSecurity(certificateFile: one.certificate, keyFile: other.key))
                == .securityUnusable(
                    "the certificate in \(one.certificate) and the key in \(other.key) do not belong together"
                ))
    }

    // MARK: Files that change

    /// Replaces both files of an identity as a deployment tool does: by renaming.
    private func replace(_ old: Certificates.Identity, by new: Certificates.Identity) throws {
        for (there, from) in [(old.key, new.key), (old.certificate, new.certificate)] {
            try #require(rename(from, there) == 0)
        }
    }

    @Test("A new certificate of ours is shown without a restart, at once", .timeLimit(.minutes(10)))
    func renewed() async throws {
        let ours = try Certificates()
        let client = try ours.issue("one")
        // The cloud knows its clients by their certificates' names, and lets only one of them in.
        let broker = try Mosquitto(
            lines: ours.lines(try ours.issueServer(), asksForCertificates: true)
                + ["use_identity_as_username true"])
        let link = try await Probe.connected(
            plan(
                broker.port,
                UplinkSecurity(
                    authorityFile: ours.authorityFile, certificateFile: client.certificate,
                    keyFile: client.key)))
        try replace(client, by: try ours.issue("two"))
        try await link.noticed(.lost(.identityChanged))
        try await link.disconnected()
        #expect(try await link.connected().sessionPresent)
        try await link.publish("t")
        try await link.stop()
    }

    @Test("A new file of authorities is minded by the next connection", .timeLimit(.minutes(10)))
    func newAuthority() async throws {
        let (old, new) = (try Certificates("Old"), try Certificates("New"))
        let broker = try Mosquitto(lines: new.lines(try new.issueServer()))
        let link = Probe(plan(broker.port, UplinkSecurity(authorityFile: old.authorityFile)))
        try await link.perform(.open(cleanStart: true))
        guard case .untrusted = try await link.lost() else {
            Issue.record("trusted")
            return
        }
        try FileManager.default.removeItem(atPath: old.authorityFile)
        try FileManager.default.copyItem(atPath: new.authorityFile, toPath: old.authorityFile)
        _ = try await link.connected()
        try await link.stop()
    }

    @Test("Files that change into nonsense are said so, and what was read before is used further")
    func spoiled() throws {
        let ours = try Certificates()
        let client = try ours.issue("one")
        var files = SecurityFiles(
            UplinkSecurity(
                authorityFile: ours.authorityFile, certificateFile: client.certificate, keyFile: client.key))
        #expect(files.look() == .identityChanged)
        let context = try #require(files.context)
        #expect(files.look() == .unchanged)
        try Data("nonsense".utf8).write(to: URL(fileURLWithPath: client.certificate))
        let words = "\(client.certificate) holds no certificate that can be read"
        #expect(files.look() == .unusable(words))
        #expect(files.look() == .unchanged)
        #expect(files.context === context && files.fault == words)
        let next = try ours.issue("two")
        try replace(client, by: next)
        #expect(files.look() == .identityChanged)
        #expect(files.context !== context && files.fault == nil)
        try ours.touchAuthority()
        #expect(files.look() == .trustChanged)
    }
}
