import GatewayCore
import MQTT
import Testing
@testable import Simulation

/// A sensor (0), whose messages are named 1#n, a valve (1), a second one (2) and the cloud (3), as somebody tells it.
struct Story {
    var oracle: Oracle
    var now: UInt64 = 1_000_000

    init(shared: Bool = false, isRude: Bool = false) {
        var clients = [
            ClientPlan("sensor", author: 1), ClientPlan("valve", author: 2), ClientPlan("drifter", author: 3),
        ]
        if isRude { clients[0].manners = [.repeats] }
        if shared {
            for i in 1...2 {
                clients[i].subscriptions = [.init(Self.request("$share/g/t/#"))]
            }
        }
        var rules = OracleRules(clients: clients, cloud: CloudPlan(author: 100))
        rules.out = [.init(filter: PeerBench.filter("up/#"), rename: nil, maximumQoS: .exactlyOnce)]
        oracle = Oracle(rules)
    }

    private static func request(_ filter: String) -> SubscriptionRequest {
        SubscriptionRequest(filter: PeerBench.filter(filter), maximumQoS: .exactlyOnce)
    }

    func name(_ number: UInt32) -> MessageName { MessageName(1, number) }

    mutating func saw(_ event: PeerEvent, by peer: Int) {
        now += 1000
        oracle.saw(event, by: peer, at: now)
    }

    /// Sensor and valve are connected, and the valve is subscribed.
    mutating func begins() {
        connects(0)
        connects(1)
        subscribes(1)
    }

    mutating func connects(
        _ peer: Int, cleanStart: Bool = false, expirySeconds: UInt32 = .max, present: Bool = false,
        will: UInt32? = nil
    ) {
        let will = will.map {
            PeerEvent.Publishing(name($0), topic: Array("t/will".utf8), qos: .atLeastOnce)
        }
        saw(
            .connecting(
                .init(cleanStart: cleanStart, expirySeconds: expirySeconds, will: will, willDelaySeconds: 0)),
            by: peer)
        saw(.connected(sessionPresent: present, expirySeconds: expirySeconds), by: peer)
    }

    mutating func reconnects(_ peer: Int, expirySeconds: UInt32 = .max, present: Bool = true) {
        connects(peer, expirySeconds: expirySeconds, present: present)
    }

    mutating func subscribes(_ peer: Int, _ filter: String = "t/#") {
        let requests = [Self.request(filter)]
        saw(.subscribing(requests, identifier: nil), by: peer)
        saw(.subscribed(requests, identifier: nil, [.grantedQoS2]), by: peer)
    }

    mutating func unsubscribes(_ peer: Int) {
        saw(.unsubscribing([PeerBench.filter("t/#")]), by: peer)
        saw(.unsubscribed([PeerBench.filter("t/#")]), by: peer)
    }

    mutating func publishes(
        _ number: UInt32, _ qos: QoS = .atLeastOnce, topic: String = "t/a", retain: Bool = false,
        expirySeconds: UInt32? = nil, duplicate: Bool = false
    ) {
        saw(
            .publishing(
                .init(
                    name(number), topic: Array(topic.utf8), qos: qos, retain: retain,
                    expirySeconds: expirySeconds, duplicate: duplicate)), by: 0)
    }

    mutating func accepts(_ number: UInt32) { saw(.accepted(name(number)), by: 0) }

    mutating func receives(
        _ number: UInt32, _ qos: QoS = .atLeastOnce, topic: String = "t/a", retain: Bool = false,
        duplicate: Bool = false, isNew: Bool = true, by peer: Int = 1
    ) {
        saw(
            .received(
                .init(
                    name: name(number), topic: Array(topic.utf8), qos: qos, retain: retain,
                    duplicate: duplicate, isNew: isNew)), by: peer)
    }

    mutating func ends(deadLetters: [MessageName] = [], dropped: Int = 0) -> [String] {
        var end = Oracle.End()
        end.deadLetters = deadLetters
        end.droppedByPolicy = dropped
        now += 1000
        return oracle.finish(end, at: now)
    }
}
