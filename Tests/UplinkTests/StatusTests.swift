import GatewayCore
import MQTT
import Testing
import Workbench

@testable import Uplink

/// What a connection's beginning settles: our status message and Will, Topic Aliases, and terms that cost something.
@Suite("The uplink's status, aliases and terms", .serialized)
struct StatusTests {
    static let versions: [ProtocolVersion] = [.v3_1_1, .v5_0]
    static let status = UplinkStatus(
        topic: Array("site/gw/status".utf8), online: Array("1".utf8), offline: Array("0".utf8))

    private func published(
        _ payload: String, qos: QoS = .atLeastOnce, id: PacketIdentifier? = 0x7001, retain: Bool = true
    )
        -> Output
    {
        .wire(
            .publish(
                Publish(
                    message: ApplicationMessage(topic: Self.status.topic, payload: Array(payload.utf8)),
                    qos: qos,
                    id: id, retain: retain)))
    }

    // MARK: Status

    @Test("Our Will says offline, unless another Will is configured", arguments: versions)
    func will(version: ProtocolVersion) {
        var s = Scenario(version, opening: .resume(asBridge: false)) { $0.status = Self.status }
        let out = s.engineWrites(.connect(Connect(version: version, clientIdentifier: "x")))
        guard case .wire(.connect(let connect))? = out.first else {
            Issue.record("\(out)")
            return
        }
        #expect(
            connect.will
                == Will(
                    message: ApplicationMessage(topic: Self.status.topic, payload: Array("0".utf8)),
                    qos: .atLeastOnce, retain: true))
    }

    @Test("Online is the first message of a connection; its PUBACK is not the core's", arguments: versions)
    func online(version: ProtocolVersion) {
        var s = Scenario(version, opening: .resume(asBridge: false)) { $0.status = Self.status }
        let out = s.cloud(.connack(Connack(sessionPresent: true, reason: .success)))
        #expect(out.last == published("1"))
        #expect(s.cloud(.puback(Acknowledgement(0x7001))) == [])
    }

    @Test("[MQTT5-4.3.3-4] At QoS 2 the ledger makes the whole exchange")
    func exactlyOnce() {
        var s = Scenario(.v5_0, opening: .resume(asBridge: false)) {
            $0.status = Self.status
            $0.status?.qos = .exactlyOnce
        }
        let out = s.cloud(.connack(Connack(sessionPresent: true, reason: .success)))
        #expect(out.last == published("1", qos: .exactlyOnce))
        #expect(s.cloud(.pubrec(Acknowledgement(0x7001))) == [.wire(.pubrel(Acknowledgement(0x7001)))])
        #expect(s.cloud(.pubcomp(Acknowledgement(0x7001))) == [])
    }

    @Test("[MQTT5-3.2.2-11] [MQTT5-3.2.2-14] What the cloud does not take is not sent: QoS and RETAIN")
    func limits() {
        var s = Scenario(.v5_0, opening: .resume(asBridge: false)) { $0.status = Self.status }
        let connack = Connack(
            sessionPresent: true, reason: .success, maximumQoS: .atMostOnce, retainAvailable: false)
        let out = s.cloud(.connack(connack))
        #expect(out.last == published("1", qos: .atMostOnce, id: nil, retain: false))
        #expect(out.prefix(2) == [.notice(.maximumQoS(.atMostOnce)), .notice(.retainNotAvailable)])
    }

    @Test(
        "[MQTT5-3.3.4-7] The cloud's Receive Maximum counts the status message too",
        arguments: [(2, 1, QoS.atLeastOnce), (1, 1, .atMostOnce)] as [(UInt16, UInt16, QoS)])
    func receiveMaximum(allowed: UInt16, left: UInt16, qos: QoS) {
        var s = Scenario(.v5_0, opening: .resume(asBridge: false)) { $0.status = Self.status }
        let out = s.cloud(.connack(Connack(sessionPresent: true, reason: .success, receiveMaximum: allowed)))
        #expect(
            out.contains(
                .event(.connected(UplinkTerms(version: .v5_0, sessionPresent: true, receiveMaximum: left)))))
        #expect(out.last == published("1", qos: qos, id: qos == .atMostOnce ? nil : 0x7001))
    }

    @Test("A refused status message is said, and no more")
    func refusedStatus() {
        var s = Scenario(.v5_0, opening: .resume(asBridge: false)) { $0.status = Self.status }
        _ = s.cloud(.connack(Connack(sessionPresent: true, reason: .success)))
        #expect(
            s.cloud(.puback(Acknowledgement(0x7001, .notAuthorized))) == [
                .notice(.statusRefused(.notAuthorized))
            ])
    }

    @Test("[MQTT5-3.14.4-3] Offline precedes DISCONNECT, which takes the Will away", arguments: versions)
    func offline(version: ProtocolVersion) {
        var s = Scenario(version, opening: .resume(asBridge: false)) { $0.status = Self.status }
        _ = s.cloud(.connack(Connack(sessionPresent: true, reason: .success)))
        _ = s.cloud(.puback(Acknowledgement(0x7001)))
        #expect(
            s.leaves() == [published("0", id: 0x7002), .wire(.disconnect(Disconnect())), .over(.asked)])
    }

    @Test(
        "Offline leaves at QoS 1 at most: at QoS 2 it would wait at the cloud for a PUBREL that nobody sends")
    func offlineAtQoS2() {
        var s = Scenario(.v5_0, opening: .resume(asBridge: false)) {
            $0.status = Self.status
            $0.status?.qos = .exactlyOnce
        }
        _ = s.cloud(.connack(Connack(sessionPresent: true, reason: .success)))
        _ = s.cloud(.pubrec(Acknowledgement(0x7001)))
        _ = s.cloud(.pubcomp(Acknowledgement(0x7001)))
        #expect(
            s.leaves() == [published("0", id: 0x7002), .wire(.disconnect(Disconnect())), .over(.asked)])
    }

    @Test(
        "A subscriber at mosquitto sees us come, vanish, come back and go", .timeLimit(.minutes(10)),
        arguments: versions)
    func seen(version: ProtocolVersion) async throws {
        let broker = try Mosquitto()
        let line = try CuttableLink(to: UInt16(broker.port))
        defer { line.end() }
        let watcher = try await Probe.connected(
            broker.plan(version) {
                $0.clientIdentifier = "watcher"
                $0.subscriptions = [UplinkTests.plan("site/gw/status")]
            })
        func state() async throws -> String {
            let publish = try await watcher.receivedPublish()
            if let id = publish.id {
                try await watcher.perform(.send(.puback(Acknowledgement(id))))
            }
            return String(decoding: publish.message.payload, as: UTF8.self)
        }
        let link = Probe(
            broker.plan(version) {
                $0.addresses[0].port = Int(line.port)
                $0.status = Self.status
            })
        try await link.perform(.open(cleanStart: false))
        #expect(try await state() == "1")
        line.cut()
        #expect(try await state() == "0")
        line.restore()
        #expect(try await state() == "1")
        try await link.stop()
        #expect(try await state() == "0")
        try await watcher.stop()
    }

    // MARK: Topic Aliases

    @Test(
        "[MQTT5-3.3.2-9] [MQTT5-3.2.2-17] A name that repeats itself travels once a connection, within the cloud's Topic Alias Maximum"
    )
    func aliases() {
        var s = Scenario(.v5_0, opening: .resume(asBridge: false)) { $0.topicAliasMax = 10 }
        _ = s.cloud(.connack(Connack(sessionPresent: true, reason: .success, topicAliasMaximum: 1)))
        func sent(_ topic: String) -> (UInt16?, Bool)? {
            for case .wire(.publish(let publish)) in s.core(.publish(Publish(message: message(topic)))) {
                return (publish.topicAlias, publish.omitsTopicName)
            }
            return nil
        }
        #expect(sent("long/topic") ?? (nil, true) == (1, false))
        #expect(sent("long/topic") ?? (nil, false) == (1, true))
        #expect(sent("another/topic") ?? (1, true) == (nil, false))
    }

    @Test(
        "[MQTT5-3.2.2-18] No aliases where the cloud takes none, or none are wanted",
        arguments: [(nil, 10), (5, 0)] as [(UInt16?, UInt16)])
    func noAliases(allowed: UInt16?, wanted: UInt16) {
        var s = Scenario(.v5_0, opening: .resume(asBridge: false)) { $0.topicAliasMax = wanted }
        _ = s.cloud(.connack(Connack(sessionPresent: true, reason: .success, topicAliasMaximum: allowed)))
        let publish = Publish(message: message("long/topic"))
        for _ in 0..<2 { #expect(s.core(.publish(publish)) == [.wire(.publish(publish))]) }
    }

    @Test("mosquitto resolves our aliases", .timeLimit(.minutes(10)))
    func aliasesAtMosquitto() async throws {
        let broker = try Mosquitto()
        let receiver = try await Probe.connected(
            broker.plan(.v5_0) {
                $0.clientIdentifier = "receiver"
                $0.subscriptions = [UplinkTests.plan("#")]
            })
        let link = try await Probe.connected(broker.plan(.v5_0) { $0.topicAliasMax = 10 })
        let topics = ["a/long/topic", "a/long/topic", "another/topic", "a/long/topic", "another/topic"]
        for topic in topics {
            try await link.publish(topic)
            let publish = try await receiver.receivedPublish()
            #expect(String(decoding: publish.message.topic, as: UTF8.self) == topic)
            if let id = publish.id { try await receiver.perform(.send(.puback(Acknowledgement(id)))) }
        }
        try await link.stop()
        try await receiver.stop()
    }

    // MARK: Terms

    @Test("[MQTT5-3.2.2-16] A cloud that calls us by another name breaks the protocol, and is left")
    func renamed() {
        var s = Scenario(.v5_0, opening: .clean)
        let connack = Connack(sessionPresent: false, reason: .success, assignedClientIdentifier: "auto-1")
        #expect(
            s.cloud(.connack(connack)) == [
                .wire(.disconnect(Disconnect(.protocolError))), .over(.renamed("auto-1")),
            ])
    }

    @Test(
        "[MQTT5-3.2.2-12] [MQTT5-3.2.2-13] A cloud that refuses the Will's QoS or RETAIN is offered less",
        .timeLimit(.minutes(10)))
    func lesserWill() async throws {
        // Takes a Will of QoS 0 that is not retained. The Connect Flags are at 9: fixed header 2, "MQTT" 6, level 1.
        let server = try await TestServer { bytes in
            guard bytes.first == 0x10, bytes.count > 9 else { return [] }
            if bytes[9] & 0x18 != 0 { return [0x20, 3, 0, ReasonCode.qosNotSupported.rawValue, 0] }
            if bytes[9] & 0x20 != 0 { return [0x20, 3, 0, ReasonCode.retainNotSupported.rawValue, 0] }
            return TestServer.connack
        }
        var plan = UplinkPlan(
            name: "cloud", addresses: [UplinkAddress(host: "127.0.0.1", port: server.port)],
            clientIdentifier: "gw",
            backoffMinMilliseconds: 10, backoffMaxMilliseconds: 50)
        plan.status = Self.status
        plan.status?.qos = .exactlyOnce
        let link = Probe(plan)
        try await link.perform(.open(cleanStart: true))
        _ = try await link.connected()
        #expect(link.noticesSoFar.filter { $0 == .willReduced }.count == 3)
        try await link.stop()
        try await server.close()
    }
}
