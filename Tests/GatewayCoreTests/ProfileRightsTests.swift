import MQTT
import Testing

@testable import GatewayCore

/// Where a class of device may publish and subscribe.
@Suite("Device profiles: rights")
struct ProfileRightsTests {
    private static func templates(_ texts: [String]) throws -> [TopicTemplate] {
        try texts.map { try TopicTemplate($0) }
    }

    private static func plan(
        publish: (allow: [String]?, deny: [String]) = (nil, []),
        subscribe: (allow: [String]?, deny: [String]) = (nil, [])
    ) throws -> GatewayPlan {
        try ProfileTermsTests.plan {
            $0.publish = TopicRights(
                allow: try publish.allow.map(templates), deny: try templates(publish.deny))
            $0.subscribe = TopicRights(
                allow: try subscribe.allow.map(templates), deny: try templates(subscribe.deny))
        }
    }

    private static let own = (allow: ["out/${clientid}/#", "all"], deny: ["out/+/secret"])

    @Test(
        "Publishing: what is denied is refused, whatever is allowed",
        arguments: [
            ("out/press/x", true), ("out/press", true), ("all", true), ("out/press/secret", false),
            ("out/oven/x", false), ("all/x", false), ("other", false),
        ])
    func publishing(topic: String, isAllowed: Bool) throws {
        var s = Scenario.connected("press", "sub", plan: try Self.plan(publish: Self.own))
        s.subscribes("sub", "#", qos: .exactlyOnce)
        s.sends("press", .publish(.text(topic, qos: .atLeastOnce, id: 1)))
        s.sends("press", .publish(.text(topic, qos: .exactlyOnce, id: 2)))
        s.syncs()
        let reason = isAllowed ? ReasonCode.success : .notAuthorized
        #expect(
            s.received("press") == [.puback(Acknowledgement(1, reason)), .pubrec(Acknowledgement(2, reason))])
        #expect(s.received("sub").publishes.count == (isAllowed ? 2 : 0))
        #expect(s.gateway.profileCounts[0].refusedPublishes == (isAllowed ? 0 : 2))
        // The Packet Identifier of what was refused is free again.
        if !isAllowed { s.sends("press", .publish(.text("all", qos: .exactlyOnce, id: 2))) }
        s.syncs()
        #expect(s.closedClients.isEmpty)
    }

    @Test("[MQTT311-3.3.5-2] before MQTT 5 who publishes where it may not is closed, as at QoS 0 always")
    func publishingBefore5() throws {
        var s = Scenario(plan: try Self.plan(publish: Self.own))
        s.connects("press", version: .v3_1_1)
        s.sends("press", .publish(.text("all", qos: .atLeastOnce, id: 1)))
        #expect(s.received("press") == [.puback(Acknowledgement(1))])
        s.sends("press", .publish(.text("other", qos: .atLeastOnce, id: 2)))
        #expect(s.received("press") == [] && s.closedClients == ["press"])
        s.connects("press5")
        s.sends("press5", .publish(.text("other")))
        #expect(s.received("press5") == [.disconnect(Disconnect(.notAuthorized))])
    }

    @Test("A Topic Alias is no way round")
    func alias() throws {
        var s = Scenario.connected("press", plan: try Self.plan(publish: Self.own))
        var publish = Publish.text("other", qos: .atLeastOnce, id: 1)
        publish.topicAlias = 1
        s.sends("press", .publish(publish))
        publish = Publish.text("", qos: .atLeastOnce, id: 2)
        publish.topicAlias = 1
        s.sends("press", .publish(publish))
        #expect(
            s.received("press") == [1, 2].map { .puback(Acknowledgement($0, .notAuthorized)) })
    }

    @Test("[MQTT5-3.9.3-1] subscribing: allowed is what lies within one rule; denied, what touches one")
    func subscribing() throws {
        let rights = (allow: ["in/${clientid}/#", "all/+", "$SYS/#"], deny: ["in/+/secret/#"])
        let expected: [(String, ReasonCode)] = [
            ("in/press/x", .grantedQoS2), ("in/press/+", .notAuthorized), ("in/press/#", .notAuthorized),
            ("in/press/a/+", .grantedQoS2), ("in/oven/x", .notAuthorized), ("all/+", .grantedQoS2),
            ("all/#", .notAuthorized), ("#", .notAuthorized), ("$SYS/broker/uptime", .grantedQoS2),
            ("$share/g/all/1", .grantedQoS2), ("$share/g/other", .notAuthorized),
        ]
        for version in [ProtocolVersion.v5_0, .v3_1_1] {
            var s = Scenario(plan: try Self.plan(subscribe: rights))
            s.connects("press", version: version)
            for (filter, reason) in expected {
                s.sends("press", .subscribe(filter))
                s.syncs()
                #expect(s.received("press").subackReasons == [reason], "\(filter)")
            }
            #expect(s.gateway.profileCounts[0].refusedSubscriptions == 6)
        }
    }

    @Test("[MQTT5-3.9.3-2] each request of a SUBSCRIBE has its own answer, and others are carried out")
    func several() throws {
        var s = Scenario.connected("press", plan: try Self.plan(subscribe: (["a"], [])))
        let requests = try ["a", "b"].map { text in
            SubscriptionRequest(filter: try #require(TopicFilter(text)), maximumQoS: .atLeastOnce)
        }
        s.sends("press", .subscribe(Subscribe(id: 7, requests: requests)))
        s.syncs()
        #expect(s.received("press").subackReasons == [.grantedQoS1, .notAuthorized])
        s.sends("press", .publish(.text("a")))
        s.sends("press", .publish(.text("b")))
        #expect(s.received("press").publishes.map(\.topic) == ["a"])
    }

    @Test(
        "What denies everything denies names that begin with $ too; what allows everything does not allow them"
    )
    func dollar() throws {
        var s = Scenario.connected(
            "press", plan: try Self.plan(publish: (nil, ["#"]), subscribe: (nil, ["#"])))
        s.connects("oven")
        s.sends("press", .publish(.text("$x/a", qos: .atLeastOnce, id: 1)))
        for filter in ["$x/#", "$SYS/#", "$share/g/$x/a"] { s.sends("press", .subscribe(filter)) }
        #expect(
            s.received("press").dropFirst().compactMap { [$0].subackReasons }
                == Array(repeating: [.notAuthorized], count: 3))
        s.reconfigures(try Self.plan(publish: (["#"], ["+/b"]), subscribe: (["#"], [])))
        for (n, topic) in ["$x/a", "$x/b", "x/b", "x/a"].enumerated() {
            s.sends(
                "press",
                .publish(.text(topic, qos: .atLeastOnce, id: PacketIdentifier(rawValue: UInt16(n + 2)))))
        }
        let reasons = s.received("press").compactMap {
            if case .puback(let answer) = $0 { answer.reason } else { nil }
        }
        #expect(reasons == [.notAuthorized, .notAuthorized, .notAuthorized, .noMatchingSubscribers])
        s.sends("press", .subscribe("$SYS/#"))
        #expect(s.received("press").subackReasons == [.notAuthorized])
    }

    @Test("A rule that the client's name makes too long denies everything rather than nothing")
    func endlessName() throws {
        let name = "press" + String(repeating: "x", count: 65_527)
        var s = Scenario(plan: try Self.plan(publish: (nil, ["a/${clientid}/#"])))
        s.connects(name)
        s.sends(name, .publish(.text("a/" + name, qos: .atLeastOnce, id: 1)))
        #expect(s.received(name) == [.puback(Acknowledgement(1, .notAuthorized))])
    }

    @Test("A Will to a topic where its client may not publish is refused with CONNECT")
    func will() throws {
        var s = Scenario(plan: try Self.plan(publish: Self.own))
        s.opens("press", Connect(clientIdentifier: "press", will: .text("other")))
        #expect(s.received("press").connack?.reason == .notAuthorized)
        s.opens("press2", Connect(clientIdentifier: "press2", will: .text("out/press2/gone")))
        s.syncs()
        #expect(s.received("press2").connack?.reason == .success)
    }

    @Test(
        "Whose name would reach into other topics is refused where the profile uses it",
        arguments: ["press/#", "press+", "press/oven", "#", "$SYS"])
    func smuggled(name: String) throws {
        var plan = try Self.plan(publish: Self.own)
        plan.profiles[0].matches = [DeviceMatch(clientIdentifier: Glob("*"))]
        for version in [ProtocolVersion.v5_0, .v3_1_1] {
            var s = Scenario(plan: plan)
            s.opens("x", Connect(version: version, clientIdentifier: name))
            #expect(s.received("x").connack?.reason == .clientIdentifierNotValid)
            #expect(s.closedClients == ["x"])
        }
        var s = Scenario(plan: try Self.plan(publish: (["all"], [])))
        s.opens("x", Connect(clientIdentifier: name))
        #expect(s.received("x").connack?.reason == .success)
    }

    @Test("The same of user names, and of having none")
    func smuggledUserNames() throws {
        let plan = try Self.plan(publish: (["out/${username}/#"], []))
        for name in ["+", "a/b", "", nil] as [String?] {
            var s = Scenario(plan: plan)
            s.opens("x", Connect(clientIdentifier: "press", userName: name))
            #expect(s.received("x").connack?.reason == .badUserNameOrPassword)
        }
        var s = Scenario(plan: plan)
        s.opens("x", Connect(clientIdentifier: "press", userName: "u"))
        s.syncs()
        #expect(s.received("x").connack?.reason == .success)
        s.sends("x", .publish(.text("out/u/1", qos: .atLeastOnce, id: 1)))
        #expect(s.received("x") == [.puback(Acknowledgement(1, .noMatchingSubscribers))])
    }

    @Test("Who leaves its name to the gateway is treated by the one it gets [MQTT5-3.1.3-6]")
    func assigned() throws {
        var plan = try Self.plan(publish: (["out/${clientid}"], []))
        plan.profiles[0].matches = [DeviceMatch(clientIdentifier: Glob("*"))]
        var s = Scenario(plan: plan)
        s.opens("x", Connect(clientIdentifier: ""))
        let name = try #require(s.received("x").connack?.assignedClientIdentifier)
        s.sends("x", .publish(.text("out/" + name, qos: .atLeastOnce, id: 1)))
        s.sends("x", .publish(.text("out/", qos: .atLeastOnce, id: 2)))
        #expect(
            s.received("x") == [
                .puback(Acknowledgement(1, .noMatchingSubscribers)),
                .puback(Acknowledgement(2, .notAuthorized)),
            ])
    }

    @Test("[MQTT5-3.1.2-29] MQTT 5 clients are told in words that it is their profile")
    func words() throws {
        var s = Scenario.connected("press", plan: try Self.plan(publish: Self.own))
        s.sends("press", .publish(.text("other", qos: .atLeastOnce, id: 1)))
        #expect(s.receivedInFull("press").first?.reasonString?.contains("device profile") == true)
        s.opens("press/", Connect(clientIdentifier: "press/"))
        #expect(s.receivedInFull("press/").first?.reasonString?.contains("Client Identifier") == true)
    }

    @Test("Rights change with the configuration, at once and without losing the Session")
    func reconfigured() throws {
        var s = Scenario.connected("press", plan: try Self.plan(publish: (["a"], [])))
        s.reconfigures(try Self.plan(publish: (["b"], [])))
        for (n, topic) in ["a", "b"].enumerated() {
            s.sends(
                "press",
                .publish(.text(topic, qos: .atLeastOnce, id: PacketIdentifier(rawValue: UInt16(n + 1)))))
        }
        #expect(
            s.received("press") == [
                .puback(Acknowledgement(1, .notAuthorized)),
                .puback(Acknowledgement(2, .noMatchingSubscribers)),
            ])
        #expect(s.closedClients.isEmpty)
        s.reconfigures(GatewayPlan())
        s.sends("press", .publish(.text("a", qos: .atLeastOnce, id: 3)))
        #expect(s.received("press") == [.puback(Acknowledgement(3, .noMatchingSubscribers))])
    }

    @Test(
        "P2: [MQTT5-4.3.3-10] a QoS 2 message that was taken is answered so when it is sent again, also where it may not be published any more",
        arguments: [ProtocolVersion.v5_0, .v3_1_1])
    func repeated(version: ProtocolVersion) throws {
        var s = Scenario.connected("sub", plan: try Self.plan(publish: (["a", "b"], [])))
        s.subscribes("sub", "#")
        s.connects("press", version: version)
        s.sends("press", .publish(.text("a", "1", qos: .exactlyOnce, id: 7)))
        s.vanishes("press")
        s.syncs()
        s.reconfigures(try Self.plan(publish: (["b"], [])))
        s.connects("press", version: version)
        s.sends("press", .publish(.text("a", "1", qos: .exactlyOnce, id: 7, duplicate: true)))
        s.syncs()
        #expect(s.received("press") == [.pubrec(Acknowledgement(7))])
        s.sends("press", .pubrel(Acknowledgement(7)))
        s.sends("press", .publish(.text("b", "2", qos: .exactlyOnce, id: 7)))
        s.syncs()
        #expect(s.received("press") == [.pubcomp(Acknowledgement(7)), .pubrec(Acknowledgement(7))])
        #expect(s.drains("sub").map(\.text) == ["1", "2"])
    }

    @Test("Who cannot be treated as a new configuration says is closed and told why")
    func reconfiguredAway() throws {
        var s = Scenario.connected("press/1", "press2", plan: GatewayPlan())
        s.reconfigures(try Self.plan(publish: Self.own))
        #expect(s.closedClients == ["press/1"])
        #expect(s.received("press/1") == [.disconnect(Disconnect(.administrativeAction))])
    }

    @Test("[MQTT5-4.7.2-1] What denies names that begin with $ denies no subscription that matches none")
    func dollarDenied() throws {
        let deny = ["$SYS/#", "$x/a"]
        let filters: [(String, ReasonCode)] = [
            ("#", .grantedQoS2), ("+/a", .grantedQoS2), ("$share/g/#", .grantedQoS2), ("$x/b", .grantedQoS2),
            ("$SYS/#", .notAuthorized), ("$SYS/broker/+", .notAuthorized), ("$x/+", .notAuthorized),
            ("$share/g/$x/a", .notAuthorized),
        ]
        var s = Scenario.connected("press", "pub", plan: try Self.plan(subscribe: (nil, deny)))
        for (filter, reason) in filters {
            s.sends("press", .subscribe(filter))
            s.syncs()
            #expect(s.received("press").subackReasons == [reason], "\(filter)")
        }
        s.connects("press2")
        s.reconfigures(GatewayPlan())
        s.subscribes("press2", "#")
        s.reconfigures(try Self.plan(subscribe: (nil, deny)))
        s.publishes("pub", "x/1", "1", id: 1)
        s.syncs()
        #expect(s.drains("press2").map(\.text) == ["1"])
        #expect(s.gateway.clients.allSatisfy { $0.restingSubscriptions == 0 })
    }
}
