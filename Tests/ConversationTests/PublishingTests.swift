import MQTT
import Testing
import Workbench

/// What becomes of a PUBLISH, both ways.
@Suite("3.3 PUBLISH and 4.3 Quality of Service, in each version")
struct PublishingTests {
    private func success(_ version: ProtocolVersion) -> ReasonCode {
        version == .v5_0 ? .noMatchingSubscribers : .success
    }

    /// A client whose Session lasts.
    private func lasting(_ version: ProtocolVersion, _ name: String = Caller.newName()) throws -> Caller {
        try Caller.connected(version, name: name) {
            $0.cleanStart = false
            if version == .v5_0 { $0.sessionExpirySeconds = 100 }
        }
    }

    // MARK: To the gateway

    @Test(
        "[MQTT5-3.3.4-1, MQTT311-3.3.4-1] [MQTT5-2.2.1-5, MQTT311-2.3.1-6] PUBLISH is answered as its QoS asks, under its identifier",
        arguments: allVersions, [1, 2, 0x00FF, 0x0100, 0xFFFF] as [UInt16])
    func answers(version: ProtocolVersion, number: UInt16) throws {
        let caller = try Caller.connected(version)
        let id = try #require(PacketIdentifier(rawValue: number))
        caller.send(.publish(caller.name))
        #expect(try caller.heard() == [])
        caller.send(.publish(caller.name, "x", .atLeastOnce, id: id))
        #expect(try caller.heard() == [.puback(id, success(version))])
        caller.send(.publish(caller.name, "x", .exactlyOnce, id: id))
        #expect(try caller.heard() == [.pubrec(id, success(version))])
        caller.send(.pubrel(id))
        #expect(try caller.heard() == [.pubcomp(id)])
    }

    @Test(
        "[MQTT311-4.3.3-2] [MQTT5-4.3.3-10, MQTT5-4.3.3-11, MQTT5-4.3.3-12] At QoS 2 each repetition gets PUBREC and is delivered once; after PUBCOMP the identifier is new",
        arguments: allVersions)
    func exactlyOnce(version: ProtocolVersion) throws {
        let screen = try Caller.connected()
        let topic = screen.name
        try screen.subscribe(topic, .atMostOnce)
        let caller = try lasting(version)
        for text in ["first", "second"] {
            for isRepeated in [false, true, true] {
                caller.send(.publish(topic, text, .exactlyOnce, id: 5, duplicate: isRepeated))
                #expect(try caller.next() == .pubrec(5))
            }
            for _ in 0..<2 {
                caller.send(.pubrel(5))
                guard case .pubcomp(let pubcomp)? = try caller.next() else {
                    Issue.record("no PUBCOMP")
                    return
                }
                #expect(pubcomp.id == 5)
            }
        }
        #expect(try screen.heard().payloads == ["first", "second"])
    }

    @Test("[MQTT5-4.3.2-5] After PUBACK its identifier stands for a new message", arguments: allVersions)
    func identifierFreeAfterPuback(version: ProtocolVersion) throws {
        let screen = try Caller.connected()
        try screen.subscribe(screen.name, .atMostOnce)
        let caller = try Caller.connected(version)
        for text in ["a", "b", "c"] {
            caller.send(.publish(screen.name, text, .atLeastOnce, id: 5, duplicate: text == "c"))
            #expect(try caller.next() == .puback(5))
        }
        #expect(try screen.heard().payloads == ["a", "b", "c"])
    }

    @Test(
        "[MQTT5-4.3.3-9] After a PUBREC with an error its identifier stands for a new message, and there is no PUBREL"
    )
    func identifierFreeAfterRefusal() throws {
        let screen = try Caller.connected()
        try screen.subscribe(screen.name, .atMostOnce)
        let caller = try Caller.connected()
        // As many as may be in flight, were they in flight.
        for _ in 0..<Server.inflightMax + 1 {
            caller.send(.publish(tooDeep, "x", .exactlyOnce, id: 5))
            #expect(try caller.next() == .pubrec(5, .topicNameInvalid))
        }
        try caller.publish(.text(screen.name, "new", .exactlyOnce, id: 5))
        #expect(try screen.heard().payloads == ["new"])
    }

    @Test(
        "[MQTT311-3.3.5-2] What may not be published is refused: by a Reason Code, or else by closing",
        arguments: allVersions, [QoS.atMostOnce, .atLeastOnce, .exactlyOnce])
    func notAllowed(version: ProtocolVersion, qos: QoS) throws {
        let caller = try Caller.connected(version)
        let id: PacketIdentifier? = qos == .atMostOnce ? nil : 5
        let response = try caller.response(to: Packet.publish(tooDeep, "x", qos, id: id).bytes(version))
        let expected: Response =
            switch (version, qos) {
            case (.v5_0, .atLeastOnce): .open([.puback(5, .topicNameInvalid)])
            case (.v5_0, .exactlyOnce): .open([.pubrec(5, .topicNameInvalid)])
            default: .refused(.topicNameInvalid, version)
            }
        #expect(response == expected)
    }

    @Test(
        "[MQTT5-4.2.0-1, MQTT311-7.1.1-1] Packets arrive whole and in order, however the stream is cut up",
        arguments: allVersions)
    func stream(version: ProtocolVersion) throws {
        let screen = try Caller.connected(version)
        try screen.subscribe(screen.name, .atMostOnce)
        let caller = try Caller(version)
        var bytes = Packet.connect(Connect(version: version, clientIdentifier: caller.name)).bytes(version)
        let large = String(repeating: "0123456789abcdef", count: 3000)
        let texts = (0..<20).map { "\($0)" } + [large, "end"]
        for text in texts { bytes += Packet.publish(screen.name, text).bytes(version) }
        // Byte by byte at first, then in pieces that grow.
        var size = 1
        while !bytes.isEmpty {
            caller.send(Array(bytes.prefix(size)))
            bytes.removeFirst(min(size, bytes.count))
            if bytes.count < 47_000 { size = 1009 }
        }
        guard case .connack? = try caller.next() else {
            Issue.record("no CONNACK")
            return
        }
        #expect(try screen.next(texts.count).payloads == texts)
    }

    // MARK: From the gateway

    @Test(
        "[MQTT311-3.3.1-3, MQTT5-3.3.1-3] [MQTT311-4.3.1-1, MQTT5-4.3.1-1] [MQTT311-3.3.1-2, MQTT5-3.3.1-2] DUP of a publisher is not passed on, and is never set at QoS 0",
        arguments: allVersions)
    func duplicates(version: ProtocolVersion) throws {
        for qos in [QoS.atMostOnce, .atLeastOnce, .exactlyOnce] {
            let screen = try Caller.connected(version)
            try screen.subscribe(screen.name, qos)
            let press = try Caller.connected(version)
            try press.publish(.text(screen.name, "1", .atLeastOnce, id: 5, duplicate: true))
            try press.publish(.text(screen.name, "2", .exactlyOnce, id: 6, duplicate: true))
            let got = try screen.next(2).publishes
            #expect(got.map(\.payload) == ["1", "2"])
            #expect(got.map(\.duplicate) == [false, false])
        }
    }

    @Test(
        "[MQTT311-2.3.1-4, MQTT5-2.2.1-4] [MQTT311-4.3.2-1, MQTT5-4.3.2-1, MQTT5-4.3.2-2] [MQTT311-4.3.3-1, MQTT5-4.3.3-1, MQTT5-4.3.3-2] [MQTT311-3.3.1-1, MQTT5-3.3.1-1] [MQTT311-4.6.0-1] [MQTT311-4.4.0-1, MQTT5-4.4.0-1] What is new has an identifier of its own and no DUP; what is sent again keeps it, with DUP, in the same order",
        arguments: allVersions, [QoS.atLeastOnce, .exactlyOnce])
    func sentAgain(version: ProtocolVersion, qos: QoS) throws {
        let press = try Caller.connected()
        var screen = try lasting(version)
        let name = screen.name
        try screen.subscribe(name)
        let texts = ["a", "b", "c", "d"]
        for text in texts { try press.publish(.text(name, text, qos, id: 1)) }
        let first = try screen.next(texts.count).publishes
        #expect(first.map(\.payload) == texts)
        #expect(first.allSatisfy { !$0.duplicate && $0.qos == qos })
        let ids = first.compactMap(\.id)
        #expect(Set(ids).count == texts.count)
        for _ in 0..<2 {
            screen.vanish()
            screen = try lasting(version, name)
            let again = try screen.next(texts.count).publishes
            #expect(again.map(\.payload) == texts)
            #expect(again.map(\.id) == ids)
            #expect(again.allSatisfy { $0.duplicate })
        }
        // A new one does not take an identifier that is in use.
        try press.publish(.text(name, "e", qos, id: 1))
        let new = try #require(try screen.next(1).publishes.first)
        #expect(!new.duplicate)
        let newID = try #require(new.id)
        #expect(!ids.contains(newID))
    }

    @Test(
        "[MQTT311-4.6.0-4] [MQTT311-4.3.3-1, MQTT5-4.3.3-4, MQTT5-4.3.3-6] [MQTT311-2.3.1-6] PUBRELs go out in the order of the PUBRECs, and after PUBREL only PUBREL is sent again",
        arguments: allVersions)
    func releases(version: ProtocolVersion) throws {
        let press = try Caller.connected()
        var screen = try lasting(version)
        let name = screen.name
        try screen.subscribe(name)
        for text in ["a", "b", "c"] { try press.publish(.text(name, text, .exactlyOnce, id: 1)) }
        let ids = try screen.next(3).publishes.compactMap(\.id)
        #expect(ids.count == 3)
        screen.send(ids.flatMap { Packet.pubrec($0).bytes(version) })
        #expect(try screen.next(3) == ids.map { .pubrel($0) })
        screen.vanish()
        screen = try lasting(version, name)
        #expect(try screen.heard() == ids.map { .pubrel($0) })
        screen.send(ids.flatMap { Packet.pubcomp($0).bytes(version) })
        #expect(try screen.heard() == [])
    }

    @Test(
        "[MQTT311-4.5.0-1, MQTT5-4.5.0-1] Every Session with a matching subscription gets the message, also those whose clients are away",
        arguments: allVersions)
    func everySession(version: ProtocolVersion) throws {
        let topic = Caller.newName()
        var screens = try (0..<3).map { _ in try lasting(version) }
        for screen in screens { try screen.subscribe("\(topic)/+") }
        try screens[1].leave()
        screens[2].vanish()
        let press = try Caller.connected(version)
        try press.publish(.text("\(topic)/a", "1", .atLeastOnce, id: 1))
        try press.publish(.text("\(topic)/b", "2", .exactlyOnce, id: 1))
        for i in [1, 2] { screens[i] = try lasting(version, screens[i].name) }
        for screen in screens { #expect(try screen.next(2).payloads == ["1", "2"]) }
    }

    @Test(
        "[MQTT311-4.6.0-5, MQTT311-4.6.0-6] [MQTT5-4.6.0-5, MQTT5-4.6.0-6] Every topic is ordered: the messages of one client at one QoS arrive as they were sent",
        arguments: allVersions, [QoS.atMostOnce, .atLeastOnce, .exactlyOnce])
    func order(version: ProtocolVersion, qos: QoS) throws {
        let screen = try Caller.connected(version)
        try screen.subscribe("\(screen.name)/#")
        let press = try Caller.connected(version)
        let count = 8
        var sent: [UInt8] = []
        for i in 0..<count {
            let id = qos == .atMostOnce ? nil : PacketIdentifier(rawValue: UInt16(i + 1))
            sent += Packet.publish("\(screen.name)/\(i % 2)", "\(i)", qos, id: id).bytes(version)
        }
        press.send(sent)
        #expect(try screen.next(count).payloads == (0..<count).map { "\($0)" })
    }

    // MARK: Retained

    @Test(
        "[MQTT311-3.3.1-5, MQTT311-3.3.1-7, MQTT311-3.3.1-12] [MQTT5-3.3.1-5, MQTT5-3.3.1-8] RETAIN 1 of any QoS takes the place of what was retained, RETAIN 0 leaves it",
        arguments: allVersions)
    func retained(version: ProtocolVersion) throws {
        let press = try Caller.connected(version)
        let topic = press.name
        func retained() throws -> [Publish] {
            let screen = try Caller.connected(version)
            screen.send(.subscribe(1, [(topic, .exactlyOnce)]))
            // A message of QoS 2 comes once it is known to be durable, which a PINGRESP does not wait for.
            return try (screen.next(2) + screen.heard()).publishes
        }
        for qos in [QoS.exactlyOnce, .atMostOnce, .atLeastOnce] {
            let id: PacketIdentifier? = qos == .atMostOnce ? nil : 1
            try press.publish(.text(topic, "kept at \(qos)", qos, id: id, retain: true))
            try press.publish(.text(topic, "passing", qos, id: id))
            try press.publish(.text(topic, "", qos, id: id))
            let got = try retained()
            #expect(got.map(\.payload) == ["kept at \(qos)"])
            #expect(got.map(\.qos) == [qos])
            #expect(got.map(\.retain) == [true])
        }
        try press.publish(.text(topic, "", retain: true))
        let screen = try Caller.connected(version)
        try screen.subscribe(topic)
        #expect(try screen.heard() == [])
    }

    // MARK: MQTT 5

    @Test(
        "[MQTT5-3.3.2-4, MQTT5-3.3.2-15, MQTT5-3.3.2-16, MQTT5-3.3.2-17, MQTT5-3.3.2-18, MQTT5-3.3.2-20] Properties of the message are passed on unchanged, User Properties in order",
        arguments: [QoS.atMostOnce, .atLeastOnce, .exactlyOnce], [false, true])
    func properties(qos: QoS, isRetained: Bool) throws {
        let screen = try Caller.connected()
        let topic = screen.name
        let press = try Caller.connected()
        let forwarded = ForwardedProperties(
            payloadIsUTF8: true, contentType: "application/json; ö", responseTopic: "answers/\(topic)",
            correlationData: [0, 255, 1],
            userProperties: [
                UserProperty("b", "2"), UserProperty("a", "1"), UserProperty("b", "2"), UserProperty("", ""),
            ])
        let publish = Publish(
            message: ApplicationMessage(topic: topic.utf8, properties: forwarded.bytes, payload: "x".utf8),
            qos: qos, id: qos == .atMostOnce ? nil : 1, retain: isRetained)
        if isRetained {
            try press.publish(publish)
            try screen.subscribe(topic)
        } else {
            try screen.subscribe(topic)
            try press.publish(publish)
        }
        let got = try #require(try screen.next(1).publishes.first)
        #expect(got.message == publish.message)
        #expect(ForwardedProperties(got.message.properties) == forwarded)
    }

    @Test(
        "[MQTT5-3.1.2-26, MQTT5-3.1.2-27, MQTT5-3.3.2-11] Aliases towards a client keep to its Topic Alias Maximum, and without one there are none",
        arguments: [nil, 0, 1, 3] as [UInt16?])
    func aliases(maximum: UInt16?) throws {
        let screen = try Caller.connected { $0.topicAliasMaximum = maximum }
        try screen.subscribe("\(screen.name)/#", .atMostOnce)
        let press = try Caller.connected()
        var known: [UInt16: String] = [:]
        for round in 0..<3 {
            for i in 0..<5 {
                let topic = "\(screen.name)/a/rather/long/topic/\(i)"
                try press.publish(.text(topic, "\(round)"))
                let got = try #require(try screen.next(1).publishes.first)
                if let alias = got.topicAlias {
                    #expect(alias >= 1 && alias <= maximum ?? 0)
                    if !got.topic.isEmpty { known[alias] = got.topic }
                    #expect(known[alias] == topic)
                } else {
                    #expect(got.topic == topic)
                }
            }
        }
    }

    @Test(
        "[MQTT5-3.3.4-9, MQTT5-3.3.4-10] [MQTT5-4.9.0-1, MQTT5-4.9.0-2, MQTT5-4.9.0-3] As much is in flight as the client's Receive Maximum, anew on each connection, and nothing but PUBLISH waits for it",
        arguments: [1, 2, 5] as [UInt16])
    func quota(maximum: UInt16) throws {
        let name = Caller.newName()
        func connected() throws -> Caller {
            try Caller.connected(name: name) {
                $0.cleanStart = false
                $0.sessionExpirySeconds = 100
                $0.receiveMaximum = maximum
            }
        }
        let press = try Caller.connected()
        var screen = try connected()
        try screen.subscribe(name)
        for i in 0..<8 {
            try press.publish(.text(name, "\(i)", i % 2 == 0 ? .atLeastOnce : .exactlyOnce, id: 1))
        }
        for _ in 0..<2 {
            #expect(try screen.next(Int(maximum)).payloads == (0..<Int(maximum)).map { "\($0)" })
            #expect(try screen.heard() == [])
            // Everything else goes on, in both directions, QoS 0 too.
            try press.publish(.text(name, "QoS 0"))
            #expect(try screen.heard().payloads == ["QoS 0"])
            screen.send(
                .subscribe(2, [("\(name)/x", .atMostOnce)]), .unsubscribe(3, "\(name)/x"),
                .publish("\(name)/y", "x", .exactlyOnce, id: 4), .pubrel(4), .pingreq)
            let others = try screen.next(5)
            #expect(others.contains(.pingresp))
            #expect(others.contains(.suback(Suback(id: 2, reasons: [.grantedQoS0]))))
            #expect(others.contains(.unsuback(Unsuback(id: 3, reasons: [.success]))))
            #expect(others.contains(.pubrec(4, .noMatchingSubscribers)))
            #expect(others.contains(.pubcomp(4)))
            screen.vanish()
            screen = try connected()
        }
    }

    /// All that the gateway answers with an error, and last what it closes for.
    private func refusals(_ change: (inout Connect) -> Void) throws -> [Packet] {
        let caller = try Caller.connected(.v5_0, change)
        caller.showsExplanations = true
        caller.send(
            .publish(tooDeep, "x", .atLeastOnce, id: 1), .publish(tooDeep, "x", .exactlyOnce, id: 2),
            .pubrec(3), .pubrel(4), .subscribe(5, [(tooDeep, .atMostOnce)]), .unsubscribe(6, "none"),
            .publish(tooDeep, "x"))
        let packets = try caller.untilClosed()
        #expect(packets.count == 7)
        return packets
    }

    @Test(
        "[MQTT5-3.1.2-24] [MQTT5-3.4.2-2, MQTT5-3.5.2-2, MQTT5-3.9.2-1, MQTT5-3.14.2-3] An answer leaves out the Reason String that would make it too large"
    )
    func shortAnswers() throws {
        let explained = try refusals { _ in }
        let sizes = explained.map { $0.bytes(.v5_0).count }
        for (i, packet) in explained.enumerated() where packet.reasonString != nil {
            let bare = packet.withoutExplanation.bytes(.v5_0).count
            // It just fits, it just does not.
            for (maximum, isExplained) in [(sizes[i], true), (sizes[i] - 1, false)] {
                let packets = try refusals { $0.maximumPacketSize = UInt32(maximum) }
                #expect(packets[i].reasonString == (isExplained ? packet.reasonString : nil))
                #expect(packets[i].bytes(.v5_0).count == (isExplained ? maximum : bare))
                #expect(packets.allSatisfy { $0.bytes(.v5_0).count <= maximum })
            }
        }
        let kinds = explained.map { $0.reasonString != nil }
        #expect(kinds[0] && kinds[1] && kinds[6], "PUBACK, PUBREC and DISCONNECT are explained")
    }

    @Test(
        "[MQTT5-3.1.2-29] With Request Problem Information 0 no answer but CONNACK and DISCONNECT is explained"
    )
    func unexplained() throws {
        for packet in try refusals({ $0.requestProblemInformation = false }) {
            switch packet {
            case .disconnect: break
            default: #expect(packet.reasonString == nil, "\(packet)")
            }
        }
    }

    @Test(
        "[MQTT5-3.1.2-24] A client that cannot take its CONNACK is refused with 0x95, or closed when even that is too large"
    )
    func smallestPackets() throws {
        let whole = Packet.connack(try Caller.greeted { $0.maximumPacketSize = 1000 }.connack).bytes(.v5_0)
            .count
        let refusal = Packet.connack(Connack(sessionPresent: false, reason: .packetTooLarge))
        for maximum in 1...whole {
            let caller = try Caller(.v5_0)
            caller.send(
                .connect(Connect(clientIdentifier: caller.name, maximumPacketSize: UInt32(maximum))))
            if maximum == whole {
                #expect(try caller.next().map { $0.bytes(.v5_0).count } == whole)
                #expect(try caller.heard() == [])
            } else {
                let isTold = maximum >= refusal.bytes(.v5_0).count
                #expect(try caller.untilClosed() == (isTold ? [refusal] : []), "\(maximum)")
            }
        }
    }

    @Test(
        "[MQTT5-3.1.2-24] Who cannot take its SUBACK or UNSUBACK is disconnected with 0x95",
        arguments: [true, false])
    func largeAnswers(unsubscribes: Bool) throws {
        let filters = try (1...96).map { try #require(TopicFilter("answers/\($0)")) }
        for count in [95, 96] {
            let (caller, _) = try Caller.greeted { $0.maximumPacketSize = 100 }
            let some = Array(filters.prefix(count))
            caller.send(
                unsubscribes
                    ? .unsubscribe(Unsubscribe(id: 1, filters: some))
                    : .subscribe(
                        Subscribe(
                            id: 1,
                            requests: some.map { SubscriptionRequest(filter: $0, maximumQoS: .atMostOnce) })
                    ))
            if count == 95 {
                #expect(try caller.next().map { $0.bytes(.v5_0).count } == 100)
            } else {
                #expect(try caller.untilClosed() == [.disconnect(Disconnect(.packetTooLarge))])
            }
        }
    }

    @Test("[MQTT5-3.2.2-19] A refusing CONNACK leaves out the Reason String that would make it too large")
    func shortConnack() throws {
        func refused(_ maximum: UInt32?) throws -> Packet? {
            let caller = try Caller(.v5_0)
            caller.showsExplanations = true
            caller.send(
                .connect(
                    Connect(
                        clientIdentifier: caller.name, maximumPacketSize: maximum,
                        authenticationMethod: "METHOD")))
            return try caller.untilClosed().first
        }
        let explained = try #require(try refused(nil))
        #expect(explained.reasonString != nil)
        let size = UInt32(explained.bytes(.v5_0).count)
        #expect(try refused(size) == explained)
        #expect(try refused(size - 1) == explained.withoutExplanation)
    }
}
