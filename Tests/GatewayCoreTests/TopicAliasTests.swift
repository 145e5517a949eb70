import MQTT
import Testing

@testable import GatewayCore

/// Topic Aliases from the gateway to its clients. Those from clients are in `FlowTests`; 0 as an alias is the
/// decoder's matter.
@Suite("3.3.2.3.4 Topic Alias, towards clients")
struct TopicAliasTests {
    private static func board(_ maximum: UInt16?, packetBytesMax: UInt32? = nil) -> Scenario {
        var s = Scenario.connected("press")
        connect("board", maximum, packetBytesMax, &s)
        s.subscribes("board", "#", qos: .exactlyOnce)
        return s
    }

    private static func connect(
        _ client: String, _ maximum: UInt16?, _ packetBytesMax: UInt32? = nil, _ s: inout Scenario
    ) {
        s.opens(
            client,
            Connect(
                clientIdentifier: client, cleanStart: false, sessionExpirySeconds: 3600,
                maximumPacketSize: packetBytesMax, topicAliasMaximum: maximum))
        s.syncs()
    }

    /// What the client reads after its own decoder and table of aliases, and the packets as they came.
    private static func reads(
        _ s: inout Scenario, _ names: inout [UInt16: String]
    ) throws -> [(topic: String, packet: Publish)] {
        var read: [(String, Publish)] = []
        for sent in s.received("board").publishes {
            var bytes: [UInt8] = []
            Packet.publish(sent).encode(version: .v5_0, into: &bytes)
            #expect(bytes.count == sent.encodedSize(version: .v5_0))
            var decoder = PacketDecoder(receiver: .client, version: .v5_0, maximumPacketSize: 1 << 20)
            bytes.withUnsafeBytes { decoder.append($0) }
            guard case .publish(let packet)? = try decoder.next() else {
                Issue.record("not a PUBLISH")
                continue
            }
            if let alias = packet.topicAlias {
                if !packet.message.topic.isEmpty { names[alias] = packet.topic }
                read.append((try #require(names[alias]), packet))
            } else {
                read.append((packet.topic, packet))
            }
        }
        return read
    }

    @Test("A name gets an alias at its second use, and from the third on only the alias is sent")
    func thirdUse() throws {
        var s = Self.board(10)
        var names: [UInt16: String] = [:]
        for text in ["1", "2", "3", "4"] { s.sends("press", .publish(.text("line/7/temperature", text))) }
        let read = try Self.reads(&s, &names)
        #expect(read.map(\.topic) == Array(repeating: "line/7/temperature", count: 4))
        #expect(read.map(\.packet.text) == ["1", "2", "3", "4"])
        #expect(read.map(\.packet.topicAlias) == [nil, 1, 1, 1])
        #expect(read.map(\.packet.topic) == ["line/7/temperature", "line/7/temperature", "", ""])
    }

    @Test(
        "[MQTT5-3.1.2-26] [MQTT5-3.1.2-27] No alias above the client's maximum, and none without one",
        arguments: [(nil, 0), (0, 0), (1, 1), (3, 3), (16, 16), (65535, 16)] as [(UInt16?, Int)])
    func maximum(maximum: UInt16?, expected: Int) throws {
        var s = Self.board(maximum)
        var names: [UInt16: String] = [:]
        for n in 1...20 {
            for _ in 1...3 { s.sends("press", .publish(.text("line/\(n)/temperature"))) }
        }
        let read = try Self.reads(&s, &names)
        #expect(
            read.map(\.topic) == (1...20).flatMap { Array(repeating: "line/\($0)/temperature", count: 3) })
        #expect(names.keys.max().map(Int.init) ?? 0 == expected)
        #expect(read.contains { $0.packet.topic.isEmpty } == (expected > 0))
    }

    @Test("When all are taken, the name unused for longest gives its alias away")
    func leastRecentlyUsed() throws {
        var s = Self.board(2)
        var names: [UInt16: String] = [:]
        for name in ["aaaa", "aaaa", "bbbb", "bbbb", "aaaa", "cccc", "cccc", "aaaa", "bbbb", "cccc"] {
            s.sends("press", .publish(.text(name)))
        }
        let read = try Self.reads(&s, &names)
        #expect(
            read.map(\.topic) == [
                "aaaa", "aaaa", "bbbb", "bbbb", "aaaa", "cccc", "cccc", "aaaa", "bbbb", "cccc",
            ])
        // The last bbbb takes the alias of cccc, which was used before aaaa; then cccc takes that of aaaa.
        #expect(read.map(\.packet.topicAlias) == [nil, 1, nil, 2, 1, nil, 2, 1, 2, 1])
    }

    @Test("Names that come round too seldom are sent as they are, without three bytes more")
    func roundRobin() throws {
        var s = Self.board(16)
        var names: [UInt16: String] = [:]
        for _ in 1...3 {
            for n in 1...100 { s.sends("press", .publish(.text("line/\(n)/temperature"))) }
        }
        #expect(try Self.reads(&s, &names).allSatisfy { $0.packet.topicAlias == nil })
    }

    @Test("A name no longer than an alias is sent as it is")
    func shortName() throws {
        var s = Self.board(16)
        for _ in 1...5 { s.sends("press", .publish(.text("a/b"))) }
        #expect(s.received("board").publishes.allSatisfy { $0.topicAlias == nil })
    }

    @Test(
        "[MQTT5-3.3.2-7] Aliases end with their connection: what is sent again on the next one names its topic"
    )
    func nextConnection() throws {
        var s = Self.board(10)
        var names: [UInt16: String] = [:]
        for id in 1...4 {
            s.sends(
                "press",
                .publish(
                    .text(
                        "line/7/state", "\(id)", qos: .atLeastOnce, id: PacketIdentifier(rawValue: UInt16(id))
                    )))
        }
        s.syncs()
        #expect(try Self.reads(&s, &names).map(\.packet.topicAlias) == [nil, 1, 1, 1])
        s.vanishes("board")
        Self.connect("board", 10, nil, &s)
        names = [:]
        let again = try Self.reads(&s, &names)
        #expect(again.map(\.topic) == Array(repeating: "line/7/state", count: 4))
        #expect(again.allSatisfy { $0.packet.duplicate })
        #expect(again.map(\.packet.topicAlias) == [nil, 1, 1, 1])
        s.vanishes("board")
        Self.connect("board", nil, nil, &s)
        #expect(
            s.received("board").publishes.allSatisfy { $0.topicAlias == nil && $0.topic == "line/7/state" })
    }

    @Test("Messages that waited for their Record are given aliases in the order in which they leave")
    func parked() throws {
        var s = Self.board(10)
        var names: [UInt16: String] = [:]
        s.subscribes("board", "#", qos: .atMostOnce)
        for id: UInt16 in 1...3 {
            s.sends(
                "press",
                .publish(
                    .text("line/7/state", "\(id)", qos: .exactlyOnce, id: PacketIdentifier(rawValue: id))))
        }
        s.sends("press", .publish(.text("line/7/state", "0")))
        s.syncs()
        let read = try Self.reads(&s, &names)
        #expect(read.count == 4 && read.allSatisfy { $0.topic == "line/7/state" })
        #expect(read.map(\.packet.topicAlias) == [nil, 1, 1, 1])
    }

    @Test("[MQTT5-3.1.2-24] A packet that only without an alias is small enough goes without")
    func maximumPacketSize() throws {
        let topic = "line/7/temperature"
        let size = Publish.text(topic).encodedSize(version: .v5_0)
        var s = Self.board(10, packetBytesMax: UInt32(size))
        for _ in 1...4 { s.sends("press", .publish(.text(topic))) }
        let sent = s.received("board").publishes
        #expect(sent.count == 4)
        #expect(sent.allSatisfy { $0.encodedSize(version: .v5_0) <= size })
    }

    @Test("A 3.1.1 client is sent names only")
    func before5() {
        var s = Scenario.connected("press")
        s.connects("board", version: .v3_1_1)
        s.subscribes("board", "#")
        for _ in 1...4 { s.sends("press", .publish(.text("line/7/temperature"))) }
        #expect(s.received("board").publishes.allSatisfy { $0.topicAlias == nil && !$0.omitsTopicName })
    }
}
