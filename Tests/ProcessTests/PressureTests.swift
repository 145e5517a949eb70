import Foundation
import Testing
import Workbench

/// A queue without room, as a publisher sees it that has no words for that.
@Suite("honest pressure", .serialized)
struct PressureTests {
    @Test("[MQTT311-4.6.0-6] a 3.1.1 client whose own queue is full all the time gets all it publishes")
    func ownQueue() throws {
        let rig = try Rig()
        // Fewer than the client has in flight, so that its PUBLISH waits for its own acknowledgements.
        let gateway = try rig.gateway(settings: ["limits: { queue-messages: 5 }"])
        try gateway.start()
        let ledger = Ledger()
        var plan = Client.Plan(id: "loop", port: gateway.port, version: .v311)
        plan.subscriptions = [("loop/#", 2)]
        plan.publications = [1, 2].map { qos in
            .init(
                stream: ledger.open(.up, qos: qos, name: "QoS \(qos)"), topic: "loop/\(qos)",
                qos: Int32(qos), perSecond: 300)
        }
        let client = Client(plan, ledger: ledger)
        defer { client.end() }
        try #require(waitUpTo(10) { client.isReady })
        client.publishing(true)
        waitUpTo(20) { ledger.totals(qos: 1).received >= 100 && ledger.totals(qos: 2).received >= 100 }
        client.publishing(false)
        #expect(waitUpTo(10) { ledger.totals().unanswered == 0 && ledger.totals().underWay == 0 })
        expectNothingLost(ledger, [client], atLeast: 100)
        #expect(client.connections == 1)
        #expect(gateway.stop() == .exited(0))
    }
}
