import GatewayCore
import MQTT
import Testing

/// Matching itself is tested with `TopicFilter`; here, what subscriptions make of a message.
@Suite("3.8 SUBSCRIBE and 3.10 UNSUBSCRIBE")
struct SubscribingTests {
    @Test(
        "[MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.2-1] Wildcards match whole levels, and no leading $",
        arguments: [
            ("a/b", "a/b", true), ("a/+", "a/b", true), ("a/#", "a", true), ("a/#", "a/b/c", true),
            ("+", "a/b", false), ("#", "a/b", true), ("+/+", "/b", true), ("a/+", "a/", true),
            ("#", "$data/x", false), ("+/x", "$data/x", false), ("$data/#", "$data/x", true),
            ("a/b", "a/B", false),
        ])
    func wildcards(filter: String, topic: String, matches: Bool) {
        var s = Scenario.connected("press", "screen")
        s.subscribes("screen", filter)
        s.sends("press", .publish(.text(topic)))
        #expect(s.texts("screen") == (matches ? ["x"] : []))
        s.sends("screen", .unsubscribe(filter))
        s.syncs()
        _ = s.received("screen")
        s.sends("press", .publish(.text(topic)))
        #expect(s.texts("screen") == [])  // [MQTT5-3.10.4-2]
    }

    @Test("[MQTT5-3.8.3-3] A publisher with No Local is a subscriber all the same: no 0x10, which others get")
    func noLocalIsASubscriber() {
        var s = Scenario.connected("press")
        guard let filter = TopicFilter("own/#") else { return }
        let request = SubscriptionRequest(filter: filter, maximumQoS: .exactlyOnce, noLocal: true)
        s.sends("press", .subscribe(Subscribe(id: 9, requests: [request])))
        s.syncs()
        _ = s.received("press")
        s.sends("press", .publish(.text("own/t", qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text("own/t", qos: .exactlyOnce, id: 2)))
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 3)))
        s.syncs()
        #expect(
            s.received("press") == [
                .puback(Acknowledgement(1)), .pubrec(Acknowledgement(2)),
                .puback(Acknowledgement(3, .noMatchingSubscribers)),
            ])
    }

    @Test(
        "A bridge of 3.1 or 3.1.1 gets nothing of its own back, and the rest with the RETAIN it was published with",
        arguments: [ProtocolVersion.v3_1, .v3_1_1], [false, true])
    func bridge(version: ProtocolVersion, isBridge: Bool) {
        var s = Scenario.connected("press")
        s.opens("hall", Connect(version: version, clientIdentifier: "hall", isBridge: isBridge))
        s.syncs()
        s.subscribes("hall", "#")
        _ = s.received("hall")
        s.sends("hall", .publish(.text("t", "own")))
        s.sends("press", .publish(.text("t", "kept", retain: true)))
        s.sends("press", .publish(.text("t", "passing")))
        s.syncs()
        let got = s.received("hall").publishes
        #expect(got.map(\.text) == (isBridge ? ["kept", "passing"] : ["own", "kept", "passing"]))
        #expect(got.map(\.retain) == (isBridge ? [true, false] : [false, false, false]))
    }

    @Test("[MQTT5-4.3.3-8] Who hears itself gets PUBREC before its own message", arguments: [nil, 3600])
    func answeredFirst(expiry: UInt32?) {
        var s = Scenario()
        s.connects("press", cleanStart: true, expiry: expiry)
        s.subscribes("press", "t")
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 7)))
        s.syncs()
        let got = s.received("press")
        #expect(got.first == .pubrec(Acknowledgement(7)))
        #expect(got.publishes.count == 1)
    }

    @Test("A topic may have as many levels as Mosquitto lets it have, and no more")
    func deepTopics() {
        var s = Scenario.connected("press", "screen")
        let deepest = String(repeating: "/", count: 200)
        s.subscribes("screen", deepest)
        s.sends("press", .publish(.text(deepest, qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text(deepest + "/", qos: .atLeastOnce, id: 2)))
        s.syncs()
        #expect(s.received("screen").publishes.map(\.topic) == [deepest])
        #expect(
            s.received("press") == [
                .puback(Acknowledgement(1)), .puback(Acknowledgement(2, .topicNameInvalid)),
            ])
    }

    @Test(
        "[MQTT5-3.3.4-2] [MQTT5-3.3.4-4] Overlapping subscriptions deliver once, at the highest QoS, with all identifiers"
    )
    func overlapping() {
        var s = Scenario.connected("press", "screen")
        s.sends("screen", .subscribe("a/#", qos: .atLeastOnce, identifier: 1))
        s.sends("screen", .subscribe("a/+", qos: .exactlyOnce, identifier: 2))
        s.sends("screen", .subscribe("a/b", qos: .atMostOnce, identifier: 3))
        s.sends("screen", .subscribe("a/b/c", qos: .atMostOnce, identifier: 4))
        s.syncs()
        _ = s.received("screen")
        s.sends("press", .publish(.text("a/b", qos: .exactlyOnce, id: 1)))
        s.syncs()
        let got = s.received("screen").publishes
        #expect(got.map(\.qos) == [.exactlyOnce])
        #expect(got.map { $0.subscriptionIdentifiers.sorted() } == [[1, 2, 3]])
    }

    @Test(
        "[MQTT5-3.8.4-8] A message is delivered at the lower of its QoS and the granted",
        arguments: [QoS.atMostOnce, .atLeastOnce, .exactlyOnce], [QoS.atMostOnce, .atLeastOnce, .exactlyOnce])
    func downgrade(published: QoS, granted: QoS) {
        var s = Scenario.connected("press", "screen")
        s.subscribes("screen", "t", qos: granted)
        s.sends("press", .publish(.text("t", qos: published, id: published == .atMostOnce ? nil : 1)))
        s.syncs()
        #expect(s.received("screen").publishes.map(\.qos) == [min(published, granted)])
    }

    @Test("[MQTT5-3.8.3-3] No Local does not send a client its own messages")
    func noLocal() {
        var s = Scenario.connected("press", "other")
        s.sends("press", .subscribe("t", noLocal: true))
        s.syncs()
        _ = s.received("press")
        s.sends("press", .publish(.text("t", "own")))
        s.sends("other", .publish(.text("t", "other's")))
        #expect(s.texts("press") == ["other's"])
    }

    @Test(
        "[MQTT5-3.3.1-12] [MQTT5-3.3.1-13] [MQTT311-3.3.1-9] RETAIN is kept only by Retain As Published",
        arguments: [false, true], [false, true])
    func retainAsPublished(asPublished: Bool, retain: Bool) {
        var s = Scenario.connected("press", "screen")
        s.sends("screen", .subscribe("t", retainAsPublished: asPublished))
        s.syncs()
        _ = s.received("screen")
        s.sends("press", .publish(.text("t", retain: retain)))
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1, retain: retain)))
        s.syncs()
        #expect(
            s.received("screen").publishes.map(\.retain) == Array(repeating: asPublished && retain, count: 2))
    }

    @Test(
        "[MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11] Retain Handling",
        arguments: [(RetainHandling.sendOnSubscribe, 2), (.sendIfNewSubscription, 1), (.doNotSend, 0)])
    func retainHandling(handling: RetainHandling, times: Int) {
        var s = Scenario.connected("press", "screen")
        s.sends("press", .publish(.text("t", retain: true)))
        s.sends("screen", .subscribe("t", retainHandling: handling))
        s.sends("screen", .subscribe("t", retainHandling: handling))
        s.syncs()
        #expect(s.texts("screen").count == times)
    }

    @Test(
        "[MQTT5-3.8.4-3] [MQTT311-3.8.4-3] A subscription with the same filter takes the place of the first")
    func replaced() {
        var s = Scenario.connected("press", "screen")
        s.sends("screen", .subscribe("t", qos: .exactlyOnce, identifier: 1))
        s.sends("screen", .subscribe("t", qos: .atMostOnce, identifier: 2))
        s.syncs()
        _ = s.received("screen")
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1)))
        let got = s.received("screen").publishes
        #expect(got.map(\.qos) == [.atMostOnce])
        #expect(got.map(\.subscriptionIdentifiers) == [[2]])
    }

    @Test(
        "[MQTT5-3.8.4-2] [MQTT5-3.8.4-5] [MQTT5-3.8.4-6] [MQTT5-3.9.3-1] One SUBACK with the id and a code for each filter, in order"
    )
    func suback() {
        var plan = GatewayPlan()
        plan.limits.subscriptionsPerSessionMax = 3
        plan.limits.topicLevelsMax = 3
        var s = Scenario.connected("screen", plan: plan)
        let filters = ["a", "$share/g/a", "b", "a/b/c/d", "c", "d"]
        let requests = filters.enumerated().map { i, filter in
            SubscriptionRequest(
                filter: TopicFilter(filter)!, maximumQoS: QoS(rawValue: UInt8(i % 3)) ?? .atMostOnce)
        }
        s.sends("screen", .subscribe(Subscribe(id: 5, requests: requests)))
        s.syncs()
        #expect(
            s.received("screen") == [
                .suback(
                    Suback(
                        id: 5,
                        reasons: [
                            .grantedQoS0, .grantedQoS1, .grantedQoS2, .topicFilterInvalid,
                            .quotaExceeded, .quotaExceeded,
                        ]))
            ])
    }

    @Test(
        "[MQTT5-3.10.4-4] [MQTT5-3.10.4-5] [MQTT5-3.11.3-1] UNSUBACK has the id and a code for each filter, in order"
    )
    func unsuback() {
        var s = Scenario.connected("screen")
        s.subscribes("screen", "a")
        s.sends(
            "screen",
            .unsubscribe(
                Unsubscribe(id: 6, filters: [TopicFilter("b")!, TopicFilter("a")!, TopicFilter("a/#")!])))
        s.syncs()
        #expect(
            s.received("screen") == [
                .unsuback(
                    Unsuback(id: 6, reasons: [.noSubscriptionExisted, .success, .noSubscriptionExisted]))
            ])
    }

    @Test("[MQTT5-3.10.4-3] What was on its way when the subscription ended is still delivered")
    func inFlightOutlivesUnsubscribe() {
        var s = Scenario.connected("press", "screen")
        s.subscribes("screen", "t")
        s.sends("press", .publish(.text("t", qos: .exactlyOnce, id: 1)))
        s.sends("screen", .unsubscribe("t"))
        #expect(s.drains("screen").map(\.text) == ["x"])
    }

    @Test("[MQTT5-4.6.0-5] Messages of one publisher and topic arrive in order at each QoS")
    func order() {
        var s = Scenario.connected("press", "screen")
        s.subscribes("screen", "t")
        for n in 1...20 {
            let qos: QoS = n % 2 == 0 ? .exactlyOnce : .atLeastOnce
            s.sends(
                "press", .publish(.text("t", "\(n)", qos: qos, id: PacketIdentifier(rawValue: UInt16(n)))))
        }
        #expect(s.drains("screen").map(\.text) == (1...20).map(String.init))
    }
}

@Suite("3.3.1.3 Retained messages")
struct RetainedTests {
    private static func retained(_ s: inout Scenario, _ filter: String, qos: QoS = .exactlyOnce) -> [Publish]
    {
        s.connects("fresh", cleanStart: true, expiry: 0)
        s.sends("fresh", .subscribe(filter, qos: qos))
        s.syncs()
        return s.received("fresh").publishes
    }

    @Test(
        "[MQTT5-3.3.1-5] [MQTT311-3.3.1-6] [MQTT311-3.3.1-8] The last retained message goes to a new subscriber with RETAIN 1"
    )
    func replaced() {
        var s = Scenario.connected("press")
        s.sends("press", .publish(.text("a/t", "1", retain: true)))
        s.sends("press", .publish(.text("a/t", "2", retain: true)))
        s.sends("press", .publish(.text("a/t", "3")))
        s.sends("press", .publish(.text("b/t", "4", retain: true)))
        let got = Self.retained(&s, "a/#")
        #expect(got.map(\.text) == ["2"])
        #expect(got.map(\.retain) == [true])
    }

    @Test(
        "[MQTT5-3.3.1-6] [MQTT5-3.3.1-7] [MQTT311-3.3.1-10] [MQTT311-3.3.1-11] An empty payload clears, is delivered, and is not kept"
    )
    func cleared() {
        var s = Scenario.connected("press", "screen")
        s.subscribes("screen", "t")
        s.sends("press", .publish(.text("t", "1", retain: true)))
        s.sends("press", .publish(.text("t", "", retain: true)))
        #expect(s.texts("screen") == ["1", ""])
        #expect(Self.retained(&s, "t") == [])
        s.syncs()
        s.losesPower()
        #expect(Self.retained(&s, "t") == [])
    }

    @Test(
        "A retained message is delivered at the lower of its QoS and the granted",
        arguments: [QoS.atMostOnce, .atLeastOnce, .exactlyOnce])
    func downgrade(granted: QoS) {
        var s = Scenario.connected("press")
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1, retain: true)))
        #expect(Self.retained(&s, "t", qos: granted).map(\.qos) == [min(granted, .atLeastOnce)])
    }

    @Test("[MQTT5-4.7.2-1] A leading wildcard finds no retained message under $")
    func dollar() {
        var s = Scenario.connected("press")
        s.sends("press", .publish(.text("$data/a", retain: true)))
        #expect(Self.retained(&s, "#") == [])
        #expect(Self.retained(&s, "+/a") == [])
        #expect(Self.retained(&s, "$data/+").count == 1)
    }

    @Test(
        "[MQTT5-3.3.2-5] A retained message goes when its expiry interval has passed, also through a power cut",
        arguments: [false, true])
    func expires(powerCut: Bool) {
        var s = Scenario.connected("press")
        for _ in 0..<3 {
            var publish = Publish.text("t", qos: .atLeastOnce, id: 1, retain: true)
            publish.messageExpirySeconds = 10
            s.sends("press", .publish(publish))
            s.syncs()
            s.passes(milliseconds: 4000)
        }
        if powerCut { s.losesPower() }
        s.passes(milliseconds: 5000)
        #expect(Self.retained(&s, "t").map(\.messageExpirySeconds) == [1])
        s.passes(milliseconds: 1000)
        #expect(Self.retained(&s, "t") == [])
    }

    @Test("Retained messages outlive the power cut and their publisher's Session", arguments: [false, true])
    func survives(fromCheckpoint: Bool) {
        var s = Scenario()
        s.connects("press", expiry: 0)
        s.sends("press", .publish(.text("t", qos: .atLeastOnce, id: 1, retain: true)))
        #expect(s.received("press") == [], "it is owed to the retained store")
        s.syncs()
        s.vanishes("press")
        if fromCheckpoint { s.losesPowerAndRecoversFromCheckpoint() } else { s.losesPower() }
        #expect(Self.retained(&s, "t").map(\.text) == ["x"])
    }
}
