import MQTT
import Testing
import Workbench

/// More levels than a topic may have here.
let tooDeep = Array(repeating: "a", count: 202).joined(separator: "/")

@Suite("3.8 SUBSCRIBE and 3.10 UNSUBSCRIBE, in each version")
struct SubscribingTests {
    @Test(
        "[MQTT5-3.8.4-1, MQTT5-3.8.4-2, MQTT5-3.8.4-5, MQTT5-3.8.4-7] [MQTT311-3.8.4-1, MQTT311-3.8.4-2, MQTT311-3.8.4-4, MQTT311-3.8.4-5] [MQTT5-3.9.3-1, MQTT5-3.9.3-2, MQTT311-3.9.3-1, MQTT311-3.9.3-2] [MQTT5-2.2.1-6, MQTT311-2.3.1-7] One SUBACK with the identifier and a code for every filter",
        arguments: allVersions, [PacketIdentifier(1), 0x00FF, 0xFF00, 0xFFFF])
    func suback(version: ProtocolVersion, id: PacketIdentifier) throws {
        let caller = try Caller.connected(version)
        let name = caller.name
        caller.send(
            .subscribe(
                id,
                [
                    ("\(name)/a", .atLeastOnce), (tooDeep, .exactlyOnce), ("\(name)/b", .exactlyOnce),
                    ("\(name)/+", .atMostOnce), ("#", .atMostOnce), ("\(name)/a", .exactlyOnce),
                ]))
        let failure: ReasonCode = version == .v5_0 ? .topicFilterInvalid : .unspecifiedError
        let subacks = try caller.heard().filter { if case .suback = $0 { true } else { false } }
        #expect(
            subacks == [
                .suback(
                    Suback(
                        id: id,
                        reasons: [
                            .grantedQoS1, failure, .grantedQoS2, .grantedQoS0, .grantedQoS0, .grantedQoS2,
                        ]))
            ])
    }

    @Test(
        "[MQTT311-3.8.4-6, MQTT5-3.8.4-8] [MQTT311-3.3.5-1, MQTT5-3.3.4-2] [MQTT311-3.3.2-3, MQTT5-3.3.2-3] A message goes to those whose filter matches, once, at the lower of its QoS and the highest granted",
        arguments: allVersions)
    func matching(version: ProtocolVersion) throws {
        let caller = try Caller.connected(version)
        let name = caller.name
        try caller.subscribe("\(name)/a/+", .atMostOnce)
        try caller.subscribe("\(name)/#", .atLeastOnce)
        try caller.subscribe("\(name)/a/b", .exactlyOnce)
        try caller.subscribe("\(name)/a/B", .exactlyOnce)
        let press = try Caller.connected()
        for qos in [QoS.atMostOnce, .atLeastOnce, .exactlyOnce] {
            let id: PacketIdentifier? = qos == .atMostOnce ? nil : 1
            for topic in ["a/b", "a/c", "a", "x/a/b"] {
                try press.publish(.text("\(name)/\(topic)", topic, qos, id: id))
            }
            try press.publish(.text("x/\(name)/a/b", "elsewhere", qos, id: id))
            try press.publish(.text("\(name)x/a/b", "elsewhere", qos, id: id))
            let got = try caller.next(4).publishes.sorted { $0.payload < $1.payload }
            #expect(got.map(\.payload) == ["a", "a/b", "a/c", "x/a/b"])
            #expect(got.map(\.topic) == got.map { "\(name)/\($0.payload)" })
            #expect(
                got.map(\.qos) == [
                    min(qos, .atLeastOnce), qos, min(qos, .atLeastOnce), min(qos, .atLeastOnce),
                ])
            for publish in got {
                guard let id = publish.id else { continue }
                caller.send(publish.qos == .exactlyOnce ? .pubrec(id) : .puback(id))
            }
            for case .pubrel(let pubrel) in try caller.heard() { caller.send(.pubcomp(pubrel.id)) }
        }
        #expect(try caller.heard() == [])
    }

    @Test("[MQTT5-3.3.4-3] [MQTT5-3.3.4-4] Subscription Identifiers of all matching subscriptions come along")
    func subscriptionIdentifiers() throws {
        let caller = try Caller.connected()
        let name = caller.name
        try caller.subscribe("\(name)/#", .atMostOnce, identifier: 268_435_455)
        try caller.subscribe("\(name)/+", .exactlyOnce, identifier: 1)
        try caller.subscribe("\(name)/a", .exactlyOnce)
        try caller.subscribe("\(name)/b", .exactlyOnce, identifier: 7)
        let press = try Caller.connected()
        try press.publish(.text("\(name)/a"))
        try press.publish(.text("\(name)/a/a"))
        try press.publish(.text("\(name)/b", "x", .atLeastOnce, id: 1))
        let got = try caller.next(3).publishes
        #expect(
            got.map { $0.subscriptionIdentifiers.sorted() } == [
                [1, 268_435_455], [268_435_455], [1, 7, 268_435_455],
            ])
    }

    @Test("[MQTT5-3.8.4-4] A subscription replaced is sent the retained messages again and loses nothing")
    func replaced() throws {
        let caller = try Caller.connected()
        let press = try Caller.connected()
        // Which of two connections is read first is open, so there is something to replace from the start.
        try caller.subscribe(caller.name, .atMostOnce)
        try press.publish(.text(caller.name, "kept", .atLeastOnce, id: 1, retain: true))
        #expect(try caller.heard().payloads == ["kept"])
        for handling in [
            RetainHandling.sendOnSubscribe, .sendIfNewSubscription, .doNotSend, .sendOnSubscribe,
        ] {
            let request = SubscriptionRequest(
                filter: filter(caller.name), maximumQoS: .atMostOnce, retainHandling: handling)
            caller.send(.subscribe(Subscribe(id: 1, requests: [request])))
            press.send(.publish(caller.name, "live"))
            #expect(try press.heard() == [])
            let got = try caller.heard().publishes
            #expect(got.filter { !$0.retain }.map(\.payload) == ["live"])
            #expect(got.filter(\.retain).map(\.payload) == (handling == .sendOnSubscribe ? ["kept"] : []))
        }
    }

    @Test(
        "[MQTT311-3.10.4-4, MQTT311-3.10.4-5, MQTT311-3.10.4-6] [MQTT5-3.10.4-4, MQTT5-3.10.4-5, MQTT5-3.10.4-6] [MQTT5-3.11.3-1, MQTT5-3.11.3-2] One UNSUBACK with the identifier, a code for each filter, also where nothing was",
        arguments: allVersions)
    func unsuback(version: ProtocolVersion) throws {
        let caller = try Caller.connected(version)
        let name = caller.name
        try caller.subscribe("\(name)/a")
        try caller.subscribe("\(name)/b")
        caller.send(.unsubscribe(0xFFFF, "\(name)/b", "\(name)/none", tooDeep, "\(name)/a"))
        let reasons: [ReasonCode] = [
            .success, .noSubscriptionExisted, .noSubscriptionExisted, .success,
        ]
        let expected = Unsuback(id: 0xFFFF, reasons: version == .v5_0 ? reasons : [])
        #expect(try caller.heard() == [.unsuback(expected)])
        caller.send(.unsubscribe(3, "\(name)/a"))
        let again = Unsuback(id: 3, reasons: version == .v5_0 ? [.noSubscriptionExisted] : [])
        #expect(try caller.heard() == [.unsuback(again)])
    }

    @Test(
        "[MQTT311-3.10.4-1, MQTT311-3.10.4-2] [MQTT5-3.10.4-1, MQTT5-3.10.4-2] Filters are compared character by character, and nothing new comes for those deleted",
        arguments: allVersions)
    func unsubscribed(version: ProtocolVersion) throws {
        let caller = try Caller.connected(version)
        let name = caller.name
        let filters = ["\(name)/a", "\(name)/+", "\(name)/A", "\(name)/a/", "\(name)/a/#"]
        for filter in filters { try caller.subscribe(filter, .atMostOnce) }
        let press = try Caller.connected()
        // Deleting the others leaves the first as it was.
        for filter in filters.dropFirst() {
            caller.send(.unsubscribe(9, filter))
            _ = try caller.next()
            try press.publish(.text("\(name)/a"))
            #expect(try caller.heard().publishes.count == 1)
        }
        caller.send(.unsubscribe(9, filters[0]))
        _ = try caller.next()
        try press.publish(.text("\(name)/a"))
        #expect(try caller.heard() == [])
    }

    @Test(
        "[MQTT311-3.10.4-3, MQTT5-3.10.4-3] Deliveries that began are completed", arguments: allVersions)
    func completed(version: ProtocolVersion) throws {
        let name = Caller.newName()
        func connected() throws -> Caller {
            try Caller.connected(version, name: name) {
                $0.cleanStart = false
                if version == .v5_0 { $0.sessionExpirySeconds = 100 }
            }
        }
        var caller = try connected()
        try caller.subscribe(name, .exactlyOnce)
        let press = try Caller.connected()
        try press.publish(.text(name, "begun", .exactlyOnce, id: 1))
        let begun = try #require(try caller.next(1).publishes.first)
        let id = try #require(begun.id)
        caller.send(.unsubscribe(9, name))
        _ = try caller.next()
        caller.vanish()
        caller = try connected()
        let repeated = try #require(try caller.next(1).publishes.first)
        #expect(repeated.payload == "begun" && repeated.id == id && repeated.duplicate)
        caller.send(.pubrec(id))
        #expect(try caller.next() == .pubrel(Acknowledgement(id)))
        caller.send(.pubcomp(id))
        #expect(try caller.heard() == [])
    }
}
