import MQTT
import Testing

@testable import GatewayCore

/// Which profile, why, and what it means: asked without connecting anything.
@Suite("Device profiles: explaining")
struct ProfileExplainingTests {
    private static func plan() throws -> GatewayPlan {
        var sensors = DeviceProfile(
            name: "sensors",
            matches: [
                DeviceMatch(clientIdentifier: Glob("s-*"), listener: 1),
                DeviceMatch(username: Glob("sensor")),
            ])
        sensors.publish = TopicRights(
            allow: [try TopicTemplate("out/${clientid}/#")], deny: [try TopicTemplate("out/+/secret")])
        sensors.subscribe = TopicRights(allow: [try TopicTemplate("in/#")])
        sensors.keepsLastValue = [try TopicTemplate("out/+/state")]
        sensors.reportByException = [
            ReportByException(filter: try TopicTemplate("out/+/t"), deadband: .absolute(1))
        ]
        var plan = GatewayPlan()
        plan.profiles = [sensors, DeviceProfile(name: "rest")]
        return plan
    }

    @Test("The profile, by which match, and which ones before it did not agree in what")
    func which() throws {
        let plan = try Self.plan()
        let first = plan.explain(DeviceNames(clientIdentifier: "s-1", listener: 1))
        #expect(first.profile.name == "sensors" && first.match == 0 && first.passedOver.isEmpty)
        #expect(plan.explain(DeviceNames(clientIdentifier: "x", username: "sensor")).match == 1)
        let rest = plan.explain(DeviceNames(clientIdentifier: "s-1", username: "other"))
        #expect(rest.profile.name == "rest" && rest.match == nil)
        #expect(rest.passedOver == [.init(name: "sensors", disagreeing: [[.listener], [.username]])])
        let none = GatewayPlan().explain(DeviceNames(clientIdentifier: "s-1"))
        #expect(none.profile == .builtIn && none.passedOver.isEmpty)
    }

    @Test("Who would be refused, and because of what")
    func refused() throws {
        let explanation = try Self.plan().explain(
            DeviceNames(clientIdentifier: "s-1/+", listener: 1), topics: ["out/x"])
        #expect(
            explanation.refusal
                == .init(reason: .clientIdentifierNotValid, variable: .clientIdentifier, value: "s-1/+"))
        #expect(explanation.topics.isEmpty)
    }

    @Test("What a client may do with a topic, and by which rule; the gateway decides alike")
    func topics() throws {
        let plan = try Self.plan()
        let allow = try TopicTemplate("out/${clientid}/#")
        let topics = [
            "out/s-1/x", "out/s-1/secret", "out/s-2/x", "in/a", "in/+", "#", "out/s-1/state", "out/s-1/t",
        ]
        let rulings = plan.explain(DeviceNames(clientIdentifier: "s-1", listener: 1), topics: topics).topics
        #expect(
            rulings.map(\.publish) == [
                .allowed(by: allow), .denied(by: try TopicTemplate("out/+/secret")), .notAllowed, .notAllowed,
                nil, nil, .allowed(by: allow), .allowed(by: allow),
            ])
        let subscribing = try TopicTemplate("in/#")
        #expect(
            rulings.map(\.subscribe) == [
                .notAllowed, .notAllowed, .notAllowed, .allowed(by: subscribing), .allowed(by: subscribing),
                .notAllowed, .notAllowed, .notAllowed,
            ])
        #expect(rulings.map(\.isKept) == [false, false, false, false, false, false, true, false])
        #expect(rulings.map(\.exception) == [nil, nil, nil, nil, nil, nil, nil, 0])
        for ruling in rulings {
            var s = Scenario(plan: plan)
            s.opens("s-1", Connect(clientIdentifier: "s-1"), listener: 1)
            s.sends("s-1", .subscribe(ruling.topic))
            #expect(
                s.received("s-1").subackReasons == [
                    ruling.subscribe?.isAllowed == true ? .grantedQoS2 : .notAuthorized
                ])
            guard let publish = ruling.publish else { continue }
            s.sends("s-1", .publish(.text(ruling.topic, qos: .atLeastOnce, id: 1)))
            let isRefused = s.received("s-1").contains(.puback(Acknowledgement(1, .notAuthorized)))
            #expect(isRefused == !publish.isAllowed)
        }
        let free = GatewayPlan().explain(DeviceNames(clientIdentifier: "x"), topics: ["a"]).topics
        #expect(free.map(\.publish) == [.allowed(by: nil)] && free.map(\.subscribe) == [.allowed(by: nil)])
    }

    @Test("Every client with its profile, here and away")
    func clients() throws {
        var plan = try Self.plan()
        plan.profiles[1].queue = QueueBounds(messagesMax: 5)
        var s = Scenario.connected("b", "a", plan: plan)
        s.opens("s-1", Connect(version: .v3_1_1, clientIdentifier: "s-1", userName: "sensor"), listener: 1)
        s.syncs()
        s.subscribes("a", "t", qos: .atLeastOnce)
        s.leaves("a", Disconnect(.normalDisconnection))
        s.publishes("b", "t", "12", id: 1)
        s.syncs()
        let clients = s.gateway.clients
        #expect(clients.map(\.clientIdentifier) == ["a", "b", "s-1"])
        #expect(clients.map(\.profile) == ["rest", "rest", "sensors"])
        #expect(clients.map(\.isConnected) == [false, true, true])
        #expect(clients.map(\.isPersistent) == [true, true, false])
        #expect(clients.map(\.queuedMessages) == [1, 0, 0] && clients.map(\.queuedBytes) == [3, 0, 0])
        #expect(clients.map(\.username) == [nil, nil, "sensor"])
        #expect(clients.map(\.listener) == [nil, 0, 1])
        #expect(clients.map(\.bounds) == [QueueBounds(messagesMax: 5), QueueBounds(messagesMax: 5), nil])
        #expect(clients.map(\.subscriptions) == [1, 0, 0])
        #expect(clients.map { $0.closedAt == nil } == [false, true, true])
        #expect(s.gateway.profileUse.map(\.name) == ["sensors", "rest"])
        #expect(Scenario().gateway.profileUse.isEmpty)
    }
}
