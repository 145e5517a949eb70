import Foundation
import GatewayCore
import MQTT
import NIOCore
import NIOPosix
import Testing

import Workbench

@testable import Uplink

/// The link on a real network: the Debian package's mosquitto on loopback, stopped and started.
@Suite("The uplink against mosquitto", .serialized)
struct UplinkLinkTests {
    static let versions: [ProtocolVersion] = [.v3_1_1, .v5_0]

    @Test("Publishes at each QoS and mosquitto has it", .timeLimit(.minutes(10)), arguments: versions)
    func publishes(version: ProtocolVersion) async throws {
        let broker = try Mosquitto()
        let link = Probe(broker.plan(version))
        try await link.perform(.open(cleanStart: true))
        let terms = try await link.connected()
        #expect(terms.version == version && !terms.sessionPresent)

        try await link.perform(
            .send(.publish(Publish(message: text("out/0", "zero"), retain: true))),
            .send(
                .publish(Publish(message: text("out/1", "one"), qos: .atLeastOnce, id: 0x11, retain: true))),
            .send(
                .publish(Publish(message: text("out/2", "two"), qos: .exactlyOnce, id: 0x8000, retain: true)))
        )
        // PUBACK and PUBREC may come in either order.
        let answers = [try await link.received(), try await link.received()]
        #expect(answers.contains { $0.isPuback(0x11) })
        #expect(answers.contains { $0.isPubrec(0x8000) })
        try await link.perform(.send(.pubrel(Acknowledgement(0x8000))))
        #expect(try await link.received() == .pubcomp(Acknowledgement(0x8000)))

        let heard = try broker.run(
            "mosquitto_sub", "-t", "out/#", "-q", "2", "-C", "3", "-W", "5", "-F", "%t %q %p")
        #expect(heard.split(separator: "\n").sorted() == ["out/0 0 zero", "out/1 1 one", "out/2 2 two"])
        try await link.stop()
    }

    @Test(
        "Receives at each QoS what mosquitto's clients publish", .timeLimit(.minutes(10)), arguments: versions
    )
    func receives(version: ProtocolVersion) async throws {
        let broker = try Mosquitto()
        let link = try await Probe.connected(broker.plan(version) { $0.subscriptions = [plan("in/#")] })
        for qos in [QoS.atMostOnce, .atLeastOnce, .exactlyOnce] {
            _ = try broker.run(
                "mosquitto_pub", "-t", "in/\(qos.rawValue)", "-m", "hello", "-q", "\(qos.rawValue)")
            let publish = try await link.receivedPublish()
            #expect(publish.qos == qos && publish.message == text("in/\(qos.rawValue)", "hello"))
            guard let id = publish.id else { continue }
            if qos == .exactlyOnce {
                try await link.perform(.send(.pubrec(Acknowledgement(id))))
                #expect(try await link.received() == .pubrel(Acknowledgement(id)))
                try await link.perform(.send(.pubcomp(Acknowledgement(id))))
            } else {
                try await link.perform(.send(.puback(Acknowledgement(id))))
            }
        }
        try await link.stop()
    }

    @Test("MQTT 5 properties and expiry pass in both directions", .timeLimit(.minutes(10)))
    func properties() async throws {
        let broker = try Mosquitto()
        let receiver = try await Probe.connected(
            broker.plan(.v5_0) {
                $0.subscriptions = [plan("p/#")]
                $0.clientIdentifier = "receiver"
            })
        let sender = try await Probe.connected(broker.plan(.v5_0))
        let sent = Publish(message: message("p/1"), qos: .atLeastOnce, id: 1, messageExpirySeconds: 500)
        try await sender.perform(.send(.publish(sent)))
        let received = try await receiver.receivedPublish()
        #expect(received.message == sent.message)
        #expect((received.messageExpirySeconds ?? 0) > 490)
        try await sender.stop()
        try await receiver.stop()
    }

    @Test(
        "What we publish does not come back through our own subscription", .timeLimit(.minutes(10)),
        arguments: versions)
    func noLoop(version: ProtocolVersion) async throws {
        let broker = try Mosquitto()
        let link = try await Probe.connected(broker.plan(version) { $0.subscriptions = [plan("#")] })
        try await link.perform(
            .send(.publish(Publish(message: text("loop", "x"), qos: .atLeastOnce, id: 1))))
        #expect(try await link.received().isPuback(1))
        _ = try broker.run("mosquitto_pub", "-t", "other", "-m", "y", "-q", "0")
        let publish = try await link.receivedPublish()
        #expect(Array(publish.message.topic) == Array("other".utf8))
        try await link.stop()
    }

    @Test(
        "[MQTT5-3.2.2-3] Session Present: false when new or after a broker that forgot, true after a cut",
        .timeLimit(.minutes(10)), arguments: versions)
    func sessionPresent(version: ProtocolVersion) async throws {
        let broker = try Mosquitto()
        let link = Probe(broker.plan(version))
        try await link.perform(.open(cleanStart: true))
        #expect(try await link.connected().sessionPresent == false)
        try await link.perform(.reconnect)
        try await link.disconnected()
        #expect(try await link.connected().sessionPresent == true)
        broker.stop()
        try await link.disconnected()
        try await Task.sleep(for: .milliseconds(500))
        try broker.start()
        #expect(try await link.connected().sessionPresent == false)
        try await link.stop()
        try await link.disconnected()

        // The cloud still has a session; a gateway that lost its own state must not continue it.
        let replaced = Probe(broker.plan(version))
        try await replaced.perform(.open(cleanStart: true))
        #expect(try await replaced.connected().sessionPresent == false)
        try await replaced.stop()
    }

    @Test(
        "A QoS 2 handshake cut before PUBCOMP ends with a resumed PUBREL", .timeLimit(.minutes(10)),
        arguments: versions)
    func resumedHandshake(version: ProtocolVersion) async throws {
        let broker = try Mosquitto()
        let link = try await Probe.connected(broker.plan(version))
        let publish = Publish(message: text("cut", "once"), qos: .exactlyOnce, id: 0x8007, retain: true)
        try await link.perform(.send(.publish(publish)))
        #expect(try await link.received().isPubrec(0x8007))
        try await link.perform(.reconnect)
        try await link.disconnected()
        #expect(try await link.connected().sessionPresent)
        try await link.perform(.send(.pubrel(Acknowledgement(0x8007))))
        #expect(try await link.received() == .pubcomp(Acknowledgement(0x8007)))
        #expect(try broker.run("mosquitto_sub", "-t", "cut", "-C", "1", "-W", "5") == "once\n")
        try await link.stop()
    }

    @Test(
        "A QoS 2 message cut before PUBREC arrives again with DUP", .timeLimit(.minutes(10)),
        arguments: versions)
    func resentByCloud(version: ProtocolVersion) async throws {
        let broker = try Mosquitto()
        let link = try await Probe.connected(broker.plan(version) { $0.subscriptions = [plan("in/#")] })
        _ = try broker.run("mosquitto_pub", "-t", "in/2", "-m", "once", "-q", "2")
        var first = try await link.receivedPublish()
        try await link.perform(.reconnect)
        try await link.disconnected()
        #expect(try await link.connected().sessionPresent)
        first.duplicate = true
        #expect(try await link.received() == .publish(first))
        try await link.stop()
    }

    @Test("A 3.1.1 broker that hangs up on the bridge bit is met without it", .timeLimit(.minutes(10)))
    func bridgeBitRefused() async throws {
        let server = try await StrictBroker.bind(readsOn: true)
        let link = Probe(try StrictBroker.plan(of: server))
        try await link.perform(.open(cleanStart: false))
        #expect(try await link.connected().version == .v3_1_1)
        try await link.stop()
        try await server.close()
    }

    @Test("A mebibyte passes both ways over TCP", .timeLimit(.minutes(10)), arguments: versions)
    func large(version: ProtocolVersion) async throws {
        let broker = try Mosquitto()
        let receiver = try await Probe.connected(
            broker.plan(version) {
                $0.subscriptions = [plan("big")]
                $0.clientIdentifier = "receiver"
            })
        let sender = try await Probe.connected(broker.plan(version))
        let big = ApplicationMessage(
            topic: Array("big".utf8), payload: (0..<1_048_577).map { UInt8(truncatingIfNeeded: $0 / 3) })
        try await sender.perform(.send(.publish(Publish(message: big, qos: .atLeastOnce, id: 1))))
        let publish = try await receiver.receivedPublish()
        #expect(publish.message == big)
        #expect(try await sender.received().isPuback(1))
        try await sender.stop()
        try await receiver.stop()
    }

    @Test(
        "A message larger than we take does not end the connection, nor stand in the way of the next",
        .timeLimit(.minutes(10)), arguments: versions)
    func tooLarge(version: ProtocolVersion) async throws {
        let broker = try Mosquitto()
        let receiver = Probe(
            broker.plan(version) {
                $0.subscriptions = [plan("t/#")]
                $0.maximumPacketSize = 10_000
            })
        try await receiver.perform(.open(cleanStart: true))
        _ = try await receiver.connected()
        let sender = Probe(broker.plan(version) { $0.clientIdentifier = "sender" })
        try await sender.perform(.open(cleanStart: true))
        _ = try await sender.connected()
        for (n, bytes) in [(1, 100_000), (2, 10)] {
            let message = ApplicationMessage(
                topic: Array("t/\(n)".utf8), payload: [UInt8](repeating: 0x30, count: bytes))
            let id = PacketIdentifier(rawValue: UInt16(n))
            try await sender.perform(.send(.publish(Publish(message: message, qos: .atLeastOnce, id: id))))
        }
        // A cloud of MQTT 5 knows better than to send it [MQTT5-3.1.2-25].
        if version < .v5_0 { #expect(try await receiver.receivedTooLarge() == Array("t/1".utf8)) }
        guard case .publish(let publish) = try await receiver.received() else {
            Issue.record("no PUBLISH")
            return
        }
        #expect(publish.message.topic.elementsEqual("t/2".utf8))
        try await sender.stop()
        try await receiver.stop()
    }

    @Test("A broker that accepts and stays silent is given up and tried again", .timeLimit(.minutes(10)))
    func silent() async throws {
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(server.localAddress?.port)
        var plan = UplinkPlan(
            name: "cloud", addresses: [UplinkAddress(host: "127.0.0.1", port: port)], clientIdentifier: "gw")
        plan.connectTimeoutSeconds = 1
        plan.backoffMinMilliseconds = 10
        let link = Probe(plan)
        try await link.perform(.open(cleanStart: false))
        try await link.noticed(.lost(.noConnack))
        try await link.noticed(.connecting(UplinkAddress(host: "127.0.0.1", port: port)))
        try await link.noticed(.lost(.noConnack))
        try await link.stop()
        try await server.close()
    }

    @Test("The core hears that the cloud does not read", .timeLimit(.minutes(10)))
    func slowCloud() async throws {
        let server = try await StrictBroker.bind(readsOn: false)
        let link = Probe(try StrictBroker.plan(of: server))
        try await link.perform(.open(cleanStart: false))
        _ = try await link.connected()
        let large = ApplicationMessage(topic: Array("t".utf8), payload: [UInt8](repeating: 0, count: 65_536))
        for _ in 0..<400 { try await link.perform(.send(.publish(Publish(message: large)))) }
        #expect(try await link.writability() == false)
        try await link.stop()
        try await server.close()
    }

    @Test("A refused password is reported with its reason", .timeLimit(.minutes(10)), arguments: versions)
    func refused(version: ProtocolVersion) async throws {
        let broker = try Mosquitto(anonymous: false)
        let link = Probe(broker.plan(version) { $0.userName = "nobody" })
        try await link.perform(.open(cleanStart: false))
        try await link.noticed(.lost(.refused(.notAuthorized)))
        try await link.stop()
    }

    @Test("Nobody listening: keeps trying until somebody does", .timeLimit(.minutes(10)))
    func nobodyThere() async throws {
        let broker = try Mosquitto()
        broker.stop()
        let link = Probe(broker.plan(.v5_0))
        try await link.perform(.open(cleanStart: true))
        try await Task.sleep(for: .milliseconds(300))
        try broker.start()
        #expect(try await link.connected().sessionPresent == false)
        try await link.stop()
    }
}

private func text(_ topic: String, _ payload: String) -> ApplicationMessage {
    ApplicationMessage(topic: Array(topic.utf8), payload: Array(payload.utf8))
}

extension Packet {
    /// Whatever the Reason Code says beyond success: mosquitto reports "no matching subscribers".
    fileprivate func isPuback(_ id: PacketIdentifier) -> Bool {
        if case .puback(let ack) = self { ack.id == id && !ack.reason.isError } else { false }
    }
    fileprivate func isPubrec(_ id: PacketIdentifier) -> Bool {
        if case .pubrec(let ack) = self { ack.id == id && !ack.reason.isError } else { false }
    }
}

/// Takes Protocol Level 4 and nothing else.
private final class StrictBroker: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let readsOn: Bool

    private init(readsOn: Bool) { self.readsOn = readsOn }

    /// - Parameter readsOn: whether anything is read after CONNECT.
    static func bind(readsOn: Bool) async throws -> any Channel {
        try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(StrictBroker(readsOn: readsOn))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    static func plan(of server: any Channel) throws -> UplinkPlan {
        UplinkPlan(
            name: "cloud",
            addresses: [UplinkAddress(host: "127.0.0.1", port: try #require(server.localAddress?.port))],
            clientIdentifier: "gw", version: .v3_1_1, backoffMinMilliseconds: 10)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        // Fixed header 2 bytes, "MQTT" 6 bytes, then the level.
        let level = unwrapInboundIn(data).getInteger(at: 8, as: UInt8.self)
        guard level == 4 else { return context.close(promise: nil) }
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: [0x20, 2, 0, 0])), promise: nil)
        if !readsOn {
            context.channel.setOption(.autoRead, value: false).assumeIsolated().whenFailure {
                Issue.record($0)
            }
        }
    }
}
