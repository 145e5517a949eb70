import GatewayCore
import MQTT
import Testing

@testable import Uplink

/// What `tidegate doctor` makes of a cloud's CONNACK.
@Suite("The prognosis for an uplink")
struct PrognosisTests {
    @Test("A cloud that says nothing of limits has none")
    func unlimited() throws {
        let prognosis = try judge(Connack(sessionPresent: false, reason: .success))
        #expect(prognosis.findings.isEmpty)
        #expect(
            prognosis.offer == [
                "session kept for 7d", "QoS up to 2", "retained messages", "packets of any size",
                "65535 messages in flight", "0 topic aliases",
            ])
    }

    @Test(
        "[MQTT5-3.2.2.3.2] a session that ends sooner loses what the cloud owes, and only where it owes something",
        arguments: [
            (0, true, true, "forgets this gateway whenever the link breaks"),
            (0, false, false, "QoS 2 message that was on its way can arrive twice"),
            (3600, true, true, "keeps its session for 1h and not 7d"),
            (3600, false, false, "for 1h and not 7d"),
            (604_799, true, true, "for 604799s and not 7d"),
        ])
    func session(seconds: UInt32, carriesDown: Bool, isLoss: Bool, words: String) throws {
        let connack = Connack(sessionPresent: false, reason: .success, sessionExpirySeconds: seconds)
        let prognosis = try judge(connack, carriesDown: carriesDown)
        #expect(prognosis.findings.count == 1 && prognosis.losesMessages == isLoss)
        #expect(prognosis.findings.first?.words.contains(words) == true, "\(prognosis.findings)")
    }

    @Test(
        "A session kept for as long as was asked, or longer, is well", arguments: [604_800, .max] as [UInt32])
    func longSession(seconds: UInt32) throws {
        let connack = Connack(sessionPresent: false, reason: .success, sessionExpirySeconds: seconds)
        #expect(try judge(connack).findings.isEmpty)
    }

    @Test(
        "[MQTT5-3.2.2.3.4] QoS 0 loses, QoS 1 only repeats, and a route that asks for no more minds nothing",
        arguments: [
            (0, 2, [true]), (1, 2, [false]), (0, 1, [true]), (1, 1, []), (0, 0, []),
        ] as [(UInt8, UInt8, [Bool])])
    func quality(maximum: UInt8, asked: UInt8, losses: [Bool]) throws {
        let connack = Connack(sessionPresent: false, reason: .success, maximumQoS: QoS(rawValue: maximum))
        let prognosis = try judge(connack, carriesDown: false, qos: try #require(QoS(rawValue: asked)))
        #expect(prognosis.findings.map(\.isLoss) == losses)
    }

    @Test("[MQTT5-3.2.2.3.5] without retained messages routes and status that carry RETAIN are named")
    func retain() throws {
        let connack = Connack(sessionPresent: false, reason: .success, retainAvailable: false)
        #expect(try judge(connack).findings.map(\.write) == ["retain: false at every route with out"])
        var plan = Self.plan
        plan.status = UplinkStatus(topic: Array("s".utf8), online: [1], offline: [0])
        #expect(try judge(connack, plan: plan).findings.count == 2)
    }

    @Test("[MQTT5-3.2.2.3.6] a smaller Maximum Packet Size than ours makes dead letters, which is no loss")
    func size() throws {
        let connack = Connack(sessionPresent: false, reason: .success, maximumPacketSize: 1000)
        let findings = try judge(connack).findings
        #expect(findings.map(\.isLoss) == [false])
        #expect(findings[0].words.contains("more than 1000 bytes"))
        let large = Connack(sessionPresent: false, reason: .success, maximumPacketSize: 1 << 20)
        #expect(try judge(large).findings.isEmpty)
    }

    @Test("[MQTT5-3.2.2-16] an Assigned Client Identifier loses the session")
    func assigned() throws {
        let connack = Connack(sessionPresent: false, reason: .success, assignedClientIdentifier: "x")
        #expect(try judge(connack).losesMessages)
    }

    @Test(
        "A subscription that is refused, unanswered or lowered is named",
        arguments: [
            (ReasonCode.notAuthorized, [true]), (nil, [true]), (.grantedQoS0, [true]),
            (.grantedQoS1, [false]),
            (.grantedQoS2, []),
        ] as [(ReasonCode?, [Bool])])
    func subscription(answer: ReasonCode?, losses: [Bool]) throws {
        let prognosis = Prognosis(
            Self.plan, routes: try routes(carriesDown: true, qos: .exactlyOnce),
            connack: Connack(sessionPresent: false, reason: .success), subscriptions: [answer])
        #expect(prognosis.findings.map(\.isLoss) == losses)
    }

    @Test("MQTT 3.1.1 says nothing, and that is said")
    func older() throws {
        var plan = Self.plan
        plan.version = .v3_1_1
        let prognosis = try judge(Connack(sessionPresent: false, reason: .success), plan: plan)
        #expect(prognosis.offer == ["MQTT 3.1.1, which says nothing about its limits"])
        #expect(prognosis.findings.map(\.isLoss) == [false])
    }

    private static var plan: UplinkPlan {
        var plan = UplinkPlan(
            name: "cloud", addresses: [UplinkAddress(host: "h", port: 1)], clientIdentifier: "g")
        plan.maximumPacketSize = 1 << 20
        if let filter = TopicFilter("down/#") { plan.subscriptions = [.init(filter, .exactlyOnce)] }
        return plan
    }

    private func judge(
        _ connack: Connack, carriesDown: Bool = true, qos: QoS = .exactlyOnce, plan: UplinkPlan = Self.plan
    ) throws -> Prognosis {
        Prognosis(
            plan, routes: try routes(carriesDown: carriesDown, qos: qos), connack: connack,
            subscriptions: [.grantedQoS2])
    }

    private func routes(carriesDown: Bool, qos: QoS) throws -> UplinkRoutes {
        let up = UplinkRoutes.Route(filter: try #require(TopicFilter("up/#")), rename: nil, maximumQoS: qos)
        let down = UplinkRoutes.Route(
            filter: try #require(TopicFilter("down/#")), rename: nil, maximumQoS: .exactlyOnce)
        return UplinkRoutes(name: "cloud", out: [up], in: carriesDown ? [down] : [])
    }
}
