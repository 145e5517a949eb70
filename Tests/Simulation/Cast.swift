import GatewayCore
import MQTT
import Uplink

/// Who is there, and what is known of them.
package struct Cast {
    var peers: [any Peer] = []
    private(set) var violations: [String] = []
    private(set) var isDamaged = false
    let uplinkPlans: [UplinkPlan] = []

    init(_ scenario: Scenario, dice: Dice) {
        var dice = dice
        for i in 0..<6 {
            peers.append(
                SimpleClient("c\(i)", i + 1, topic: "t/\(i)", filter: i % 2 == 0 ? "t/#" : nil, dice: dice.fork()))
        }
    }

    func name(_ peer: Int) -> String { "peer \(peer)" }
    func isCloud(_ peer: Int) -> Bool { false }
    func cloud(_ index: UplinkIndex) -> Int { peers.count - 1 }
    func uplinkIndex(of peer: Int) -> UplinkIndex? { nil }
    func gatewayPlan(_ plan: GatewayPlan) -> GatewayPlan { plan }

    mutating func hearEvents(at now: UInt64, _ trace: inout Trace) -> [String] { violations }
    mutating func observed(_ observation: Observation) {}
    mutating func damaged(_ damage: DiskDamage) { isDamaged = true }
    func owesNothing(_ state: borrowing DurableState) -> Bool { state.balance.queued == 0 }
    mutating func finish(_ gateway: borrowing Gateway, at now: UInt64) {}

    func count(into statistics: inout Statistics) {
        for case let client as SimpleClient in peers {
            statistics.published += client.accepted
            statistics.delivered += client.received
        }
    }
}
