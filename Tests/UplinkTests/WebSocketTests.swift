import Foundation
import GatewayCore
import MQTT
import NIOCore
import NIOEmbedded
import NIOWebSocket
import Testing
import Workbench

@testable import Uplink

/// MQTT over WebSocket [MQTT5-6.0.0-1…4], against mosquitto and against frames by hand; and the tunnel of a proxy.
@Suite("The uplink over WebSocket and through a proxy", .serialized)
struct WebSocketTests {
    private func plan(_ address: UplinkAddress, _ version: ProtocolVersion = .v5_0) -> UplinkPlan {
        UplinkPlan(
            name: "cloud", addresses: [address], clientIdentifier: "gw", version: version,
            backoffMinMilliseconds: 50, backoffMaxMilliseconds: 200)
    }

    private func firstLoss(_ plan: UplinkPlan) async throws -> LinkLoss {
        let link = Probe(plan)
        try await link.perform(.open(cleanStart: true))
        let loss = try await link.lost()
        try await link.stop()
        return loss
    }

    @Test(
        "Messages of any size pass both ways in frames", .timeLimit(.minutes(10)),
        arguments: [ProtocolVersion.v3_1_1, .v5_0], [false, true])
    func roundTrip(version: ProtocolVersion, isSecure: Bool) async throws {
        let ours = try Certificates()
        let broker = try Mosquitto(
            overWebSocket: true, lines: isSecure ? ours.lines(try ours.issueServer()) : [])
        var plan = plan(
            UplinkAddress(isSecure ? .wss : .ws, host: "localhost", port: broker.webSocketPort), version)
        plan.security = UplinkSecurity(authorityFile: ours.authorityFile)
        plan.clientIdentifier = "receiver"
        plan.subscriptions = [UplinkTests.plan("in/#")]
        let receiver = try await Probe.connected(plan)
        plan.clientIdentifier = "sender"
        plan.subscriptions = []
        let sender = try await Probe.connected(plan)
        for (n, size) in [0, 100, 200, 70_000, 300_000].enumerated() {
            let message = ApplicationMessage(
                topic: Array("in/\(n)".utf8), payload: (0..<size).map { UInt8(truncatingIfNeeded: $0 / 7) })
            try await sender.perform(
                .send(
                    .publish(
                        Publish(
                            message: message, qos: .atLeastOnce, id: PacketIdentifier(rawValue: UInt16(n + 1))
                        ))))
            let publish = try await receiver.receivedPublish()
            #expect(publish.message == message)
        }
        try await receiver.stop()
        try await sender.stop()
    }

    @Test("A server that speaks HTTP and no WebSocket is told apart", .timeLimit(.minutes(10)))
    func notAWebSocket() async throws {
        for (answer, fault) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "it answers 404 Not Found"),
            ("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n", "its answer is not that of a WebSocket"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "what it answers is not HTTP"),
            (String(repeating: "x", count: 20_000), "its answer has no end"),
        ] {
            let server = try await TestServer { _ in Array(answer.utf8) }
            let address = UplinkAddress(.ws, host: "127.0.0.1", port: server.port, path: "/a?b=c")
            #expect(try await firstLoss(plan(address)) == .webSocketRefused(fault))
            let request = String(decoding: server.bytes, as: UTF8.self)
            #expect(request.hasPrefix("GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:\(server.port)\r\n"))
            #expect(request.contains("Sec-WebSocket-Protocol: mqtt\r\n"))
            #expect(request.hasSuffix("\r\n\r\n"), "nothing of MQTT before the answer")
            try await server.close()
        }
    }

    // MARK: Frames

    /// A channel with the framing alone; what it passes on, and what it writes.
    private func framing() -> EmbeddedChannel {
        EmbeddedChannel(handlers: [WebSocketFrameEncoder(), WebSocketCarrying()])
    }

    private func passed(_ channel: EmbeddedChannel) throws -> [UInt8] {
        var bytes: [UInt8] = []
        while let part = try channel.readInbound(as: ByteBuffer.self) { bytes += part.readableBytesView }
        return bytes
    }

    @Test("[MQTT5-6.0.0-2] Packets and frames need not be cut alike", arguments: [1, 2, 3, 1000])
    func cutUp(piece: Int) throws {
        let channel = framing()
        // "ab" and "c" as one message of two fragments with a Ping between them, then one of 126 and one of 65 536.
        var bytes: [UInt8] = [0x02, 2, 1, 2, 0x89, 1, 9, 0x80, 1, 3, 0x82, 126, 0, 126]
        bytes += [UInt8](repeating: 4, count: 126)
        bytes += [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0] + [UInt8](repeating: 5, count: 65_536)
        var got: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: piece) {
            try channel.writeInbound(ByteBuffer(bytes: bytes[start..<min(start + piece, bytes.count)]))
            got += try passed(channel)
        }
        let expected = [1, 2, 3] + [UInt8](repeating: 4, count: 126) + [UInt8](repeating: 5, count: 65_536)
        #expect(got == expected)
        // Pong, masked.
        let pong = try #require(try channel.readOutbound(as: ByteBuffer.self)).readableBytesView
        #expect(Array(pong.prefix(2)) == [0x8A, 0x81])
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    @Test(
        "What a server must not send ends the connection (RFC 6455, 5)",
        arguments: [
            [0x82, 0x81, 0, 0, 0, 0, 1],  // Masked.
            [0x81, 1, 0x61],  // [MQTT5-6.0.0-1] Text.
            [0xC2, 1, 1],  // A reserved bit.
            [0x80, 1, 1],  // A continuation of nothing.
            [0x02, 1, 1, 0x82, 1, 1],  // A message inside a message.
            [0x09, 0],  // A fragmented Ping.
            [0x89, 126, 0, 126],  // A long Ping.
            [0x83, 0],  // An opcode that is none.
            [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],  // An impossible length.
        ] as [[UInt8]])
    func rules(bytes: [UInt8]) throws {
        let channel = framing()
        #expect(throws: LinkLossError.self) { try channel.writeInbound(ByteBuffer(bytes: bytes)) }
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    @Test("A Close is answered, and the connection closed")
    func close() throws {
        let channel = framing()
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        try channel.writeInbound(ByteBuffer(bytes: [0x88, 2, 3, 0xE8, 0x82, 1, 1] as [UInt8]))
        #expect(try passed(channel) == [])
        let answer = try #require(try channel.readOutbound(as: ByteBuffer.self)).readableBytesView
        #expect(Array(answer.prefix(2)) == [0x88, 0x82])
        #expect(!channel.isActive)
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    // MARK: Proxies

    @Test(
        "A tunnel through an HTTP proxy, which looks up the name", .timeLimit(.minutes(10)),
        arguments: UplinkAddress.Scheme.allCases)
    func tunnel(scheme: UplinkAddress.Scheme) async throws {
        let ours = try Certificates()
        let address = UplinkAddress(scheme, host: "broker.example", port: 0)
        let identity = try ours.issue("x", for: ["DNS:broker.example"])
        let broker = try Mosquitto(
            overWebSocket: address.isWebSocket, lines: address.isSecure ? ours.lines(identity) : [])
        let port = address.isWebSocket ? broker.webSocketPort : broker.port
        // "user:pass word"
        let proxy = try await TestProxy(credentials: "dXNlcjpwYXNzIHdvcmQ=")
        var plan = plan(UplinkAddress(scheme, host: "broker.example", port: port))
        plan.proxy = UplinkProxy(host: "127.0.0.1", port: proxy.port, userName: "user", password: "pass word")
        plan.security = UplinkSecurity(authorityFile: ours.authorityFile)
        let link = try await Probe.connected(plan)
        try await link.publish("t")
        try await link.stop()
        #expect(
            proxy.heads == [
                "CONNECT broker.example:\(port) HTTP/1.1\r\nHost: broker.example:\(port)\r\n"
                    + "Proxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n\r\n"
            ])
        try await proxy.close()
    }

    @Test("A proxy that refuses is told apart from the cloud", .timeLimit(.minutes(10)))
    func refusingProxy() async throws {
        let proxy = try await TestProxy(credentials: "nobody")
        var plan = plan(UplinkAddress(host: "broker.example", port: 1))
        plan.proxy = UplinkProxy(host: "127.0.0.1", port: proxy.port)
        #expect(try await firstLoss(plan) == .proxyRefused("it wants another user name or password (407)"))
        try await proxy.close()
        let open = try await TestProxy()
        plan.proxy = UplinkProxy(host: "127.0.0.1", port: open.port)
        plan.addresses[0].port = Int(FreePort.next())
        #expect(try await firstLoss(plan) == .proxyRefused("it answers 502 Bad Gateway"))
        try await open.close()
    }

    @Test("Through a proxy a numeric address cannot be checked, and is not trusted", .timeLimit(.minutes(10)))
    func numericThroughProxy() async throws {
        let proxy = try await TestProxy()
        let server = try await TestServer()
        var plan = plan(UplinkAddress(.mqtts, host: "127.0.0.1", port: server.port))
        plan.proxy = UplinkProxy(host: "127.0.0.1", port: proxy.port)
        guard case .insecure = try await firstLoss(plan) else {
            Issue.record("trusted")
            return
        }
        #expect(server.bytes == [])
        try await proxy.close()
        try await server.close()
    }
}
