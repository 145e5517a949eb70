import MQTT
import Testing

@testable import GatewayCore

/// What a profile says of a client's connection and Session.
@Suite("Device profiles: terms")
struct ProfileTermsTests {
    /// A plan with one profile for clients called `press…`.
    static func plan(_ change: (inout DeviceProfile) throws -> Void) rethrows -> GatewayPlan {
        var plan = GatewayPlan()
        var profile = DeviceProfile(name: "press", matches: [DeviceMatch(clientIdentifier: Glob("press*"))])
        try change(&profile)
        plan.profiles = [profile]
        return plan
    }

    private static func connack(_ s: inout Scenario, _ connect: Connect) -> Connack? {
        s.opens(connect.clientIdentifier, connect)
        s.syncs()
        return s.received(connect.clientIdentifier).connack
    }

    @Test("By user name, certificate and listener, too: CONNACK tells which")
    func matching() {
        var plan = GatewayPlan()
        let matches = [
            DeviceMatch(username: Glob("u")), DeviceMatch(certificateSubject: Glob("CN=*")),
            DeviceMatch(listener: 3),
        ]
        plan.profiles = matches.enumerated().map { n, match in
            var profile = DeviceProfile(name: "\(n)", matches: [match])
            profile.receiveMaximum = UInt16(10 + n)
            return profile
        }
        var s = Scenario(plan: plan)
        s.opens("a", Connect(clientIdentifier: "a", userName: "u"))
        s.opens(
            "b", Connect(clientIdentifier: "b"), certificate: CertificateNames(subject: "CN=b", issuer: "x"))
        s.opens("c", Connect(clientIdentifier: "c"), listener: 3)
        s.opens("d", Connect(clientIdentifier: "d"))
        s.syncs()
        #expect(["a", "b", "c", "d"].map { s.received($0).connack?.receiveMaximum } == [10, 11, 12, 100])
    }

    @Test(
        "Session Expiry of MQTT 5 clients has the profile's bound, in CONNECT and in DISCONNECT [MQTT5-3.2.2.3.2]"
    )
    func expiry5() {
        var plan = Self.plan { $0.sessionExpirySecondsMax = 60 }
        plan.expirySecondsMax = 1000
        var s = Scenario(plan: plan)
        let connect = Connect(clientIdentifier: "press", cleanStart: false, sessionExpirySeconds: 3600)
        #expect(Self.connack(&s, connect)?.sessionExpirySeconds == 60)
        s.leaves("press", Disconnect(.normalDisconnection, sessionExpirySeconds: 500))
        s.passes(milliseconds: 59_000)
        #expect(Self.connack(&s, connect)?.sessionPresent == true)
        s.leaves("press")
        s.passes(milliseconds: 61_000)
        #expect(Self.connack(&s, connect)?.sessionPresent == false)
        let other = Connect(clientIdentifier: "oven", cleanStart: false, sessionExpirySeconds: 3600)
        #expect(Self.connack(&s, other)?.sessionExpirySeconds == 1000)
    }

    @Test("Session Expiry of 3.1.1 clients is the profile's", arguments: [ProtocolVersion.v3_1, .v3_1_1])
    func expiryBefore5(version: ProtocolVersion) {
        var s = Scenario(plan: Self.plan { $0.sessionExpirySecondsBefore5 = 60 })
        let connect = Connect(version: version, clientIdentifier: "press", cleanStart: false)
        for (pause, present) in [(0, false), (59_000, true), (61_000, false)] as [(UInt64, Bool)] {
            s.passes(milliseconds: pause)
            #expect(Self.connack(&s, connect)?.sessionPresent == present)
            s.leaves("press")
        }
    }

    @Test(
        "[MQTT5-3.2.2-21] Keep Alive is kept within the profile's bounds",
        arguments: [(0, nil, 60), (10, 30, 30), (30, nil, 30), (45, nil, 45), (600, 60, 60)]
            as [(UInt16, UInt16?, UInt16)])
    func keepAlive(asked: UInt16, told: UInt16?, held: UInt16) {
        let plan = Self.plan {
            $0.keepAliveSecondsMin = 30
            $0.keepAliveSecondsMax = 60
        }
        for version in [ProtocolVersion.v5_0, .v3_1_1] {
            var s = Scenario(plan: plan)
            let connack = Self.connack(
                &s, Connect(version: version, clientIdentifier: "press", keepAliveSeconds: asked))
            #expect(connack?.serverKeepAliveSeconds == (version == .v5_0 ? (asked == 0 ? 60 : told) : nil))
            s.passes(milliseconds: UInt64(held) * 1500 - 1)
            #expect(s.closedClients.isEmpty)
            s.passes(milliseconds: 1)
            #expect(s.closedClients == ["press"])
        }
    }

    @Test("Without a longest Keep Alive, none stays none")
    func noKeepAlive() {
        var s = Scenario(plan: Self.plan { $0.keepAliveSecondsMin = 30 })
        let connack = Self.connack(&s, Connect(clientIdentifier: "press"))
        #expect(connack?.serverKeepAliveSeconds == nil)
        s.passes(milliseconds: 1_000_000)
        #expect(s.closedClients.isEmpty)
    }

    @Test("[MQTT5-3.2.2-9] Maximum QoS is told, and PUBLISH above it ends the connection with 0x9B")
    func maximumQoS() {
        var s = Scenario(plan: Self.plan { $0.maximumQoS = .atLeastOnce })
        #expect(Self.connack(&s, Connect(clientIdentifier: "press"))?.maximumQoS == .atLeastOnce)
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        #expect(s.received("press") == [.puback(Acknowledgement(1, .noMatchingSubscribers))])
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 2)))
        #expect(s.received("press") == [.disconnect(Disconnect(.qosNotSupported))])
        #expect(s.closedClients == ["press"])
        #expect(s.gateway.profileCounts.map(\.refusedPublishes) == [1, 0])
    }

    @Test("Older clients that publish above the profile's QoS are closed: nothing else would tell them")
    func maximumQoSBefore5() {
        var s = Scenario(plan: Self.plan { $0.maximumQoS = .atMostOnce })
        s.connects("press", version: .v3_1_1)
        s.sends("press", .publish(.text("t", qos: .atMostOnce)))
        #expect(s.closedClients.isEmpty)
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        #expect(s.received("press") == [])
        #expect(s.closedClients == ["press"])
    }

    @Test(
        "[MQTT5-3.2.2-10] SUBSCRIBE is taken at whatever QoS, and granted what the profile has",
        arguments: [ProtocolVersion.v5_0, .v3_1_1])
    func grantedQoS(version: ProtocolVersion) {
        var s = Scenario.connected("pub", plan: Self.plan { $0.maximumQoS = .atLeastOnce })
        s.connects("press", version: version)
        s.sends("press", .subscribe("t", qos: .exactlyOnce))
        s.syncs()
        #expect(s.received("press").subackReasons == [.grantedQoS1])
        s.sends("pub", .publish(.text("t", qos: .exactlyOnce, id: 1)))
        s.syncs()
        #expect(s.received("press").publishes.map(\.qos) == [.atLeastOnce])
    }

    @Test("[MQTT5-3.2.2-12] a Will above the profile's QoS is refused with CONNECT")
    func willQoS() {
        var s = Scenario(plan: Self.plan { $0.maximumQoS = .atMostOnce })
        let connack = Self.connack(
            &s, Connect(clientIdentifier: "press", will: .text("w", qos: .atLeastOnce)))
        #expect(connack?.reason == .qosNotSupported)
        #expect(s.closedClients == ["press"])
    }

    @Test("[MQTT5-3.3.4-7] Receive Maximum is the profile's, both ways")
    func receiveMaximum() {
        var s = Scenario.connected("pub", plan: Self.plan { $0.receiveMaximum = 2 })
        s.connects("press")
        s.subscribes("press", "t", qos: .atLeastOnce)
        for n in 1...3 as ClosedRange<UInt16> {
            s.sends("pub", .publish(.text("t", qos: .atLeastOnce, id: PacketIdentifier(rawValue: n))))
        }
        s.syncs()
        #expect(s.received("press").publishes.count == 2)
        for n in 1...2 as ClosedRange<UInt16> {
            s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: PacketIdentifier(rawValue: n))))
        }
        #expect(s.closedClients.isEmpty)
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 3)))
        #expect(s.closedClients == ["press"])
        #expect(s.received("press").last == .disconnect(Disconnect(.receiveMaximumExceeded)))
    }

    @Test(
        "Maximum Packet Size is the smaller of the profile's and the listener's; beyond it 0x95 [MQTT5-3.2.2.3.6]"
    )
    func packetSize() {
        var plan = Self.plan { $0.packetBytesMax = 100 }
        plan.packetBytesMaxByListener = [1: 50]
        var s = Scenario(plan: plan)
        #expect(Self.connack(&s, Connect(clientIdentifier: "press"))?.maximumPacketSize == 100)
        // Two bytes of header, three of topic, one of properties.
        s.sends("press", .publish(.text("t", String(repeating: "x", count: 94))))
        #expect(s.closedClients.isEmpty)
        s.sends("press", .publish(.text("t", String(repeating: "x", count: 95))))
        #expect(s.received("press") == [.disconnect(Disconnect(.packetTooLarge))])
        s.opens("press2", Connect(clientIdentifier: "press2"), listener: 1)
        #expect(s.received("press2").connack?.maximumPacketSize == 50)
        s.sends("press2", .publish(.text("t", String(repeating: "x", count: 45))))
        #expect(s.received("press2") == [.disconnect(Disconnect(.packetTooLarge))])
        s.connects("press3", version: .v3_1_1)
        s.sends("press3", .publish(.text("t", String(repeating: "x", count: 96))))
        #expect(s.received("press3") == [])
        #expect(s.closedClients == ["press", "press2", "press3"])
    }

    @Test("So it is for every packet, not only PUBLISH", arguments: [ProtocolVersion.v5_0, .v3_1_1])
    func otherPackets(version: ProtocolVersion) {
        var s = Scenario(plan: Self.plan { $0.packetBytesMax = 100 })
        let filter = { (bytes: Int) in String(repeating: "f", count: bytes) }
        // Two bytes of header, two of Packet Identifier, three of a filter's length and options, and in MQTT 5 one of
        // properties.
        let room = version == .v5_0 ? 92 : 93
        for (n, packet) in [Packet.subscribe(filter(room + 1)), .unsubscribe(filter(room + 2))].enumerated() {
            let client = "press\(n)"
            s.connects(client, version: version)
            s.sends(client, .subscribe(filter(room)))
            s.syncs()
            #expect(s.received(client).subackReasons == [.grantedQoS2])
            s.sends(client, packet)
            #expect(
                s.received(client)
                    == (version == .v5_0 ? [.disconnect(Disconnect(.packetTooLarge))] : []))
            #expect(s.closedClients.contains(client))
        }
    }

    @Test("A CONNECT that is too large for its profile, by its Will say, is refused [MQTT5-3.1.4-1]")
    func largeConnect() {
        var s = Scenario(plan: Self.plan { $0.packetBytesMax = 100 })
        let will = { (bytes: Int) in Will.text("w", String(repeating: "x", count: bytes)) }
        for version in [ProtocolVersion.v5_0, .v3_1_1] {
            let name = "press\(version.rawValue)"
            s.opens(name, Connect(version: version, clientIdentifier: name, will: will(90)))
            s.syncs()
            #expect(s.received(name).connack?.reason == (version == .v5_0 ? .packetTooLarge : nil))
            #expect(s.closedClients.contains(name))
            s.opens(name, Connect(version: version, clientIdentifier: name, will: will(60)))
            s.syncs()
            #expect(s.received(name).connack?.reason == .success)
        }
        s.opens("oven", Connect(clientIdentifier: "oven", will: will(1000)))
        s.syncs()
        #expect(s.received("oven").connack?.reason == .success)
    }

    @Test("Nothing of it holds for others")
    func others() {
        let plan = Self.plan {
            $0.receiveMaximum = 1
            $0.maximumQoS = .atMostOnce
            $0.packetBytesMax = 10
            $0.keepAliveSecondsMax = 1
        }
        var s = Scenario(plan: plan)
        var plain = Scenario()
        let connect = Connect(clientIdentifier: "oven", cleanStart: false, sessionExpirySeconds: 9)
        #expect(Self.connack(&s, connect) == Self.connack(&plain, connect))
    }

    // MARK: Message Expiry

    @Test(
        "Message Expiry is the profile's where there is none or a longer one [MQTT5-3.3.2.3.3]",
        arguments: [(nil, 20), (5, 5), (600, 60)] as [(UInt32?, UInt32)])
    func messageExpiry(came: UInt32?, left: UInt32) {
        let plan = Self.plan { $0.messageExpiry = MessageExpiry(defaultSeconds: 20, secondsMax: 60) }
        var s = Scenario.connected("press", "sub", plan: plan)
        s.subscribes("sub", "#", qos: .atLeastOnce)
        var publish = Publish.text("t", qos: .atLeastOnce, id: 1)
        publish.messageExpirySeconds = came
        s.sends("press", .publish(publish))
        s.sends("sub", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        #expect(s.received("sub").publishes.map(\.messageExpirySeconds) == [left, nil])
    }

    @Test("P3: what a 3.1.1 device publishes expires too where its profile says so, counted")
    func messageExpiryBefore5() {
        let plan = Self.plan { $0.messageExpiry = MessageExpiry(defaultSeconds: 20) }
        var s = Scenario.connected("sub", plan: plan)
        s.connects("press", version: .v3_1_1)
        s.subscribes("sub", "#", qos: .atLeastOnce)
        s.leaves("sub", Disconnect(.normalDisconnection, sessionExpirySeconds: 3600))
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        s.syncs()
        #expect(s.received("press") == [.puback(Acknowledgement(1))])
        s.passes(milliseconds: 21_000)
        s.connects("sub")
        #expect(s.drains("sub").isEmpty)
        #expect(s.balance.books.dropped(.messageExpired) == 1 && s.balance.isEven)
    }

    @Test("A Will expires alike")
    func willExpiry() {
        let plan = Self.plan { $0.messageExpiry = MessageExpiry(defaultSeconds: 20) }
        var s = Scenario.connected("sub", plan: plan)
        s.subscribes("sub", "#", qos: .atLeastOnce)
        s.connects("press", will: .text("w"))
        s.vanishes("press")
        s.syncs()
        #expect(s.received("sub").publishes.map(\.messageExpirySeconds) == [20])
    }

    // MARK: Rate

    @Test("A client over its rate is not read until that is made up for, and loses nothing")
    func rate() {
        let plan = Self.plan { $0.rate = PublishRate(messagesPerSecond: 10, messagesBurst: 5) }
        var s = Scenario.connected("press", "sub", plan: plan)
        s.subscribes("sub", "#", qos: .atLeastOnce)
        for n in 1...5 as ClosedRange<UInt16> {
            s.sends(
                "press", .publish(.text("t", "\(n)", qos: .atLeastOnce, id: PacketIdentifier(rawValue: n))))
        }
        #expect(s.pausedClients.isEmpty)
        // What was read already is taken.
        for n in 6...8 as ClosedRange<UInt16> {
            s.sends(
                "press", .publish(.text("t", "\(n)", qos: .atLeastOnce, id: PacketIdentifier(rawValue: n))))
        }
        #expect(s.pausedClients == ["press"])
        s.syncs()
        #expect(s.pausedClients == ["press"])
        s.passes(milliseconds: 299)
        #expect(s.pausedClients == ["press"])
        s.passes(milliseconds: 2)
        #expect(s.pausedClients.isEmpty)
        #expect(s.drains("sub").map(\.text) == (1...8).map { "\($0)" })
        #expect(s.received("press").count == 8)
        #expect(s.gateway.profileCounts.map(\.pauses) == [1, 0])
    }

    @Test("A new connection is no new burst, however the old one ended", arguments: 0...2)
    func rateAcrossConnections(ending: Int) {
        var s = Scenario.connected(
            "press", plan: Self.plan { $0.rate = PublishRate(messagesPerSecond: 10, messagesBurst: 5) })
        for _ in 1...5 { s.sends("press", .publish(.text("t"))) }
        #expect(s.pausedClients.isEmpty)
        switch ending {
        case 0: s.leaves("press")
        case 1: s.vanishes("press")
        default: break
        }
        s.connects("press", cleanStart: true)
        s.sends("press", .publish(.text("t")))
        #expect(s.pausedClients == ["press"])
        s.leaves("press")
        s.passes(milliseconds: 600)
        s.connects("press")
        for _ in 1...5 { s.sends("press", .publish(.text("t"))) }
        #expect(s.pausedClients.isEmpty)
        // Nobody else pays for it.
        s.connects("press2")
        for _ in 1...5 { s.sends("press2", .publish(.text("t"))) }
        #expect(s.pausedClients.isEmpty)
    }

    @Test("What is kept of those who went is bounded: who went first has a whole burst again")
    func manyFormerPaces() {
        var plan = Self.plan { $0.rate = PublishRate(messagesPerSecond: 1, messagesBurst: 1) }
        plan.limits.formerPacesMax = 4
        var s = Scenario(plan: plan)
        for n in 1...5 {
            s.connects("press\(n)", cleanStart: true)
            s.sends("press\(n)", .publish(.text("t")))
            s.leaves("press\(n)")
        }
        for n in [1, 5] {
            s.connects("press\(n)", cleanStart: true)
            s.sends("press\(n)", .publish(.text("t")))
        }
        #expect(s.pausedClients == ["press5"])
    }

    @Test("A reload that leaves the profiles alone gives nobody a new burst")
    func rateAcrossReload() {
        var plan = Self.plan { $0.rate = PublishRate(messagesPerSecond: 1) }
        var s = Scenario.connected("press", plan: plan)
        for _ in 0..<5 { s.sends("press", .publish(.text("t"))) }
        #expect(s.pausedClients == ["press"])
        plan.limits.retainedBytesMax = 77
        s.reconfigures(plan)
        s.passes(milliseconds: 3000)
        #expect(s.pausedClients == ["press"])
        s.reconfigures(GatewayPlan())
        #expect(s.pausedClients.isEmpty)
    }

    @Test("Bytes have a rate of their own; a large message is taken and paid for")
    func byteRate() {
        var s = Scenario(plan: Self.plan { $0.rate = PublishRate(bytesPerSecond: 1000, bytesBurst: 100) })
        s.connects("press", version: .v3_1_1)
        s.sends("press", .publish(.text("t", String(repeating: "x", count: 2099))))
        #expect(s.pausedClients == ["press"])
        s.passes(milliseconds: 1990)
        #expect(s.pausedClients == ["press"])
        s.passes(milliseconds: 20)
        #expect(s.pausedClients.isEmpty)
    }

    @Test("Who is not read because of its rate is not taken for silent [MQTT5-3.1.2-22]")
    func rateAndKeepAlive() {
        var s = Scenario(plan: Self.plan { $0.rate = PublishRate(bytesPerSecond: 100) })
        s.connects("press", keepAlive: 1)
        s.sends("press", .publish(.text("t", String(repeating: "x", count: 1000))))
        s.passes(milliseconds: 8000)
        #expect(s.pausedClients == ["press"] && s.closedClients.isEmpty)
        s.passes(milliseconds: 1500)
        #expect(s.pausedClients.isEmpty && s.closedClients.isEmpty)
        s.passes(milliseconds: 1500)
        #expect(s.closedClients == ["press"])
    }

    @Test("[MQTT5-4.3.3-10] A QoS 2 message that is sent again counts as often as it comes")
    func rateOfRepeated() {
        var s = Scenario.connected(
            "press", plan: Self.plan { $0.rate = PublishRate(messagesPerSecond: 1, messagesBurst: 5) })
        for _ in 1...5 {
            s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 1)))
            #expect(s.pausedClients.isEmpty)
        }
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 1, duplicate: true)))
        #expect(s.pausedClients == ["press"])
    }
}
