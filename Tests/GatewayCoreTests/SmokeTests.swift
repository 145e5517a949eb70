import GatewayCore
import MQTT
import Testing

@Suite("The walk of a message")
struct WalkTests {
    @Test("[MQTT5-4.3.2-4] PUBACK leaves only once the message is durable (A1)")
    func pubackWaitsForSync() {
        var s = Scenario.connected("press-12", "archive")
        s.subscribes("archive", "t")
        s.vanishes("archive")
        s.sends("press-12", .publish(.text("t", qos: .atLeastOnce, id: 7)))
        #expect(s.received("press-12") == [])
        s.syncs()
        #expect(s.received("press-12") == [.puback(Acknowledgement(7))])
        s.losesPower()
        s.connects("archive")
        #expect(s.received("archive").publishes.map(\.text) == ["x"])
    }

    @Test("[MQTT5-4.3.3-8] QoS 2 goes from one client to another exactly once")
    func exactlyOnce() {
        var s = Scenario.connected("press-12", "archive")
        s.subscribes("archive", "t")
        s.sends("press-12", .publish(.text("t", qos: .exactlyOnce, id: 7)))
        #expect(s.received("archive") == [])
        s.syncs()
        #expect(s.received("press-12") == [.pubrec(Acknowledgement(7))])
        let publish = s.received("archive").publishes
        #expect(publish.map(\.qos) == [.exactlyOnce])
        let id = publish[0].id ?? 1
        s.sends("archive", .pubrec(Acknowledgement(id)))
        #expect(s.received("archive") == [])
        s.syncs()
        #expect(s.received("archive") == [.pubrel(Acknowledgement(id))])
        s.sends("archive", .pubcomp(Acknowledgement(id)))
        s.sends("press-12", .publish(.text("t", qos: .exactlyOnce, id: 7, duplicate: true)))
        #expect(s.received("press-12") == [.pubrec(Acknowledgement(7))])
        #expect(s.received("archive") == [])
        s.sends("press-12", .pubrel(Acknowledgement(7)))
        #expect(s.received("press-12") == [])
        s.syncs()
        #expect(s.received("press-12") == [.pubcomp(Acknowledgement(7))])
    }

    @Test("A backlog longer than memory is read back in order")
    func backlog() {
        var plan = GatewayPlan()
        plan.limits.residentBytesOfAbsentMax = 100
        plan.limits.residentBytesMax = 200
        plan.limits.loadedAtOnceMax = 7
        var s = Scenario.connected("press-12", "archive", plan: plan)
        s.subscribes("archive", "t")
        s.vanishes("archive")
        for n in 1...500 {
            s.sends(
                "press-12",
                .publish(.text("t", "message \(n)", qos: n % 3 == 0 ? .exactlyOnce : .atLeastOnce, id: 7)))
            s.syncs()
            if n % 3 == 0 { s.sends("press-12", .pubrel(Acknowledgement(7))) }
        }
        s.losesPower()
        s.connects("archive", receiveMaximum: 10)
        var got: [String] = []
        for _ in 0..<2000 where got.count < 500 {
            for packet in s.received("archive") {
                switch packet {
                case .publish(let publish):
                    got.append(publish.text)
                    guard let id = publish.id else { continue }
                    s.sends(
                        "archive",
                        publish.qos == .exactlyOnce
                            ? .pubrec(Acknowledgement(id)) : .puback(Acknowledgement(id)))
                case .pubrel(let pubrel): s.sends("archive", .pubcomp(pubrel))
                default: Issue.record("unexpected \(packet)")
                }
            }
            s.syncs()
        }
        #expect(got == (1...500).map { "message \($0)" })
    }

    @Test("The uplink's queue is the outbox, and survives the power cut")
    func uplink() {
        var plan = GatewayPlan()
        plan.uplinks = [
            UplinkRoutes(
                name: "cloud",
                out: [
                    .init(
                        filter: TopicFilter("sensors/#")!,
                        rename: TopicRename(dropping: 0, prepending: Array("site/".utf8)),
                        maximumQoS: .exactlyOnce)
                ],
                in: [
                    .init(
                        filter: TopicFilter("site/commands/#")!,
                        rename: TopicRename(dropping: 5, prepending: []), maximumQoS: .exactlyOnce)
                ])
        ]
        var s = Scenario.connected("press-12", plan: plan)
        s.sends("press-12", .publish(.text("sensors/a", qos: .exactlyOnce, id: 1)))
        s.syncs()
        #expect(s.received("press-12") == [.pubrec(Acknowledgement(1))])
        s.losesPower()
        s.cloudConnects(sessionPresent: false)
        let publish = s.cloudReceived().publishes
        #expect(publish.map { String(decoding: $0.message.topic, as: UTF8.self) } == ["site/sensors/a"])
        let id = publish[0].id ?? 1
        s.cloudSends(0, .pubrec(Acknowledgement(id)))
        #expect(s.cloudReceived() == [])
        s.syncs()
        #expect(s.cloudReceived() == [.pubrel(Acknowledgement(id))])
        s.losesPower()
        s.cloudConnects(sessionPresent: true)
        #expect(s.cloudReceived() == [.pubrel(Acknowledgement(id))])
        s.cloudSends(0, .pubcomp(Acknowledgement(id)))
        s.connects("valve-3")
        s.subscribes("valve-3", "commands/#")
        s.cloudSends(0, .publish(.text("site/commands/v", qos: .exactlyOnce, id: 5)))
        #expect(s.cloudReceived() == [])
        s.syncs()
        #expect(s.cloudReceived() == [.pubrec(Acknowledgement(5))])
        #expect(
            s.received("valve-3").publishes.map { String(decoding: $0.message.topic, as: UTF8.self) } == [
                "commands/v"
            ])
    }
}
