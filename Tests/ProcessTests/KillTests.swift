import Foundation
import Testing
import Workbench

/// SIGKILL under load, every message counted.
@Suite("SIGKILL under load", .serialized)
struct KillTests {
    /// One subscriber stays away from start to end, one stays connected whenever it can; each in both versions.
    @Test(
        "five kills: nothing acknowledged is lost, nothing at QoS 2 is doubled", arguments: [Seed.ofThisRun])
    func keepsEverything(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        let ledger = Ledger()
        var subscribers: [Client] = []
        var publishers: [Client] = []
        for (name, version) in [
            ("absent-v311", Client.Version.v311), ("absent-v5", .v5), ("live-v311", .v311), ("live-v5", .v5),
        ] {
            var plan = Client.Plan(id: name, port: gateway.port, version: version)
            plan.subscriptions = [("load/\(name)/#", 2)]
            subscribers.append(Client(plan, ledger: ledger))
            publishers.append(publisher(for: name, version, gateway.port, ledger))
        }
        let everyone = subscribers + publishers
        defer { everyone.forEach { $0.end() } }
        try #require(waitUpTo(15) { everyone.allSatisfy { $0.isReady } })
        subscribers.prefix(2).forEach { $0.leave(abruptly: false) }
        try #require(waitUpTo(5) { subscribers.prefix(2).allSatisfy { !$0.isConnected } })

        publishers.forEach { $0.publishing(true) }
        for _ in 1...5 {
            usleep(.random(in: 500_000...1_200_000, using: &random))
            gateway.kill()
            try gateway.start()
        }
        usleep(500_000)
        publishers.forEach { $0.publishing(false) }
        #expect(waitUpTo(20) { ledger.totals().unanswered == 0 }, "publishers wait for acknowledgements")
        subscribers.forEach { $0.comeBack() }
        waitUpTo(30) { ledger.totals().underWay == 0 }
        usleep(1_000_000)

        expectNothingLost(ledger, everyone, atLeast: 500)
        #expect(gateway.stop() == .exited(0))
    }

    private func publisher(
        for name: String, _ version: Client.Version, _ port: UInt16, _ ledger: Ledger
    ) -> Client {
        var plan = Client.Plan(id: "publisher-\(name)", port: port, version: version)
        for qos in [1, 2] {
            plan.publications.append(
                .init(
                    stream: ledger.open(.up, qos: qos, name: "\(name), QoS \(qos)"),
                    topic: "load/\(name)/qos\(qos)", qos: Int32(qos), perSecond: 60))
        }
        return Client(plan, ledger: ledger)
    }
}

/// The promise P2, and that the test put it to a test at all.
func expectNothingLost(
    _ ledger: Ledger, _ clients: some Sequence<Client>, atLeast count: Int,
    at location: SourceLocation = #_sourceLocation
) {
    let faults = ledger.faults().joined(separator: "\n")
    for qos in [1, 2] {
        let totals = ledger.totals(qos: qos)
        #expect(totals.lost == 0, "QoS \(qos)\n\(faults)", sourceLocation: location)
        #expect(totals.underWay == 0, "QoS \(qos)", sourceLocation: location)
        #expect(totals.refused == 0, "QoS \(qos)", sourceLocation: location)
        #expect(totals.received >= count, "QoS \(qos): too little was sent", sourceLocation: location)
    }
    #expect(ledger.totals(qos: 2).duplicated == 0, "\(faults)", sourceLocation: location)
    #expect(ledger.strangers == 0, sourceLocation: location)
    for client in clients {
        #expect(client.sessionsLost == 0, "\(client.plan.id)", sourceLocation: location)
        #expect(client.lastError == nil, "\(client.plan.id)", sourceLocation: location)
    }
}
